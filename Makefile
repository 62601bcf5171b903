# make demo, make test, make serve, make lint. Each first brings .venv up to date, which is quick when it is.
PYTHON ?= python3.11
PYTHON310 ?= python3.10
VENV = .venv
BIN = $(VENV)/bin
PIP = $(BIN)/pip install --quiet --constraint constraints.txt

.PHONY: demo test serve lint floor0-env clean

demo: $(VENV)/cpu.installed
	$(BIN)/keras-matting demo

test: $(VENV)/test.installed
	$(BIN)/python -m pytest

serve: $(VENV)/serve.installed
	$(BIN)/keras-matting serve

lint: $(VENV)/lint.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/%.installed: setup.cfg constraints.txt | $(VENV)/bin/python
	$(PIP) --editable '.[$(EXTRAS_$*)]'
	touch $@

EXTRAS_cpu = cpu,demo
EXTRAS_test = cpu,demo,serve,test
EXTRAS_serve = cpu,serve
EXTRAS_lint = dev

# The oldest Python that floor 0 (CONTRIBUTING.md) runs on; its test is skipped where this was not made.
floor0-env:
	$(PYTHON310) -m venv .venv-py310
	.venv-py310/bin/pip install --quiet 'numpy>=1.26' 'opencv-python-headless>=5.0' onnxruntime

clean:
	rm -rf $(VENV) .venv-py310 demo build dist *.egg-info
