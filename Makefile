# make demo, make test, make serve, make lint, make notebooks: each first brings .venv up to date, quick when it is.
PYTHON ?= python3.11
PYTHON310 ?= python3.10
VENV = .venv
BIN = $(VENV)/bin
# A process for each core, up to four (each takes a few GB); a file's tests share fixtures, so they stay together.
PARALLEL = --numprocesses auto --maxprocesses 4 --dist loadfile
PIP = $(BIN)/pip install --quiet --constraint constraints.txt

.PHONY: demo test serve lint notebooks floor0-env tftrt-env ray-env clean

demo: $(VENV)/cpu.installed
	$(BIN)/keras-matting demo

test: $(VENV)/test.installed
	$(BIN)/python -m pytest -m "not long" $(PARALLEL)

serve: $(VENV)/serve.installed
	$(BIN)/keras-matting serve

lint: $(VENV)/lint.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/hadolint deploy/docker/Dockerfile deploy/docker/Dockerfile.gpu

# Execute the notebooks in place; their outputs are committed with them.
notebooks: $(VENV)/test.installed
	$(BIN)/python notebooks/execute.py

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/%.installed: setup.cfg constraints.txt | $(VENV)/bin/python
	$(PIP) --editable '.[$(EXTRAS_$*)]'
	touch $@

EXTRAS_cpu = cpu,demo,quantize
EXTRAS_test = cpu,demo,quantize,serve,train,test
EXTRAS_serve = cpu,serve
EXTRAS_lint = dev,serve

# The oldest Python that floor 0 (CONTRIBUTING.md) runs on; its test is skipped where this was not made.
floor0-env:
	$(PYTHON310) -m venv .venv-py310
	.venv-py310/bin/pip install --quiet 'numpy>=1.26' 'opencv-python-headless>=5.0' isal simplejpeg \
		'pillow>=11.3' onnxruntime

# TF-TRT ended with TensorFlow 2.17: an environment of its own, all from the package index (5.4 GB). It converts on a GPU.
# TensorFlow drops every GPU if it cannot open one of CUDA's libraries, also those that matting does not call.
tftrt-env:
	$(PYTHON310) -m venv .venv-tftrt
	.venv-tftrt/bin/pip install --quiet --only-binary=:all: 'numpy<2' 'protobuf<5' tensorflow==2.14.1 tensorrt==8.5.3.1 \
		nvidia-cublas-cu11==11.11.3.6 nvidia-cudnn-cu11==8.7.0.84 nvidia-cuda-runtime-cu11==11.8.89 \
		nvidia-cufft-cu11==10.9.0.58 nvidia-curand-cu11==10.3.0.86 nvidia-cusolver-cu11==11.4.1.48 \
		nvidia-cusparse-cu11==11.7.5.86

# Ray Serve (deploy/ray) beside the service: no TensorFlow, the engines of the CPU image.
ray-env:
	$(PYTHON) -m venv .venv-ray
	.venv-ray/bin/pip install --quiet --constraint constraints.txt --editable '.[serve]' onnxruntime openvino \
		'ray[serve]==2.60.0'

clean:
	rm -rf $(VENV) .venv-py310 .venv-tftrt .venv-ray demo build dist *.egg-info
