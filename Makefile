# Everything a newcomer runs. Needs Python 3.11 or newer with pip and venv, nothing else.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: install test video clean

# Reinstalls when the project's metadata or pins change; the stamp is written last.
$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

install: $(VENV)/.installed

# All checks and tests: formatting, lint, types, tests (every recorded network and the built-in one
# are compiled by TensorRT-RTX on the way), and the wheel with base dependencies only.
test: $(VENV)/.installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -m "slow or not slow"
	$(BIN)/python tests/check_wheel.py

# A video from the built-in model, with the lean runtime only (no torch).
$(VENV)-video/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)-video
	$(VENV)-video/bin/python -m pip install --quiet --upgrade pip
	$(VENV)-video/bin/python -m pip install --quiet .
	touch $@

video: $(VENV)-video/.installed
	$(VENV)-video/bin/lvdm-rt generate --frames 256 --seed 3 -o sky.mp4

clean:
	rm -rf $(VENV) $(VENV)-video build dist .pytest_cache .mypy_cache .ruff_cache
