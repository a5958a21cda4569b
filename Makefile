# make             install, then run the embedded experiment: every stage, Tables 1-4, Figure 7
# make study       the same on the draws of the study, hours; the report is in reports/study
# make test        install, then check format, lint and types and run the tests
# make check       the same in two minutes, without the slow tests
# make test-slurm  run the smoke experiment on a Slurm of four nodes, installing it first if it is missing and apt-get is allowed
# make test-gpu    run the tests that compute on a GPU
# make test-kubernetes  run jobs in stand-ins for pods, and two workers that share only an S3 server
# make soak        try new random inputs, then inject random faults for MINUTES=10 (docs/robustness.md)
# make reproduce   run the smoke experiment and report the first artifact that differs from the committed digests
# make docs        build the documentation into site/
# make setup       only install
# make wheel       build the package into dist/
# docs/maintenance.md has the rest: make coverage, lock, licences, audit, test-oldest, fuzz

PYTHON ?= python3.11
BIN := .venv/bin

UV_VERSION := 0.13.9
OLDEST := params plan artifacts readers own_data matlab unpack download fetch images pixels transforms store stages training \
  weights protocols ranking reciprocal expansion mining retrieval score tabulate draw page compare synthetic cli hostile
SHARED := -n 2 --dist loadfile --no-loadscope-reorder
SECONDS ?= 60
PIP_AUDIT_VERSION := 2.10.1
DVC_S3 := dvc-s3 s3fs aiobotocore aioitertools 'botocore<1.43.118' # an older botocore than Snakemake's plugin has

.PHONY: run study setup test coverage check unit static reproduce test-slurm test-gpu test-kubernetes soak docs lock licences audit test-oldest fuzz wheel

run: setup
	$(BIN)/snakemake --cores all

study: setup
	$(BIN)/snakemake --cores all --configfile experiments/study/params.yaml

setup: .venv/ready

test: static
	$(BIN)/pytest $(SHARED)

coverage: static
	$(BIN)/pytest $(SHARED) --cov --cov-report=term

check: setup
	$(MAKE) --jobs 2 static unit

unit: setup
	$(BIN)/pytest $(SHARED) --hypothesis-profile few -m "not slow and not workflow and not slurm and not kubernetes and not soak"

static: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

test-slurm: setup
	command -v slurmctld || test "$$(id -u)" -ne 0 || ! command -v apt-get || \
	  { apt-get update && apt-get install --yes --no-install-recommends slurmctld slurmd slurm-client munge; } || true
	$(BIN)/pytest -m slurm tests/test_slurm.py

test-gpu: setup
	REID_TEST_GPU=1 $(BIN)/pytest -m gpu

test-kubernetes: setup .dvc-s3/ready
	$(BIN)/pytest -m kubernetes tests/test_kubernetes.py tests/test_s3.py

MINUTES ?= 10

soak: setup
	$(BIN)/pytest $(SHARED) -m hypothesis --hypothesis-profile random
	REID_SOAK_MINUTES=$(MINUTES) $(BIN)/pytest -m soak
	$(BIN)/python tests/robustness.py --minutes $(MINUTES)

reproduce: setup
	$(BIN)/python benchmarks/digests.py

docs: setup
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

wheel: setup
	$(BIN)/python -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir dist .

lock: .tools/ready
	UV_CUSTOM_COMPILE_COMMAND="make lock" .tools/bin/uv pip compile pyproject.toml --all-extras --universal \
	  --python-version 3.11.5 --generate-hashes --no-annotate $(UPGRADE) --quiet --output-file requirements.lock
	printf '%s\n' $(DVC_S3) | UV_CUSTOM_COMPILE_COMMAND="make lock" .tools/bin/uv pip compile - --no-deps --universal \
	  --python-version 3.11.5 --generate-hashes --no-annotate $(UPGRADE) --quiet --output-file dvc-s3.lock

test-oldest: .tools/ready
	.tools/bin/uv venv --quiet --clear --python $(PYTHON) .oldest
	VIRTUAL_ENV=.oldest .tools/bin/uv pip install --quiet --resolution lowest-direct --editable '.[workflow]'
	VIRTUAL_ENV=.oldest .tools/bin/uv pip install --quiet pytest pytest-xdist hypothesis aiohttp
	.oldest/bin/python -m pytest -n 2 --dist loadfile $(OLDEST:%=tests/test_%.py)

fuzz: setup
	$(BIN)/python tests/fuzz.py --seconds $(SECONDS) $(TARGETS)

licences: setup
	$(BIN)/python docs/licences.py

audit: .tools/ready
	.tools/bin/pip-audit --requirement requirements.lock --require-hashes --disable-pip --strict

.tools/ready: Makefile
	$(PYTHON) -m venv .tools
	.tools/bin/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION) pip-audit==$(PIP_AUDIT_VERSION)
	touch $@

.dvc-s3/ready: dvc-s3.lock .venv/ready
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes --upgrade --target .dvc-s3 \
	  --requirement dvc-s3.lock
	touch $@

.venv/ready: requirements.lock pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $@
