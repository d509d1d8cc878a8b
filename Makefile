# The two commands are `make up` (everything on this machine) and `make check` (lint, types, import rules, all tests).
# Both install what they need first; nothing but Python 3.11 or newer has to be there.

# the first that runs and is new enough; a name on the PATH may be a shim for nothing
PYTHON ?= $(firstword $(foreach name,python3 python3.14 python3.13 python3.12 python3.11,\
	$(shell $(name) -c 'import sys; sys.version_info >= (3, 11) and print("$(name)")' 2>/dev/null)))
BIN := .venv/bin
STAMP := .venv/.installed
DATA_DIR ?= data
UP_FLAGS ?=
DEMO_FLAGS ?=
CHAOS_FLAGS ?=
TESTS ?= tests

.DEFAULT_GOAL := help
.PHONY: help setup up demo check lint types imports test bench chaos gen clean

help: ## Show this.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(STAMP) ## Install everything into .venv, with verified hashes.

$(STAMP): requirements-dev.lock pyproject.toml
	@test -n "$(PYTHON)" || { echo 'Python 3.11 or newer is needed: install it, or say where it is: make setup PYTHON=…'; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo 'installing the pinned dependencies (once)'
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

up: setup ## Start everything and keep it running; Ctrl-C stops it.
	@$(BIN)/fw up --data-dir $(DATA_DIR) $(UP_FLAGS)

demo: setup ## A recorded live stream, from a trigger to a subscriber's screen.
	@$(BIN)/fw demo --data-dir $(DATA_DIR) $(DEMO_FLAGS)

check: lint types imports test ## Everything that CI runs.

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup
	$(BIN)/mypy

imports: setup
	$(BIN)/lint-imports

test: setup ## All tests, on the real servers; TESTS=tests/unit for some.
	$(BIN)/pytest $(TESTS)

bench: setup ## Figures, each beside a baseline of the same run.
	$(BIN)/python -m bench

chaos: setup ## 100 kills and other faults under load, then a comparison of everything; CHAOS_FLAGS="--seed 7".
	@$(BIN)/fw chaos --kills 100 --verify $(CHAOS_FLAGS)

gen: setup ## Dataclasses, ids and docs/events.md from schemas/avro.
	$(BIN)/python -m infra.gen
	$(BIN)/python -m tests.golden.write

clean: ## Remove caches and builds; keeps .venv and data.
	rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .coverage build dist *.egg-info bench/out
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
