# make quickstart   install, then the main job on the embedded ward        make test    install, then every test without a GPU
# make check        format, lint, types, import floors                     make setup   .venv with everything in it
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: setup quickstart test test-slow check clean

setup: $(VENV)/installed

$(VENV)/installed: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit("Xinglin needs Python 3.11 or 3.12, this is " + sys.version.split()[0] if sys.version_info[:2] not in ((3, 11), (3, 12)) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "torch>=2.11,<=2.13.0"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[test,check]"
	touch $@

quickstart: setup
	$(BIN)/xinglin run quickstart

# One thread for each worker: two pools of threads on one set of cores wait for each other.
test: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not slow and not gpu" -n auto --dist loadfile

test-slow: setup
	$(BIN)/python -m pytest -m slow

check: setup
	$(BIN)/ruff format --check xinglin tests bench
	$(BIN)/ruff check xinglin tests bench
	$(BIN)/mypy xinglin
	$(BIN)/python -m pytest -q tests/test_floors.py

clean:
	rm -rf $(VENV) build dist *.egg-info
