# Everything here does its own set-up; needed beforehand: make and Python 3.11+ (set PYTHON=… to choose one).
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
DEV    := $(VENV)/.dev

.PHONY: demo test check bench bench-eval clean
.DEFAULT_GOAL := test

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if v >= (3, 11) else f"CulturePark needs Python 3.11+; this is {v.major}.{v.minor}. Try: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	@touch $(READY)

# All that tests and benchmarks need; PyTorch is the largest part of it.
$(DEV): $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $(DEV)

demo: $(READY)   ## the main job on the embedded engine: cards → dialogues → samples → corpus → report
	$(BIN)/culturepark run demo --fresh

test: $(DEV)   ## every test
	$(BIN)/python -m pytest

check: $(DEV)  ## style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(DEV)  ## every claim of the docs, printed
	$(BIN)/python -m benchmarks

bench-eval: $(DEV)  ## the tiny base, eight adapters and the embedded engine on every benchmark, in one table
	$(BIN)/python -m benchmarks evaluation

clean:
	rm -rf $(VENV) dist build .mypy_cache .ruff_cache .pytest_cache
