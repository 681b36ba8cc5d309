# Everything a fresh machine needs: git, make, Python 3.10 to 3.13 and the package index.
PYTHON ?= python3
VENV ?= .venv
# Index of CPU-only torch wheels (pytorch.org, "Get Started", names it); empty: pip's default.
TORCH_INDEX ?=
# SHORT=1 makes `make demo` a rehearsal of a few minutes.
SHORT ?=
DEMO_OPTS ?=
# What `make rehearse` rehearses; -j 2 does so side by side.
RECIPE ?= librispeech librispeech_100 voxceleb

BIN = $(VENV)/bin
DEMO = egs2/amazon_queen/star1

.PHONY: help install demo rehearse test lint docs clean

help:
	@echo "make demo          set up, distil Whisper base on real speech, ASR, SID, result table"
	@echo "make demo SHORT=1  the same in six minutes"
	@echo "make rehearse      every stage of the large recipes on miniature corpora; RECIPE=voxceleb: of one"
	@echo "make test          set up and run the tests"
	@echo "make lint          ruff and mypy"
	@echo "make docs          build/docs/index.html; a warning is an error"
	@echo "Variables: PYTHON=$(PYTHON) VENV=$(VENV) TORCH_INDEX=$(TORCH_INDEX)"

install: $(VENV)/.installed

# pip is left as the venv brings it: pip 26 refuses ci_sdr, a dependency of ESPnet 202511.
$(VENV)/.installed: setup.py
	$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' \
		|| { echo "espnet_star needs Python 3.10 to 3.13; set PYTHON=..." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	if [ -n "$(TORCH_INDEX)" ]; then \
		$(BIN)/python -m pip install -q --index-url "$(TORCH_INDEX)" torch==2.11.0 torchaudio==2.11.0; \
	fi
	$(BIN)/python -m pip install -q -e ".[all]"
	touch $@

demo: install
	cd $(DEMO) && ./run.sh --python "$(abspath $(BIN)/python)" \
		$(if $(SHORT),--short true) $(DEMO_OPTS)

rehearse: $(addprefix rehearse-,$(RECIPE))

rehearse-%: install
	cd egs2/$*/star1 && ./run.sh --rehearse true --python "$(abspath $(BIN)/python)"

test: install
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n auto --dist worksteal tests

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: install
	$(BIN)/python -m sphinx -q -W --keep-going -b html docs build/docs

SHELL = bash

clean:
	rm -rf $(DEMO)/{data,dump,dump_short,exp,exp_short,results,results_short} egs2/*/star1/rehearsal_run
