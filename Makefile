# make             set up, then run the embedded experiment: every stage, Tables 1-4, Figure 7
# make test        set up, then pass the tests
# make test-slurm  set up, install Slurm if it is missing and apt-get may, run the smoke experiment through it
# make test-kubernetes  set up, run a training through stand-ins for pods and an object store
# make docs        set up, then build the documentation into site/
# make setup       only set up

PYTHON ?= python3.11
BIN := .venv/bin

.PHONY: run setup test test-slurm test-kubernetes docs

run: setup
	$(BIN)/snakemake --cores all

setup: .venv/ready

test: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/pytest -n 2 --dist loadfile

test-slurm: setup
	command -v slurmctld || test "$$(id -u)" -ne 0 || ! command -v apt-get || \
	  { apt-get update && apt-get install --yes --no-install-recommends slurmctld slurmd slurm-client munge; } || true
	$(BIN)/pytest -m slurm tests/test_slurm.py

test-kubernetes: setup
	$(BIN)/pytest -m kubernetes tests/test_kubernetes.py

docs: setup
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

.venv/ready: requirements.lock pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $@
