# `make demo` and `make test` do all the set-up: Python 3.11 or newer and make are all that must be there.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

PYTEST := $(BIN)/python -m pytest -q --numprocesses auto --maxprocesses 4 --dist loadfile

.PHONY: demo test slow check format docs audit clean

demo: .venv/demo.stamp
	$(BIN)/isinglass train demo --recipe small --output-dir runs/demo --overwrite

test: check
	$(PYTEST) -m "not slow"

# real kills, compilers, JAX, the tutorial, whole runs of the embedded model
slow: .venv/dev.stamp
	$(PYTEST) -m slow

check: .venv/dev.stamp
	$(BIN)/ruff format --check src tests benchmarks examples soak
	$(BIN)/ruff check src tests benchmarks examples soak
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/python benchmarks/write_docs.py --check

format: .venv/dev.stamp
	$(BIN)/ruff check --fix-only --quiet src tests benchmarks examples soak
	$(BIN)/ruff format src tests benchmarks examples soak

docs: .venv/dev.stamp
	$(BIN)/python benchmarks/write_docs.py

# every package in .venv against the published advisories; needs the network
audit: .venv/dev.stamp
	$(BIN)/pip-audit --local --skip-editable --progress-spinner off

# torch first: with the pinned version in place, a range asked for by another package installs nothing more
.venv/torch.stamp: constraints.txt
	test -x $(BIN)/python || $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "isinglass needs Python 3.11 or newer: make PYTHON=python3.12")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(PIP) torch
	touch $@

.venv/demo.stamp: .venv/torch.stamp pyproject.toml
	$(PIP) --editable '.[demo]'
	touch $@

.venv/dev.stamp: .venv/torch.stamp pyproject.toml
	$(PIP) --editable '.[dev]'
	touch $@

clean:
	rm -rf .venv build dist src/*.egg-info
