# 'make demo', 'make demo-traveltime', 'make demo-waveform' and 'make test' do everything. All install once; the stamp is stale only when the requirements change.

PYTHON ?= python3
BIN := .venv/bin
# Two processes, whatever the machine: each holds a TensorFlow of its own. Neighbouring tests, which share what they build, stay together.
WORKERS := -n 2 --dist worksteal
INSTALLED := .venv/.installed

.PHONY: demo demo-traveltime demo-waveform test test-all lint bench clean

demo: $(INSTALLED)
	$(BIN)/python scripts/demo_gravity.py

demo-traveltime: $(INSTALLED)
	$(BIN)/python scripts/invert_traveltime.py synthetic --output demo-output/traveltime

demo-waveform: $(INSTALLED)
	$(BIN)/python scripts/demo_waveform.py

test: lint
	$(BIN)/pytest -q $(WORKERS)

test-all: lint
	$(BIN)/pytest -q -m "" $(WORKERS)

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(INSTALLED)
	$(BIN)/python scripts/benchmark.py sparse-1m sparse-rays gravity-32k --rounds 1

$(INSTALLED): pyproject.toml constraints.txt
	@echo 'Installing the project into .venv; this happens once and takes a few minutes.'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --disable-pip-version-check -q -c constraints.txt -e '.[test]'
	touch $@

clean:
	rm -rf .venv build dist *.egg-info demo-output .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
