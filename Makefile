# Two commands do everything on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3.11
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready

.PHONY: demo test check format proto schema setup load image-lock image-proof sbom audit wheel clean
.DEFAULT_GOAL := help

help:
	@echo "make demo    set up, then show Breakwater defending a real Triton (about 90 s after set-up)"
	@echo "make test    set up, then run every test (no GPU needed)"
	@echo "make check   format, lint, types, import order, generated files"
	@echo "make format  apply the formatter and safe lint fixes"
	@echo "make proto   regenerate proxy/pb from proto/"
	@echo "make schema  regenerate deploy/config.schema.json"
	@echo "make image-lock   lock the image's requirements to this environment's versions"
	@echo "make image-proof  run the Dockerfile's steps without a container engine (root; deploy/image/prove.py)"
	@echo "make sbom    bill of materials and licences of the image, from its locked requirements"
	@echo "make audit   look the locked requirements up for known vulnerabilities (needs the network)"
	@echo "make wheel   build the wheel, the same bytes from the same commit (dist/)"
	@echo "make load    the overhead benchmark against direct, nginx and Envoy (loadtests/)"

$(READY): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet "torch==2.13.0" -e ".[dev]"
	touch $(READY)

setup: $(READY)

demo: $(READY)
	$(BIN)/breakwater demo $(ARGS)

test: $(READY)
	$(BIN)/python -m pytest $(ARGS)

check: $(READY)
	PATH="$(CURDIR)/$(BIN):$$PATH" ./.ci/check

format: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

proto: $(READY)
	$(BIN)/python -m grpc_tools.protoc -Iproto --python_out=proxy/pb --pyi_out=proxy/pb \
	  proto/open_inference.proto proto/breakwater/v1/control.proto

schema: $(READY)
	$(BIN)/breakwater check --schema > deploy/config.schema.json

load: $(READY)
	$(BIN)/python -m loadtests.overhead --json loadtests/results/overhead.json

image-lock: $(READY)
	$(BIN)/python deploy/image/lock.py

image-proof:
	$(PYTHON) deploy/image/prove.py

sbom: $(READY)
	$(BIN)/python deploy/supply/inventory.py

audit: $(READY)
	$(BIN)/pip-audit --disable-pip --require-hashes -r deploy/image/requirements.txt
	$(BIN)/pip-audit --disable-pip --require-hashes -r deploy/image/torch-cuda.txt

wheel: $(READY)
	$(BIN)/python deploy/supply/wheel.py

clean:
	rm -rf $(VENV) demo-out build dist *.egg-info
