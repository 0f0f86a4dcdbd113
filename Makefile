# make demo   runs the whole method on the embedded micro-world
# make test   lints and runs all tests
# The environment is .venv, installed from the exact versions in constraints.txt.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
# Folders whose tests compute without training, a browser or runs of Kedro.
FAST := $(addprefix tests/,checklist datasets own_data pairs preferences project rewards/checklist statistics)

export DO_NOT_TRACK := 1
export KEDRO_DISABLE_TELEMETRY := 1
export MLFLOW_DISABLE_TELEMETRY := true
export RAY_USAGE_STATS_ENABLED := 0
export DVC_NO_ANALYTICS := 1
export HF_HUB_DISABLE_TELEMETRY := 1
# Threads that spin while they wait slow down everything else on a small machine.
export OMP_WAIT_POLICY := passive
# Without bytecode files, every command compiles all its imports: 7 seconds instead of 3 for a command of Kedro.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help install demo test test-fast lint viz docs bench

help:
	@echo "make install    make .venv from constraints.txt"
	@echo "make demo       run the whole method on the embedded micro-world, then say where to look"
	@echo "make test       lint and run all tests"
	@echo "make test-fast  run ruff and the tests of pure computation, for daily work"
	@echo "make lint       ruff, mypy and the rules of imports"
	@echo "make viz        show the pipelines in the browser"
	@echo "make docs       build the documentation into site/"
	@echo "make bench      run every benchmark"

install: $(INSTALLED)

$(INSTALLED): constraints.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' || \
		{ echo "Python 3.11 to 3.13 is needed; name one with: make $(MAKECMDGOALS) PYTHON=python3.11"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing the locked packages into $(VENV): about 3 GB, half a minute with uv, three minutes with pip."
	@$(BIN)/python .ci/install.py
	@touch $@

demo: $(INSTALLED)
	$(BIN)/kedro run --pipeline=mpo_dpo
	@echo
	@echo "Where to look:"
	@echo "  data/08_reporting/evaluation_report.html    clips side by side, rewards and weights; open it in a browser"
	@echo "  data/08_reporting/evaluation_metrics.json   the figures"
	@echo "  make viz                                    the pipelines and their data"
	@echo "  $(BIN)/mlflow ui --backend-store-uri sqlite:///mlflow.db    every run with parameters, curves and files"

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo --no-cache

test: lint
	$(BIN)/python -m pytest -n auto --maxprocesses=4 --dist=loadscope --no-loadscope-reorder

test-fast: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m pytest -n auto --maxprocesses=4 --dist=loadscope -m "not slow and not browser and not real_data" $(FAST)

viz: $(INSTALLED)
	$(BIN)/kedro graph

docs: $(INSTALLED)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "The documentation is in site/index.html; it opens from disk."

bench: $(INSTALLED)
	@status=0; for benchmark in benchmarks/*.py; do \
		echo "== $$benchmark"; $(BIN)/python $$benchmark || status=1; \
	done; exit $$status
