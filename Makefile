# `make` prints this help. Every target sets up what it needs: a virtual environment in .venv and the package in it.
.DEFAULT_GOAL := help
SHELL := /bin/bash
VENV := .venv
# The newest Python from 3.11 on that really runs here (a version manager may leave commands that don't).
PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3; do $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
OLDEST := .venv-oldest
WORKERS ?= auto
# What `make test` asks of four workers on PostgreSQL, too; the slow lane asks all of tests/contract, of one and of four.
ON_POSTGRES := $(addprefix tests/contract/test_,runs.py signals.py sessions.py leases.py)

.PHONY: help
help: ## print this help
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1|/' | awk -F'|' '{printf "  make %-12s %s\n", $$1, $$2}'

$(STAMP): pyproject.toml tools/setup.sh
	@PYTHON="$(PYTHON)" VENV="$(VENV)" bash tools/setup.sh
	@touch $(STAMP)

.PHONY: setup
setup: $(STAMP) ## make .venv and install everything in it

.PHONY: demo
demo: $(STAMP) ## watch workers being killed, and count the effects in the shop's own books
	@$(BIN)/surefoot model pull
	@$(BIN)/surefoot demo

.PHONY: test
test: $(STAMP) ## the fast lane of the tests
	@$(BIN)/pytest -n $(WORKERS) --dist=worksteal -m "not slow"
	@$(BIN)/pytest -n $(WORKERS) --dist=worksteal -m "not slow" --engine=postgres --app-workers=4 $(ON_POSTGRES)

.PHONY: test-oldest
test-oldest: $(OLDEST)/.installed ## the agents' tests on the oldest Pydantic AI that is supported
	@$(OLDEST)/bin/pytest -n $(WORKERS) --dist=worksteal -m "not slow" tests/unit/adapters

$(OLDEST)/.installed: pyproject.toml tools/setup-oldest.sh
	@PYTHON="$(PYTHON)" VENV="$(OLDEST)" bash tools/setup-oldest.sh
	@touch $@

.PHONY: test-slow
test-slow: $(STAMP) ## the slow lane: whole kill sweeps, thousands of schedules, planted bugs
	@$(BIN)/pytest -n $(WORKERS) --dist=worksteal -m slow
	@$(BIN)/pytest -n $(WORKERS) --dist=worksteal --engine=postgres tests/contract
	@$(BIN)/pytest -n $(WORKERS) --dist=worksteal -m "not slow" --app-workers=4 tests/contract
	@$(BIN)/pytest -n $(WORKERS) --dist=worksteal -m "not slow" --app-workers=4 --engine=postgres tests/contract

.PHONY: coverage
coverage: $(STAMP) ## which lines and branches of the engine's rooms no test of the fast lane passes
	@rm -rf .coverage && mkdir .coverage
	@$(BIN)/coverage run -m pytest -n $(WORKERS) --dist=worksteal -m "not slow"
	@$(BIN)/coverage combine --quiet .coverage
	@$(BIN)/coverage report

.PHONY: mutate
mutate: $(STAMP) ## change the effects room in a thousand small ways, and see which changes no test notices (hours)
	@$(BIN)/python -m tests.mutation

.PHONY: check
check: $(STAMP) ## format, lint, types, layers, tests
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(MAKE) --no-print-directory test

.PHONY: format
format: $(STAMP) ## format the code
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

.PHONY: bench
bench: $(STAMP) ## speed beside DBOS and LangGraph in one run (about 10 minutes)
	@$(BIN)/python bench/run.py

.PHONY: clean
clean: ## remove .venv and caches
	@rm -rf $(VENV) $(OLDEST) .mypy_cache .ruff_cache .pytest_cache .hypothesis bench/.envs
