# `make search` is the main job, `make test` the tests; both make the environment they need in .venv.

VENV := .venv
PYTHON ?= python3
BIN := $(VENV)/bin
PROCESSES ?= $(shell echo $$(($$(nproc) + 1)))

.PHONY: search test test-slow lint bench gpu docs clean

search: $(VENV)/installed
	$(BIN)/nas search --space v9

test: $(VENV)/installed-dev
	$(BIN)/python -m pytest --numprocesses $(PROCESSES) --dist worksteal  # one more than cores: tests also wait

test-slow: $(VENV)/installed-dev
	$(BIN)/python -m pytest -m slow

lint: $(VENV)/installed-dev
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/installed-dev
	$(BIN)/python benchmarks/cost.py
	$(BIN)/python benchmarks/operators.py

gpu: $(VENV)/installed-dev  # checks all that needs a GPU, in eight minutes: docs/gpu.md
	$(BIN)/python -m benchmarks.gpu --device cuda:0

docs: $(VENV)/installed-dev  # a browser draws two of the pictures: Chromium or Chrome
	$(BIN)/python docs/figures/draw.py
	$(BIN)/python docs/figures/rewards.py
	$(BIN)/mkdocs build --strict

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --editable .  # a first time some minutes; it shows what it loads
	touch $@

$(VENV)/installed-dev: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --editable '.[dev]'
	touch $@ $(VENV)/installed

clean:
	rm -rf $(VENV) dist site .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
