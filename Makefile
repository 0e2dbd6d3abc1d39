# Everything here does its own set-up; needed beforehand: make and Python 3.11+ (set PYTHON=… to choose one).
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
DEV    := $(VENV)/.dev
PIP    := $(BIN)/python -m pip install --quiet --disable-pip-version-check
LOCK   := uv pip compile --quiet --universal --python-version 3.11.7 --generate-hashes --no-annotate --no-header

.PHONY: demo test quick check bench bench-eval lock resolve clean
.DEFAULT_GOAL := test

$(READY): pyproject.toml requirements/base.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if v >= (3, 11) else f"CulturePark needs Python 3.11+; this is {v.major}.{v.minor}. Try: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(PIP) --no-deps --require-hashes -r requirements/base.txt
	$(PIP) --no-deps --no-build-isolation -e .
	@touch $(READY)

# All that tests and benchmarks need. PyTorch is the largest part of it, and the one part that is held to a version, not to a hash.
$(DEV): $(READY) requirements/dev.txt constraints.txt
	$(PIP) --no-deps --require-hashes -r requirements/dev.txt
	$(PIP) -c constraints.txt torch
	$(BIN)/python -m pip check
	@touch $(DEV)

demo: $(READY)   ## the main job on the embedded engine: cards → dialogues → samples → corpus → report
	$(BIN)/culturepark run demo --fresh

test: $(DEV)   ## every test, on as many cores as there are
	$(BIN)/python -m pytest -n logical --maxprocesses 4 --dist loadgroup --no-loadscope-reorder

quick: $(DEV)  ## the tests that take no time, for whoever is at work: about a minute
	$(BIN)/python -m pytest -m "not slow" -q -n logical --maxprocesses 4 --dist loadgroup

check: $(DEV)  ## style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(DEV)  ## every claim of the docs, printed
	$(BIN)/python -m benchmarks

bench-eval: $(DEV)  ## the tiny base, eight adapters and the embedded engine on every benchmark, in one table
	$(BIN)/python -m benchmarks evaluation

lock: $(READY)  ## the locks anew, as little changed as can be; UPGRADE=--upgrade takes the newest of everything
	$(PIP) uv
	$(BIN)/$(LOCK) $(UPGRADE) --overrides requirements/override.txt --no-emit-package torch --no-emit-package networkx \
		--no-emit-package sympy --no-emit-package mpmath --extra dev pyproject.toml requirements/build.in -o requirements/dev.txt
	$(BIN)/python requirements/constraints.py > constraints.new && mv constraints.new constraints.txt
	$(BIN)/$(LOCK) -c constraints.txt pyproject.toml requirements/build.in -o requirements/base.txt

# One environment for every extra, found without any lock: litellm's and Inspect's pins of openai agree.
resolve: $(READY)  ## whether culturepark[dev] resolves on every Python that is claimed
	$(PIP) uv
	for version in 3.11.7 3.12 3.13; do $(BIN)/uv pip compile --quiet --python-version $$version --extra dev pyproject.toml -o $(VENV)/resolved.txt \
		&& grep -E '^(openai|litellm|inspect-ai|torch)==' $(VENV)/resolved.txt || exit 1; rm $(VENV)/resolved.txt; done

clean:
	rm -rf $(VENV) dist build .mypy_cache .ruff_cache .pytest_cache
