# Everything a newcomer runs. Needs Python 3.11 or newer with pip and venv; `make test` also gcc.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# Tests in two processes for two cores, which take as long: those that need torch, and all others.
TORCH := tests/export tests/tools tests/engines/backends/trt/test_aot.py
LEAN := tests $(addprefix --ignore ,$(TORCH))
PYTEST = OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q
QUICK = -m "not slow and not exhaustive"

.PHONY: install check check-lean check-torch lint test test-rest test-lean test-torch wheel fuzz matrix \
	matrix-quick bench-quick docs documented video clean

# Builds of torch without CUDA. One question, at most three seconds: where the index does not answer,
# pip takes a CPU build that it finds on disk (PIP_FIND_LINKS), or PyPI's build with CUDA.
CPU_TORCH := https://download.pytorch.org/whl/cpu
CPU_INDEX = $(shell $(BIN)/python -c 'import urllib.request as r; r.urlopen("$(CPU_TORCH)/torch/", \
	timeout=3)' 2> /dev/null && echo --extra-index-url $(CPU_TORCH))

# Reinstalls when the project's metadata or pins change; the stamp is written last.
$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1' # knows dependency groups
	$(BIN)/python -m pip install --quiet $(CPU_INDEX) --constraint constraints.txt \
		--group dev --editable '.[cpu,hub,openvino,ray,serve,tools]'
	touch $@

# The oldest TensorRT that is supported, as far as its Python names go; beside the newest one.
$(VENV)/tensorrt-10.12: $(VENV)/.installed
	rm -rf $@ && mkdir $@
	$(BIN)/python -m pip install --quiet --no-deps --target $@ tensorrt-cu12-bindings==10.12.0.36 \
		|| echo "bindings of TensorRT 10.12 are not installed (see above): their check is skipped"
	touch $@

install: $(VENV)/.installed

# What to run while working: formatting, lint, types, and the tests that are not slow.
check: $(VENV)/.installed
	$(MAKE) --no-print-directory --jobs=2 --output-sync=target check-lean lint check-torch

lint: $(VENV)/.installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/hadolint Dockerfile Dockerfile.cuda
	$(BIN)/mypy

check-lean: $(VENV)/.installed
	$(PYTEST) $(QUICK) $(LEAN)

check-torch: $(VENV)/.installed
	$(PYTEST) $(QUICK) $(TORCH)

# All checks and tests: formatting, lint, types, tests, the site, and the wheel with base dependencies
# only. What takes longest begins first.
test: $(VENV)/.installed $(VENV)/tensorrt-10.12
	@command -v gcc > /dev/null || { echo "make test needs gcc for stand-ins of GPU libraries"; exit 1; }
	$(MAKE) --no-print-directory --jobs=2 --output-sync=target test-torch test-lean lint docs wheel

# The documentation as a site, in site/; a warning is an error (but not with --quiet).
docs: $(VENV)/.installed
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

# Every command of the documentation as it is written, each page in a fresh clone: most of an hour.
documented: $(VENV)/.installed
	$(BIN)/python tests/documented.py

# The wheel, installed with its base dependencies only.
wheel: $(VENV)/.installed
	$(BIN)/python tests/check_wheel.py

# All lean tests on every Python that is here, with the oldest and the newest allowed packages.
matrix: $(VENV)/.installed
	PATH=$(abspath $(BIN)):$$PATH $(BIN)/python tests/matrix.py

# The same without the slow ones.
matrix-quick: $(VENV)/.installed
	PATH=$(abspath $(BIN)):$$PATH $(BIN)/python tests/matrix.py --quick

# `lvdm-tools bench --quick` and its report; no times are expected.
bench-quick: $(VENV)/.installed
	$(PYTEST) -m exhaustive tests/tools/bench/test_quick.py

test-lean: $(VENV)/.installed
	$(PYTEST) -m "not exhaustive" $(LEAN)

test-torch: $(VENV)/.installed
	$(PYTEST) -m "not exhaustive" $(TORCH)

# The rest of the recorded networks and precisions, the built-in model compiled, networks of the paper's kind,
# a dry gpu-check, nodes lost at many moments, builds and trainings that are killed.
test-rest: $(VENV)/.installed
	$(PYTEST) -m exhaustive

# Damaged files by the thousand, and whether each ends in a result or in one line. Says where it
# ended, which is FIRST of the next.
MINUTES ?= 30
FIRST ?= 0
fuzz: $(VENV)/.installed
	OMP_NUM_THREADS=1 $(BIN)/python tests/fuzz/fuzzing.py --minutes $(MINUTES) --first $(FIRST)

# A video from the built-in model, with the lean runtime only (no torch).
$(VENV)-video/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)-video
	$(VENV)-video/bin/python -m pip install --quiet --upgrade pip
	$(VENV)-video/bin/python -m pip install --quiet '.[cpu]'
	touch $@

video: $(VENV)-video/.installed
	$(VENV)-video/bin/lvdm-rt generate --frames 256 --seed 3 -o sky.mp4 --force

clean:
	rm -rf $(VENV) $(VENV)-video build dist site .pytest_cache .mypy_cache .ruff_cache
