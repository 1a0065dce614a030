# make demo: from a fresh clone to proven bits. make test: what to run all the time, within five minutes.
# make test-all: everything that CI holds the code against. make acceptance: whole corpora, for hours; it resumes.
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3; do \
	"$$p" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo "$$p"; break; }; done)
BIN := .venv/bin
SHELL := /bin/bash
SHAPES := --jaxtyping-packages=lpu,compiler,fabric,models,beartype.beartype

.PHONY: demo test test-all shapes acceptance house docs lint clean

demo: .venv/.installed
	$(BIN)/python examples/demo.py

test: .venv/.dev
	@time $(MAKE) --no-print-directory -j 2 .venv/.linted fast-tests

test-all: .venv/.dev
	@time $(MAKE) --no-print-directory lint all-tests

lint: .venv/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/lint-imports
	touch .venv/.linted

# For `make test`: lint if a file of Python or a setting changed, came or went since it last passed.
PYTHON_FILES = find $(wildcard lpu compiler fabric models tests examples benchmarks docs) -name '*.py' | LC_ALL=C sort
.PHONY: always
.venv/.python-files: always | .venv/.dev
	@$(PYTHON_FILES) | cmp --quiet - $@ || $(PYTHON_FILES) > $@

.venv/.linted: .venv/.python-files pyproject.toml $(shell $(PYTHON_FILES))
	@$(MAKE) --no-print-directory lint

.PHONY: fast-tests all-tests
fast-tests: .venv/.dev
	$(BIN)/pytest -q -n 2 --dist loadfile -m "not slow"

all-tests: .venv/.dev
	$(BIN)/pytest -q -n 2 --dist loadfile

# The fast tests with the shapes and types of every call checked (jaxtyping, beartype): half as slow again.
shapes: .venv/.dev
	$(BIN)/pytest -q -n 2 --dist loadfile -m "not slow" $(SHAPES)

acceptance: .venv/.dev
	PYTHONPATH=tests/corpora:tests/compiler:tests/lpu $(BIN)/python tests/corpora/acceptance.py

house: .venv/.dev
	$(BIN)/python tests/house.py

# The pages that are made from the code, the pictures of the gallery, and the site; a link to nowhere fails.
docs: .venv/.dev
	$(BIN)/python docs/make_api.py
	$(BIN)/python docs/make_cli.py
	$(BIN)/python docs/make_gallery.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

# What docs/tutorial.md shows and nothing else, from a fresh clone in a folder of its own.
.PHONY: tutorial
tutorial:
	$(PYTHON) tests/tutorial_session.py

clean:
	rm -rf .venv build dist out

.venv/.installed: pyproject.toml
	@test -n "$(PYTHON)" || { echo "No Python of 3.11 or later found. Install one, or: make demo PYTHON=/path/to/python" >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade 'pip>=25.1'
	$(BIN)/python -m pip install --quiet -e .
	touch $@

.venv/.dev: .venv/.installed
	$(BIN)/python -m pip install --quiet --group dev
	touch $@
