# Two commands: `make demo` and `make test`. Both make the environment (.venv) where it is missing.

PYTHON ?= python3
BIN := .venv/bin
THREADS ?= 2

# One thread a worker, waiting without spinning: two spinning processes on two cores crawl.
export OMP_WAIT_POLICY := PASSIVE
export HF_HUB_OFFLINE ?= 1

.PHONY: demo test test-slow lint setup clean

demo: setup
	@$(BIN)/pellucid study run ross2018 --scale smoke --threads $(THREADS)

test: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2

test-slow: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m slow

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

setup: .venv/.installed

.venv/.installed: pyproject.toml constraints.txt
	@echo "setting up .venv (a minute or two, once)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed: make PYTHON=python3.11 ...")'
	@$(PYTHON) -m venv .venv
	@$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

clean:
	rm -rf .venv artifacts
