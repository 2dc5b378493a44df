# Each target sets up .venv by itself, from a clean clone.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo test pytest lint bench clean

demo: $(STAMP)
	rm -rf demo-out
	$(BIN)/medlocker demo demo-out

# Side by side: mypy keeps one core busy for a minute, the tests have waits to fill.
test: $(STAMP)
	$(MAKE) --no-print-directory -j 2 lint pytest

pytest: $(STAMP)
	$(BIN)/python -m pytest -n 3 --dist worksteal

lint: $(STAMP)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

bench: $(STAMP)
	$(BIN)/python benchmarks/keyless_attack.py
	$(BIN)/python benchmarks/search.py
	$(BIN)/python benchmarks/full_resolution.py
	$(BIN)/python benchmarks/keys.py

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $(STAMP)

clean:
	rm -rf $(VENV) demo-out build *.egg-info
