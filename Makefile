# Needs make and Python 3.11 or newer; everything else comes from PyPI (and, for the embedded Kafka, Maven Central).

PYTHON ?= python3

# Which versions of the dependencies: those of the lock, or for `make test` the newest or the lowest that pyproject.toml allows.
DEPENDENCIES ?= lock
RESOLUTION_newest := --upgrade
RESOLUTION_lowest := --resolution lowest-direct
$(if $(filter lock newest lowest,$(DEPENDENCIES)),,$(error DEPENDENCIES is $(DEPENDENCIES); it is lock, newest or lowest))

# An interpreter or dependencies that are asked for have an environment of their own.
VENV := .venv$(if $(filter command line,$(origin PYTHON)),-$(subst /,-,$(PYTHON)))$(patsubst %,-%,$(filter-out lock,$(DEPENDENCIES)))
BIN := $(VENV)/bin
PIP := $(BIN)/pip install --disable-pip-version-check --no-deps
UV := $(BIN)/uv
LOCK := $(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes --custom-compile-command 'make lock'

.DEFAULT_GOAL := help
.PHONY: help demo demo-cdc test chaos kubernetes check lock bench

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(VENV)/.demo  ## a Kafka, two workers, real flights, curl lines (BOOTSTRAP=host:port: your own Kafka)
	@exec $(BIN)/python -m tablehouse.demo $(ARGS)

demo-cdc: $(VENV)/.demo  ## PostgreSQL (where it is installed), Debezium, a Kafka, two workers: psql changes rows, curl shows them
	@exec $(BIN)/python -m tablehouse.demo.cdc $(ARGS)

test: $(VENV)/.dev  ## every tier of tests, on a real Kafka
	$(BIN)/python -m pytest $(ARGS)

chaos: $(VENV)/.dev  ## every fault as long and as often as it is meant, half an hour; `make test` has a part of it
	CHAOS=whole $(BIN)/python -m pytest tests/chaos -rP --show-capture=stdout $(ARGS)

kubernetes: $(VENV)/.dev  ## the chart on a real Kubernetes of its own (root on Debian, Go; minutes to build, once)
	$(BIN)/python -m tests.kubernetes $(ARGS)

check: $(VENV)/.dev  ## format, lint, types, layers, documentation
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest tests/docs

lock: $(VENV)/.uv  ## deploy/locks from pyproject.toml (ARGS=--upgrade: with the newest versions)
	$(LOCK) $(ARGS) --group lock --output-file deploy/locks/lock.txt
	$(LOCK) $(ARGS) --group build --output-file deploy/locks/build.txt
	$(LOCK) $(ARGS) pyproject.toml --extra dev --group build --group flights --constraint deploy/locks/build.txt --output-file deploy/locks/dev.txt
	$(LOCK) $(ARGS) pyproject.toml --extra demo --group build --group flights --constraint deploy/locks/dev.txt --output-file deploy/locks/demo.txt
	$(LOCK) $(ARGS) pyproject.toml --constraint deploy/locks/dev.txt --output-file deploy/locks/worker.txt

bench: $(VENV)/.demo  ## Tablehouse beside Kafka Streams and stock Faust, 15 minutes; see bench/README.md
	@exec $(BIN)/python -m bench $(ARGS)

# Environments are installed from deploy/locks, with hashes. A mark is newer than what it was installed from, so a changed
# lock is installed before the next run.
$(VENV)/.demo: deploy/locks/demo.txt pyproject.toml | $(VENV)/.python
	$(PIP) --require-hashes --requirement $<
	$(PIP) --no-build-isolation --editable .
	@touch $@

ifeq ($(DEPENDENCIES),lock)
$(VENV)/.dev: deploy/locks/dev.txt pyproject.toml | $(VENV)/.python
	$(PIP) --require-hashes --requirement $<
	$(PIP) --no-build-isolation --editable .
	@touch $@
else
$(VENV)/.dev: pyproject.toml | $(VENV)/.uv
	$(UV) pip install --python $(BIN)/python $(RESOLUTION_$(DEPENDENCIES)) --editable '.[dev]' --group build --group flights pip
	@touch $@
endif

$(VENV)/.uv: deploy/locks/lock.txt | $(VENV)/.python
	$(PIP) --require-hashes --requirement $<
	@touch $@

$(VENV)/.python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "Python 3.11 or newer is needed; $(PYTHON) is: $$($(PYTHON) --version 2>&1 | head -n 1). Try: make PYTHON=python3.12" >&2; \
	  exit 1; }
	$(PYTHON) -m venv $(VENV)
	@touch $@
