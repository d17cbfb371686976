# Everything that one does here; `make` alone lists it.
.DEFAULT_GOAL := help
.PHONY: help setup run test test-fast test-deep check format bench million docs clean
.SILENT:

# The first Python that is new enough, 3.11 before others: that is what everything is tested with.
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin
# Three at a time on two cores: a third of the time a test waits for a lease, a start or an answer.
# Files are handed out in the order that tests/sampling.py gives them: those that take longest first.
PYTEST = $(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder
CODE := server miniprogram_api admin handlers reports webhooks worktime photos places accounts notices inference core sandbox bench tests

help:  ## list the targets
	awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' Makefile

setup:  ## install what is needed into .venv; at once when nothing has changed
	test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed: install it, or name it: make PYTHON=/path/to/python"; exit 1; }
	$(PYTHON) -I server/launcher/setup.py

run: setup  ## run it all on this machine: databases, WeChat sandbox, worker, application
	exec $(BIN)/python -m server run

test: setup  ## run the tests; ARGS="tests/core -k photos" runs some of them
	$(PYTEST) $(ARGS)

test-fast: setup  ## run the tests that are soon over: no kinds crash, generated and browser, nothing long
	$(PYTEST) -m "(unit or http) and not long" $(ARGS)

test-deep: setup  ## run all tests, and the whole of what `make test` draws samples from: takes an hour or more
	$(PYTEST) --deep --timeout=7200 $(ARGS)

check: setup  ## check style, format, types, the floors between packages, and that reach is asked in one place
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy $(CODE)
	$(BIN)/lint-imports --no-logo
	$(BIN)/python -m tests.checks.inline_reach

format: setup  ## put the code into its format, and mend what can be mended
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

million: setup  ## make a district with a million cases, once, and measure the staff's lists and the indicators on it
	$(BIN)/python -m bench.lists $(ARGS)
	$(BIN)/python -m bench.indicators

bench: setup  ## measure it; ARGS="--help" lists the measurements
	$(BIN)/python -m bench $(ARGS)
	$(BIN)/python -m bench.clock
	$(BIN)/python -m bench.live
	$(BIN)/python -m bench.inference
	$(BIN)/python -m bench.snapshots

docs: setup  ## write docs/ anew where it is made from the code
	$(BIN)/python -m reports document

clean:  ## remove .venv, node_modules and caches; keeps var/, where the data is
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache .schemathesis
	find . -name node_modules -prune -exec rm -rf {} +
	find . -name __pycache__ -prune -exec rm -rf {} +
