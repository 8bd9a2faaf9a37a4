# Everything a developer does here. Needs Python >= 3.11 and make; the rest goes into .venv.

PYTHON ?= python3
ARGS ?=

VENV := .venv
BIN := $(VENV)/bin
BENCH := .venv-bench
BENCH_PYTHON := $(BENCH)/bin/python
SOURCES := $(shell find daemonize bin man -type f -not -name '*.pyc' 2>/dev/null)

.DELETE_ON_ERROR:
.PHONY: help demo test test-servers check format stress bench clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(VENV)/installed ## Start a real server, use it at once, see one fail
	@$(BIN)/python examples/demo.py

test: $(VENV)/tooled ## Run all tests (make test ARGS="-k streams")
	@$(BIN)/python tests/run.py $(ARGS)

test-servers: ## Install the real servers that the tests use (Debian, root)
	@sh tests/install-servers.sh

check: $(VENV)/tooled ## Check format, lint and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(VENV)/tooled ## Format the code and mend what can be mended by machine
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

stress: $(VENV)/tooled ## Repeat the races (minutes)
	$(BIN)/python -m pytest -m stress $(ARGS)

bench: $(BENCH)/installed ## Measure start-up, detection and relay, from a wheel
	$(BENCH_PYTHON) benchmarks/bench.py $(ARGS)

clean: ## Remove what the other targets made
	rm -rf $(VENV) $(BENCH) build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Made anew when pyproject.toml changes; the package itself is used in place.
$(VENV)/installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "make: $(PYTHON) is older than Python 3.11; name a newer one: make PYTHON=python3.11" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	  { echo "make: $(PYTHON) has no venv module; on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip --quiet --disable-pip-version-check install --editable .
	@touch $@

$(VENV)/tooled: $(VENV)/installed
	$(BIN)/python -m pip --quiet --disable-pip-version-check install --editable '.[test,dev]'
	@touch $@

# A wheel, because an editable install is slower to start than what users get.
$(BENCH)/installed: $(VENV)/tooled $(SOURCES)
	rm -rf build/wheel
	$(BIN)/python -m build --wheel --outdir build/wheel
	$(PYTHON) -m venv --clear $(BENCH)
	$(BENCH_PYTHON) -m pip --quiet --disable-pip-version-check install "$$(echo build/wheel/*.whl)[bench]"
	@touch $@
