# `make demo` and `make test` do all the set-up: Python 3.11 or newer and make are all that must be there.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
PINNED := $(PIP) --constraint constraints.txt
LOCKED := $(PIP) --require-hashes --no-deps --only-binary :all: --force-reinstall

# whether the lock is for this Python and machine; whether pip finds the build of torch without CUDA
LOCK_FITS := $(BIN)/python -c 'import platform, sys; sys.exit((*sys.version_info[:2], sys.platform, platform.machine()) != (3, 11, "linux", "x86_64"))'
FINDS_CPU_TORCH := sed 's/ --hash.*//' requirements-torch-cpu.lock | $(PIP) --no-deps --ignore-installed --dry-run --requirement /dev/stdin

PYTEST := $(BIN)/python -m pytest -q --numprocesses auto --maxprocesses 4 --dist loadfile

.PHONY: demo test slow check format docs lock audit clean

demo: .venv/demo.stamp
	$(BIN)/isinglass train demo --recipe small --output-dir runs/demo --overwrite

test: check
	$(PYTEST) -m "not slow"

# real kills, compilers, JAX, the tutorial, whole runs of the embedded model
slow: .venv/dev.stamp
	$(PYTEST) -m slow

check: .venv/dev.stamp
	$(BIN)/ruff format --check src tests benchmarks docs examples soak
	$(BIN)/ruff check src tests benchmarks docs examples soak
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/python benchmarks/write_docs.py --check
	$(BIN)/python docs/draw_imports.py --check

format: .venv/dev.stamp
	$(BIN)/ruff check --fix-only --quiet src tests benchmarks docs examples soak
	$(BIN)/ruff format src tests benchmarks docs examples soak

docs: .venv/dev.stamp
	$(BIN)/python benchmarks/write_docs.py
	$(BIN)/python docs/draw_imports.py

# keeps the versions of the lock that still fit; delete both files first to take the newest that constraints.txt leaves open.
# requirements-torch-cpu.lock is written by hand
lock:
	$(PYTHON) -m venv .venv/uv
	.venv/uv/bin/python -m pip install --quiet --disable-pip-version-check uv==0.13.9
	cat requirements-dev.lock requirements-torch-cuda.lock > .venv/all.lock || true
	echo setuptools | .venv/uv/bin/uv pip compile --quiet pyproject.toml - --extra dev --constraint constraints.txt --generate-hashes --no-header \
	    --no-emit-package pip --python-version 3.11 --python-platform x86_64-manylinux_2_28 --system-certs --output-file .venv/all.lock
	{ echo '# Written by `make lock`: what development and CI install besides torch, with the sha256 of every file that the index lists.'; \
	  echo '# For Python 3.11 on Linux, x86-64.'; \
	  awk '/^[a-z]/ {torch = /^(cuda-|nvidia-|torch==|triton==)/} !torch' .venv/all.lock; } > requirements-dev.lock
	{ echo '# Written by `make lock`: torch as the index has it, and the CUDA that it asks for. For Python 3.11 on Linux, x86-64.'; \
	  awk '/^[a-z]/ {torch = /^(cuda-|nvidia-|torch==|triton==)/} torch' .venv/all.lock; } > requirements-torch-cuda.lock

# every package of the lock against the published advisories; needs the network, and fails where one cannot be looked up
audit: .venv/dev.stamp
	$(BIN)/pip-audit --strict --disable-pip --require-hashes -r requirements-dev.lock -r requirements-torch-cuda.lock --progress-spinner off

.venv/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "isinglass needs Python 3.11 or newer: make PYTHON=python3.12")'
	$(PYTHON) -m venv .venv

# torch first: with the pinned version in place, a range asked for by another package installs nothing more
.venv/torch.stamp: constraints.txt | .venv/bin/python
	$(PINNED) torch
	touch $@

.venv/demo.stamp: .venv/torch.stamp pyproject.toml
	$(PINNED) --editable '.[demo]'
	touch $@

# all of it anew, what is there already too: nothing stays whose hash was not compared
.venv/lock.stamp: requirements-dev.lock requirements-torch-cpu.lock requirements-torch-cuda.lock | .venv/bin/python
	@if ! $(LOCK_FITS); then \
	    echo 'The lock is for Python 3.11 on Linux, x86-64: here constraints.txt is installed, versions without hashes.'; \
	    $(PINNED) torch; \
	elif $(FINDS_CPU_TORCH) 2> /dev/null; then \
	    echo 'Installing requirements-dev.lock and requirements-torch-cpu.lock.'; \
	    $(LOCKED) --requirement requirements-dev.lock --requirement requirements-torch-cpu.lock; \
	else \
	    echo 'pip finds no torch for CPUs alone: installing requirements-dev.lock and requirements-torch-cuda.lock, several gigabytes.'; \
	    $(LOCKED) --requirement requirements-dev.lock --requirement requirements-torch-cuda.lock; \
	fi
	touch $@

.venv/dev.stamp: .venv/lock.stamp constraints.txt pyproject.toml
	@if $(LOCK_FITS); then $(PIP) --no-deps --no-build-isolation --editable .; else $(PINNED) --editable '.[dev]'; fi
	$(BIN)/python -m pip check
	touch $@

clean:
	rm -rf .venv build dist src/*.egg-info
