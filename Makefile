# make train | make test | make lint | make bench | make docs: each sets up .venv first, if it must.
# Another interpreter: make test PYTHON=python3.12 VENV=.venv-3.12

PYTHON ?= python3
VENV ?= .venv
ARGS ?=
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help setup train test test-slow test-all lint bench docs gpu-compile clean

help:
	@echo "make train [ARGS=...]  train BN and unitized BN on real images, offline"
	@echo "make test [ARGS=...]   lint, type check and tests"
	@echo "make test-slow         the slow tests: whole studies, processes, rounding as users get it"
	@echo "make test-all          make test, then make test-slow"
	@echo "make lint              ruff and mypy alone"
	@echo "make bench             the layer against flax.linen.BatchNorm"
	@echo "make docs              the documentation, in docs/_build/html"
	@echo "make gpu-compile       set up .venv-gpu, which compiles for GPUs without one: bench gpu"
	@echo "make clean             remove $(VENV), .venv-gpu and caches; runs/ stays"

setup: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11))" || \
		{ echo "Python 3.11 or newer is needed; name one: make PYTHON=python3.12" >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python -c constraints.txt \
		-e . --group experiments
	touch $@

# Tests need more: the checkers, tensorflow to prepare data sets, the libraries we compare with.
$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/uv pip install --quiet --python $(BIN)/python -c constraints.txt \
		-e . --group dev
	touch $@

$(VENV)/.installed-docs: $(VENV)/.installed
	$(BIN)/uv pip install --quiet --python $(BIN)/python -c constraints.txt \
		-e . --group docs
	touch $@

train: setup
	$(BIN)/python -m experiments train $(ARGS)

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: lint
	$(BIN)/python -m pytest -n auto -m "not slow" $(ARGS)

# Then the laws of rounding with the programs that users get: XLA's own options, not conftest.py's.
test-slow: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -n auto -m slow $(ARGS)
	XLA_FLAGS= $(BIN)/python -m pytest -n auto -m rounding $(ARGS)

test-all: test test-slow

bench: $(VENV)/.installed-dev
	$(BIN)/python -m experiments bench layer $(ARGS)

# Strict: a warning, such as a link that leads nowhere, is an error. Notebooks are run.
docs: $(VENV)/.installed-docs
	$(BIN)/python -m sphinx --fail-on-warning --keep-going -q -b html docs docs/_build/html $(ARGS)
	@echo "docs/_build/html/index.html"

# The compiler of GPUs, in an environment apart: where it is installed, JAX looks for a GPU.
gpu-compile: .venv-gpu/.installed

.venv-gpu/.installed: pyproject.toml constraints.txt $(VENV)/.installed
	test -x .venv-gpu/bin/python || $(PYTHON) -m venv .venv-gpu
	$(BIN)/uv pip install --quiet --python .venv-gpu/bin/python -c constraints.txt \
		-e . --group gpu-compile
	touch $@

clean:
	rm -rf $(VENV) .venv-gpu build docs/_build *.egg-info .hypothesis .mypy_cache .pytest_cache \
		.ruff_cache
