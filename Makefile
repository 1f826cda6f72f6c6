# make demo        create .venv, install, restore the sample picture and clip
# make test        create .venv, install what tests need, run lint, types and tests
# make test-slow   the tests that take minutes
# make lint        ruff and mypy
# make clean       remove what the targets above made
#
# PYTHON=python3.12 chooses the interpreter (3.11 to 3.13), VENV=folder another environment, and
# PIP_FLAGS=... goes to every pip install (such as an index with smaller CPU-only wheels).

PYTHON ?= python3
VENV ?= .venv
PIP_FLAGS ?=
DEMO_OUTPUT ?= demo-output

BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt $(PIP_FLAGS)

.PHONY: demo test test-slow lint format clean
.DELETE_ON_ERROR:

demo: $(VENV)/.stamp-demo
	@mkdir -p $(DEMO_OUTPUT)
	$(BIN)/restore image examples/sign.jpg -o $(DEMO_OUTPUT)/sign.png --overwrite
	$(BIN)/restore video examples/bottles.mp4 -o $(DEMO_OUTPUT)/bottles.mp4 --overwrite
	@echo
	@echo "The results, four times larger than the originals in examples/:"
	@echo "  $(CURDIR)/$(DEMO_OUTPUT)/sign.png"
	@echo "  $(CURDIR)/$(DEMO_OUTPUT)/bottles.mp4"

test: lint
	$(BIN)/python -m pytest

test-slow: $(VENV)/.stamp-dev
	$(BIN)/python -m pytest -m slow

lint: $(VENV)/.stamp-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.stamp-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The stamps are newer than the files that say what to install, so a second run installs nothing.
$(VENV)/.stamp-demo: $(VENV)/bin/python pyproject.toml constraints.txt
	@echo "Installing restore into $(VENV); the first time this fetches PyTorch and takes minutes."
	@$(INSTALL) -e .
	@touch $@

$(VENV)/.stamp-dev: $(VENV)/bin/python pyproject.toml constraints.txt
	@echo "Installing restore and its tools into $(VENV); the first time takes minutes."
	@$(INSTALL) -e '.[dev]'
	@touch $@ $(VENV)/.stamp-demo

$(VENV)/bin/python:
	@command -v $(PYTHON) >/dev/null || { \
	    echo "$(PYTHON) is not there; install Python 3.11 to 3.13, or choose one with PYTHON=..." >&2; \
	    exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || { \
	    echo "$(PYTHON) is $$($(PYTHON) -V 2>&1); restore needs 3.11 to 3.13: make ... PYTHON=python3.12" >&2; \
	    exit 1; }
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

clean:
	rm -rf $(VENV) $(DEMO_OUTPUT) build dist restore.egg-info .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
