# Two commands set everything up: make demo, make test.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
SHELL := /bin/bash
unexport PYTHONDONTWRITEBYTECODE  # each process of a test would compile the package anew

.PHONY: demo test fast lint docs bench mindeps newest portable clean

demo: $(STAMP)
	@GEOMIAM_INSTALL_SECONDS=$$(cat $(STAMP)) $(BIN)/geomiam demo --out out/demo --overwrite

test: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/mypy
	$(BIN)/pytest

fast: $(STAMP)
	$(BIN)/pytest -m "not slow"

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/mypy
	$(BIN)/pytest -n 0 -q tests/test_language.py

docs: $(STAMP)
	rm -rf docs/reference/generated
	$(BIN)/sphinx-build -W --keep-going -b html docs docs/_build

# The lowest and the newest versions that pyproject.toml allows, each in a separate environment.
mindeps:
	tools/environment.sh lowest .venv-lowest
	.venv-lowest/bin/pytest -m "not slow"

newest:
	tools/environment.sh newest .venv-newest
	.venv-newest/bin/pytest -m "not slow"

# Other instructions of the same processor round differently: no test may depend on the last bits.
portable: $(STAMP)
	ATEN_CPU_CAPABILITY=default ONEDNN_MAX_CPU_ISA=SSE41 MKL_CBWR=COMPATIBLE $(BIN)/pytest -m "not slow"

bench: $(STAMP)
	$(BIN)/geomiam-bench shapley --json out/bench/shapley.json --figure out/bench/shapley.png
	$(BIN)/geomiam-bench gpu --json out/bench/gpu.json
	$(BIN)/geomiam-bench maps --json out/bench/maps.json --figure out/bench/maps.png
	$(BIN)/geomiam-bench training --json out/bench/training.json --figure out/bench/training.png

# torch comes first and pinned: an open requirement would pull gigabytes of CUDA.
$(STAMP): pyproject.toml packages/geomiam-bench/pyproject.toml constraints.txt
	@started=$$(date +%s); \
	echo "setting up $(VENV) (a few minutes, once)"; \
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV); \
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch && \
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[vector,test,docs,maxent]" -e packages/geomiam-bench && \
	echo $$(( $$(date +%s) - started )) > $(STAMP)

clean:
	rm -rf $(VENV) .venv-lowest .venv-newest out docs/_build docs/reference/generated .pytest_cache .ruff_cache .mypy_cache
