.DEFAULT_GOAL := help
.PHONY: help demo test check wheels bench docs clean
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
STAMP := .venv/.installed
DOCS_STAMP := .venv/.installed-docs
SOURCES := privfl benchmarks tests examples docs/hooks

help:  ## Show what can be made
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-8s %s\n", $$1, $$2}'

$(STAMP): pyproject.toml constraints.txt Makefile
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt torch
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --config-settings editable_mode=compat --editable ".[dev,bench]"  # so that type checkers see the package
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps byzfl==0.0.11  # a peer of the benchmarks; its dependencies are not needed
	@touch $(STAMP)

$(DOCS_STAMP): $(STAMP)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --config-settings editable_mode=compat --editable ".[docs]"
	@touch $(DOCS_STAMP)

demo: $(STAMP)  ## Train 20 clients on real digits under each privacy layer and print the table (under 3 minutes)
	$(BIN)/privfl demo

test: $(STAMP)  ## Run all tests
	$(BIN)/python -m pytest -n 2 --dist worksteal  # neighbours share their modules' fixtures
	$(BIN)/python -m benchmarks.flower_env -m pytest -m "not long" --doctest-modules privfl/flower tests/flower

check: $(STAMP)  ## Lint, format, types, architecture, and every example in the docs
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest --doctest-modules privfl README.md docs

wheels: $(STAMP)  ## Build the wheel and try it outside of the repository on each Python from 3.11 to 3.13 that is here
	rm -rf build
	$(BIN)/pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir build/wheel .
	for v in 3.11 3.12 3.13; do \
	  python$$v -c "" 2>/dev/null || { echo "no python$$v here"; continue; }; \
	  python$$v -m venv build/venv-$$v && \
	  build/venv-$$v/bin/pip install --quiet --disable-pip-version-check --constraint constraints.txt build/wheel/*.whl && \
	  (cd / && $(CURDIR)/build/venv-$$v/bin/python -I $(CURDIR)/tests/wheel_smoke.py) || exit 1; \
	done

bench: $(STAMP)  ## Run every benchmark, quickly
	$(BIN)/python -m benchmarks --quick

docs: $(DOCS_STAMP)  ## Build the documentation site into site/ (it reads without a server or a network)
	$(BIN)/privfl list --page > docs/catalogue.md
	PATH="$(CURDIR)/$(BIN):$$PATH" NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

clean:  ## Remove the environments and everything built
	rm -rf .venv .venv-flower .venv-breaching .venv-pfl site build *.egg-info
