# Everything a newcomer needs; `make` alone says what there is.
PYTHON ?= python3
BIN := .venv/bin
SECONDS := 600
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help demo test lint types bench bench-quality fuzz lock clean

help:  ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

demo: .venv/.run  ## Run the whole job on data/digits
	$(BIN)/ranksieve demo

test: .venv/.dev  ## Run the tests
	$(BIN)/python -m pytest $(PYTEST_FLAGS)

lint: .venv/.dev  ## Check style, formatting and which module may import which
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: .venv/.dev  ## Check types
	$(BIN)/mypy

bench: .venv/.bench  ## Measure speed beside other tools
	$(BIN)/python -m pytest -m bench -n 0 -s tests/bench

bench-quality: .venv/.dev  ## Compare every strategy on the sets in RANKSIEVE_DATA (hours)
	$(BIN)/python -m tests.bench.quality

fuzz: .venv/.fuzz  ## Look for LETOR text that is read wrongly (SECONDS=600; Linux)
	$(BIN)/python -m tests.fuzz.letor fuzz -max_total_time=$(SECONDS)
	$(BIN)/python -m tests.fuzz.letor replay

lock:  ## Renew the requirements files of users, dev, bench and fuzz (needs uv)
	uv pip compile -q --universal --python-version 3.11 --no-annotate --no-emit-index-url --no-header pyproject.toml -o requirements.lock
	uv pip compile -q --universal --python-version 3.11 --no-annotate --no-emit-index-url --no-header --group dev -c requirements.lock -o requirements-dev.lock
	uv pip compile -q --universal --python-version 3.11 --no-annotate --no-emit-index-url --no-header --group bench -c requirements.lock -c requirements-dev.lock -o requirements-bench.lock
	uv pip compile -q --universal --python-version 3.11 --no-annotate --no-emit-index-url --no-header --group fuzz -c requirements.lock -c requirements-dev.lock -o requirements-fuzz.lock

clean:  ## Remove the virtual environment and caches
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis .fuzz .coverage*

.venv/.run: requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "ranksieve needs Python 3.11 or newer; say which with make PYTHON=python3.11")'
	$(PYTHON) -m venv .venv
	@echo "installing into .venv (a minute or two the first time) ..."
	$(BIN)/python -m pip install -q -r requirements.lock
	$(BIN)/python -m pip install -q --no-deps --editable .
	@touch $@

.venv/.dev: .venv/.run requirements-dev.lock
	$(BIN)/python -m pip install -q -r requirements-dev.lock
	@touch $@

.venv/.bench: .venv/.dev requirements-bench.lock
	$(BIN)/python -m pip install -q -r requirements-bench.lock
	@touch $@

.venv/.fuzz: .venv/.dev requirements-fuzz.lock
	$(BIN)/python -m pip install -q -r requirements-fuzz.lock
	@touch $@
