# Everything a fresh machine needs: git, make, Python 3.10 to 3.13 and the package index.
PYTHON ?= python3
VENV ?= .venv
# Index of CPU-only torch wheels (pytorch.org, "Get Started", names it); empty: pip's default.
TORCH_INDEX ?=
# SHORT=1 makes `make demo` a rehearsal of a few minutes.
SHORT ?=
DEMO_OPTS ?=

BIN = $(VENV)/bin
RECIPE = egs2/amazon_queen/star1

.PHONY: help install demo test lint docs clean

help:
	@echo "make demo          set up, distil Whisper base on real speech, ASR, SID, result table"
	@echo "make demo SHORT=1  the same in six minutes"
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
	cd $(RECIPE) && ./run.sh --python "$(abspath $(BIN)/python)" \
		$(if $(SHORT),--short true) $(DEMO_OPTS)

test: install
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n auto tests

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: install
	$(BIN)/python -m sphinx -q -W --keep-going -b html docs build/docs

SHELL = bash

clean:
	rm -rf $(RECIPE)/{data,dump,dump_short,exp,exp_short,results,results_short}
