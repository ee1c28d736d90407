.DEFAULT_GOAL := help
.PHONY: help demo test test-main test-flower test-device gpu check wheels bench docs clean
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
STAMP := .venv/.installed
DOCS_STAMP := .venv/.installed-docs
SOURCES := privfl benchmarks tests examples docs/hooks
# what one process compiled, the hundreds of others that tests begin load
export PYTHONDONTWRITEBYTECODE :=
QUIET := --quiet --disable-pip-version-check
PIP := $(BIN)/pip install $(QUIET) --constraint constraints.txt
# compat: so that type checkers see the package
EDITABLE := --config-settings editable_mode=compat --editable

help:  ## Show what can be made
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-8s %s\n", $$1, $$2}'

$(STAMP): pyproject.toml constraints.txt Makefile
	$(PYTHON) -m venv .venv
	$(PIP) torch
	$(PIP) $(EDITABLE) ".[dev,bench]"
	$(BIN)/pip install $(QUIET) --no-deps byzfl==0.0.11  # a peer of the benchmarks, by itself
	@touch $(STAMP)

$(DOCS_STAMP): $(STAMP)
	$(PIP) $(EDITABLE) ".[docs]"
	@touch $(DOCS_STAMP)

demo: $(STAMP)  ## Train 20 clients under each privacy layer, print the table
	$(BIN)/privfl demo

# two processes on two cores, and no threads beside them
test check test-main test-flower test-device: export OMP_NUM_THREADS := 1
test check test-main test-flower test-device: export OPENBLAS_NUM_THREADS := 1
test check test-main test-flower test-device: export MKL_NUM_THREADS := 1
# nodes of a network mostly wait for each other: they do beside the other tests
test: $(STAMP)  ## Run all tests
	$(MAKE) --no-print-directory --jobs 2 --keep-going test-main test-flower test-device

test-main: $(STAMP)
	$(BIN)/python -m pytest -n 2 --dist worksteal  # neighbours share their modules' fixtures

test-flower: $(STAMP)
	$(BIN)/python -m benchmarks.flower_env -m pytest -m "not long" \
	  --doctest-modules privfl/flower tests/flower

gpu: $(STAMP)  ## Run the tests that want a GPU, with a torch of yours that has one
	$(BIN)/python -m pytest tests/gpu

# by themselves: a process that knows the pretended device knows it in all that it does
test-device: $(STAMP)
	$(BIN)/python -m pytest tests/device

check: $(STAMP)  ## Lint, format, types, architecture, and every example in the docs
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest --doctest-modules privfl README.md docs

wheels: $(STAMP)  ## Build the wheel and try it on each Python from 3.11 to 3.13 that is here
	rm -rf build
	$(BIN)/pip wheel $(QUIET) --no-deps --wheel-dir build/wheel .
	for v in 3.11 3.12 3.13; do \
	  python$$v -c "" 2>/dev/null || { echo "no python$$v here"; continue; }; \
	  python$$v -m venv build/venv-$$v && \
	  build/venv-$$v/bin/pip install $(QUIET) --constraint constraints.txt build/wheel/*.whl && \
	  (cd / && $(CURDIR)/build/venv-$$v/bin/python -I $(CURDIR)/tests/wheel_smoke.py) && \
	  build/venv-$$v/bin/pip install $(QUIET) --constraint constraints.txt \
	    "$$(ls build/wheel/*.whl)[he,plots]" && \
	  (cd / && $(CURDIR)/build/venv-$$v/bin/python -I $(CURDIR)/tests/wheel_smoke.py he,plots) \
	    || exit 1; \
	done

bench: $(STAMP)  ## Run every benchmark, quickly
	$(BIN)/python -m benchmarks --quick

docs: $(DOCS_STAMP)  ## Build the documentation site into site/, which reads without a network
	$(BIN)/privfl list --page > docs/catalogue.md
	PATH="$(CURDIR)/$(BIN):$$PATH" NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

clean:  ## Remove the environments and everything built
	rm -rf .venv .venv-flower .venv-breaching .venv-pfl .venv-privacy-meter site build *.egg-info
