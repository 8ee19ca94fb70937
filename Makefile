# make demo    from nothing to a trained, exported model on a synthetic click log
# make test    installs what is missing and runs the tests
# DEVICE=cuda  uses the CUDA builds instead of the CPU builds
#
# Needs python3 (3.11 or later) with venv, and nothing else.

PYTHON ?= python3
DEVICE ?= cpu
# An environment per device: the CPU and the CUDA build of fbgemm write the same files.
VENV ?= $(if $(filter cuda,$(DEVICE)),.venv-cuda,.venv)
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
STAMPS := $(VENV)/stamps
PINS := $(wildcard requirements/*.txt)

.PHONY: help demo install install-dev test lint format typecheck docs bench-envs clean clean-all
.DEFAULT_GOAL := help

help:
	@sed -n 's/^# \{0,1\}//p;/^$$/q' Makefile
	@echo "targets: demo install test lint format typecheck docs bench-envs clean clean-all"

# --- environment ---------------------------------------------------------------------------------

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "recsys needs Python 3.11 or later, this is " + sys.version.split()[0] + "; set PYTHON=")'
	$(PYTHON) -m venv $(VENV)

# torchrec goes in without its dependencies: requirements/torchrec.txt says why.
$(STAMPS)/train-$(DEVICE): $(PINS) pyproject.toml | $(BIN)/python
	@echo "installing into $(VENV); this takes some minutes"
	$(PIP) install --quiet -r requirements/$(DEVICE).txt
	$(PIP) install --quiet --no-deps -r requirements/torchrec.txt
	$(PIP) install --quiet --no-deps --no-build-isolation --editable .
	@mkdir -p $(STAMPS) && touch $@

$(STAMPS)/dev: requirements/dev.txt $(STAMPS)/train-$(DEVICE)
	$(PIP) install --quiet -r requirements/dev.txt
	@mkdir -p $(STAMPS) && touch $@

install: $(STAMPS)/train-$(DEVICE)

install-dev: $(STAMPS)/dev

# --- the demo ------------------------------------------------------------------------------------

demo: install
	$(BIN)/recsys synth data/synth_demo.yaml --output runs/demo-log
	$(BIN)/recsys run pipelines/demo.yaml --data runs/demo-log --output runs/demo

# --- checks --------------------------------------------------------------------------------------

test: install-dev
	$(BIN)/python -m pytest $(PYTEST_ARGS)

lint: install-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

format: install-dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

typecheck: install-dev
	$(BIN)/mypy

docs: install
	$(BIN)/python -m recsys.reference docs

# The peers that benchmarks measure each live in an environment of their own.
bench-envs:
	$(PYTHON) -m venv benchmarks/.envs/fuxictr
	benchmarks/.envs/fuxictr/bin/python -m pip --disable-pip-version-check install --quiet -r benchmarks/peers/fuxictr.txt
	$(PYTHON) -m venv benchmarks/.envs/outrank
	benchmarks/.envs/outrank/bin/python -m pip --disable-pip-version-check install --quiet -r benchmarks/peers/outrank.txt
	$(PYTHON) -m venv benchmarks/.envs/retrieval
	benchmarks/.envs/retrieval/bin/python -m pip --disable-pip-version-check install --quiet -r benchmarks/peers/retrieval.txt

# --- tidying -------------------------------------------------------------------------------------

clean:
	rm -rf build dist *.egg-info runs/demo runs/demo-log .pytest_cache .mypy_cache .ruff_cache htmlcov .coverage

clean-all: clean
	rm -rf .venv .venv-cuda benchmarks/.envs benchmarks/.cache
