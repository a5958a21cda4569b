# make        set up, then run the embedded experiment: every stage, Tables 1-4, Figure 7
# make test   set up, then pass the tests
# make docs   set up, then build the documentation into site/
# make setup  only set up

PYTHON ?= python3.11
BIN := .venv/bin

.PHONY: run setup test docs

run: setup
	$(BIN)/snakemake --cores all

setup: .venv/ready

test: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/pytest -n 2 --dist loadfile

docs: setup
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

.venv/ready: requirements.lock pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $@
