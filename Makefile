# Everything a fresh machine needs: git, make, Python 3.11 to 3.13 and the package index.
PYTHON ?= python3
VENV ?= .venv
# LONG=1 makes `make demo` distill a better student, in twice the time.
LONG ?=
DEMO_OPTS ?=
# What `make rehearse` rehearses; -j 2 does so side by side.
RECIPE ?= librispeech librispeech_100 voxceleb
# Wheels of torch: those without CUDA (PyTorch's own index, see "Get Started" on pytorch.org) where
# there is no GPU and that index answers, else pip's default. TORCH_INDEX=URL, or an empty
# TORCH_INDEX= for pip's default, decides instead.
CPU_WHEELS = https://download.pytorch.org/whl/cpu
ifeq ($(origin TORCH_INDEX),undefined)
TORCH_INDEX = auto
endif

BIN = $(VENV)/bin
DEMO = egs2/amazon_queen/star1
SHELL = bash

.PHONY: help install install-all demo rehearse test lint docs clean

help:
	@echo "make demo          set up, distill Whisper base on real speech, ASR, SID, result table, report"
	@echo "make demo LONG=1   the same with a better student, in twice the time"
	@echo "make rehearse      every stage of the large recipes on miniature corpora; RECIPE=voxceleb: of one"
	@echo "make test          set up and run the tests"
	@echo "make lint          ruff and mypy"
	@echo "make docs          build/docs/index.html; a warning is an error"
	@echo "Variables: PYTHON=$(PYTHON) VENV=$(VENV) TORCH_INDEX=$(TORCH_INDEX)"

install: $(VENV)/.installed

install-all: $(VENV)/.installed-all

# What the recipes need. pip is left as the venv brings it: pip 26 refuses ci_sdr, a dependency
# of ESPnet 202511. 2.11.0 is the newest release of both wheels that go together.
$(VENV)/.installed: setup.py
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' \
		|| { echo "espnet_star needs Python 3.11 to 3.13; set PYTHON=..." >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV)
	@index="$(TORCH_INDEX)"; \
	if [ "$$index" = auto ]; then \
		index=; \
		if command -v nvidia-smi > /dev/null; then \
			echo "set-up: a GPU is here: torch with CUDA from pip's default index"; \
		elif $(BIN)/python -c 'import sys, urllib.request as r; r.urlopen(sys.argv[1], timeout=5)' \
			$(CPU_WHEELS)/torch/ 2> /dev/null; then \
			index=$(CPU_WHEELS); \
			echo "set-up: no GPU here: torch without CUDA from $$index"; \
		else \
			echo "set-up: no GPU here, but $(CPU_WHEELS) can't be reached: torch from pip's default index"; \
		fi; \
	fi; \
	[ -z "$$index" ] || $(BIN)/python -m pip install -q --index-url "$$index" torch==2.11.0 torchaudio==2.11.0
	@$(BIN)/python -m pip install -q -e ".[recipes]"
	@touch $@

$(VENV)/.installed-all: $(VENV)/.installed
	@$(BIN)/python -m pip install -q -e ".[all]"
	@touch $@

demo: install
	cd $(DEMO) && ./run.sh --python "$(abspath $(BIN)/python)" \
		$(if $(LONG),--long true) $(DEMO_OPTS)

rehearse: $(addprefix rehearse-,$(RECIPE))

rehearse-%: install-all
	tests/recipes/rehearse.sh $* --python "$(abspath $(BIN)/python)"

test: install-all
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n auto --dist worksteal tests

lint: install-all
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: install-all
	$(BIN)/python -m sphinx -q -W --keep-going -b html docs build/docs

clean:
	rm -rf $(DEMO)/{data,dump,dump_long,exp,exp_long,results,results_long} egs2/*/star1/rehearsal_run
