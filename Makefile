# Everything here needs only python3 (3.11 or newer) and make: every target sets itself up first.
#
#   make            format, lint, import contract, types, fast tests
#   make test       the same and every slow test; make test T=core runs one floor of tests/
#   make slow       the minutes of chaos that nothing else runs
#   make run        the main job; make run PROMPT="..." gives it another task
#   make demo       a durable run whose worker is killed in the middle
#   make up         the fleet in containers; make worker-llm, worker-tools, beat, flower: one of it

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PYTEST := $(BIN)/python -m pytest -q
ON_ALL_CORES := -n auto --dist worksteal
# The fast tests wait for servers as often as they compute.
ON_MORE_THAN_ALL := -n $$(($$(getconf _NPROCESSORS_ONLN) + 1)) --dist worksteal

# A prompt goes to the program by environment, raw: neither make nor the shell reads into it.
RUN_PROMPT := $(value PROMPT)
export RUN_PROMPT
unexport PROMPT

.DEFAULT_GOAL := check
.PHONY: setup check lint fmt test slow bench run demo docs sloc pins migration \
  up down worker-llm worker-tools beat flower

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "heartbit needs Python 3.11 or newer: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null \
	  || { echo "Python's venv module is missing: apt install python3-venv"; exit 1; }
	@echo "Setting up $(VENV) (once) ..."
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt pip
	@$(BIN)/python -m pip install -qq --disable-pip-version-check \
	  -c constraints.txt --build-constraint constraints.txt --editable '.[mcp,embedded,flower,knowledge,pdf]' --group dev
	@$(BIN)/python -m compileall -q heartbit
	@touch $@

check: lint
	@$(PYTEST) $(ON_MORE_THAN_ALL) -m "not slow and not chaos"

lint: setup
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/ruff check --quiet .
	@$(BIN)/lint-imports --no-logo
	@$(BIN)/mypy

fmt: setup
	@$(BIN)/ruff check --fix --quiet . ; $(BIN)/ruff format --quiet .

ifdef T
test: setup
	@$(PYTEST) -m "not chaos" tests/$(T)
else
test: lint
	@$(PYTEST) $(ON_ALL_CORES) -m "not chaos"
endif

slow: setup
	@$(PYTEST) -m chaos

bench: setup
	@$(BIN)/python -m benchmarks

run: setup
	@$(BIN)/python -m heartbit.demo $${RUN_PROMPT:+"$$RUN_PROMPT"}

demo: setup
	@$(BIN)/python -m heartbit.demo.durable

up:
	@docker compose up --build --detach

down:
	@docker compose down

# The lines of the Procfile, one by one.
worker-llm worker-tools beat flower: setup
	@PATH="$(abspath $(BIN)):$$PATH" exec $$(sed -n 's/^$@: //p' Procfile)

docs: setup
	@$(PYTEST) tests/docs

sloc: setup
	@$(BIN)/python scripts/house.py

migration: setup
	@$(BIN)/python scripts/migration.py '$(name)'

# The newest versions that fit pyproject.toml, as a pip in a fresh environment finds them.
pins:
	@dir=$$(mktemp -d) && trap 'rm -rf "$$dir"' EXIT \
	  && $(PYTHON) -m venv "$$dir" && pip="$$dir/bin/python -m pip" \
	  && $$pip install -qq --upgrade pip \
	  && $$pip install -qq '.[mcp,api,flower,embedded,knowledge,pdf]' --group dev hatchling editables \
	  && $$pip freeze --all --exclude heartbit --exclude setuptools > "$$dir/constraints.txt" \
	  && cp "$$dir/constraints.txt" constraints.txt
