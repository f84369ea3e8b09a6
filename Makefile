# Every task of this project. Each brings what it needs, and is quick when that is there already.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
TORCH_VENV := .venvs/torch
TORCH := torch==2.13.0
RAN_NONE := 5
COMPILED := $(shell find src -name '*.pyx')
EXTRAS := onnx sklearn xgboost lightgbm catboost dataframe parquet s3 postgres compile
GROUPS := test lint build

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help install demo test test-slow test-simulated test-pure test-registry test-torch test-formats test-clients test-oracles lint fix docs bench lock clean

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{ printf "  make %-14s %s\n", $$1, $$2 }'

install: $(VENV)/.installed ## makes .venv with everything that is locked, and Turnout itself

$(VENV)/.installed: requirements.lock requirements-uv.lock pyproject.toml hatch_build.py $(COMPILED)
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if v >= (3, 11) else f"Turnout needs Python 3.11 or newer; this is {v.major}.{v.minor}. Say which: make PYTHON=python3.12 ...")'
	@test -x $(BIN)/python || { echo "making $(VENV) ..."; $(PYTHON) -m venv $(VENV); }
	@$(call install_into,$(VENV))
	@touch $@

# $(call install_into,VENV): what the lock says, and this checkout
define install_into
echo "installing into $(1) ..." \
	&& { test -x $(BIN)/uv || $(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --requirement requirements-uv.lock; } \
	&& $(BIN)/uv pip install --python $(1)/bin/python --require-hashes --requirement requirements.lock \
	&& $(BIN)/uv pip install --python $(1)/bin/python --quiet --no-deps --no-build-isolation --editable .
endef

demo: install ## trains real models, serves them, sends requests and shows the answers
	$(BIN)/python demo/run.py

test: install ## every test that needs nothing but .venv
	$(BIN)/pytest

test-slow: install ## the tests that take their time
	$(call optional,$(BIN)/pytest -m slow)

test-simulated: install ## rollouts and the control plane in simulated time, thousands of times
	$(call optional,$(BIN)/pytest -m simulated)

test-pure: install ## what the compiled lane does, done by Python alone
	TURNOUT_NATIVE=0 $(BIN)/pytest tests/grpc tests/equality tests/stories tests/protocols tests/faults/test_models.py

test-registry: install ## models out of a real MLflow server, S3 and an OCI registry
	$(call optional,$(BIN)/pytest -m registry)

test-torch: $(TORCH_VENV)/.installed ## the PyTorch format, in an environment of its own
	$(call optional,$(TORCH_VENV)/bin/pytest -m torch)

$(TORCH_VENV)/.installed: $(VENV)/.installed
	@test -x $(TORCH_VENV)/bin/python || $(PYTHON) -m venv $(TORCH_VENV)
	@$(call install_into,$(TORCH_VENV))
	$(TORCH_VENV)/bin/python -m pip install --disable-pip-version-check $(TORCH)
	@touch $@

test-formats: install ## the formats of heavy frameworks, in environments that Turnout builds
	$(call optional,$(BIN)/pytest -m formats)

test-clients: install ## clients of other projects against this server
	$(call optional,$(BIN)/pytest -m clients)

test-oracles: install ## answers of other servers and ours, side by side
	$(call optional,$(BIN)/pytest -m oracles)

# $(call optional,COMMAND): as COMMAND; says so and goes on where not one test is marked so (yet)
define optional
@echo '$(1)'; $(1); ended=$$?; \
if [ $$ended -eq $(RAN_NONE) ]; then echo "no test carries this mark: nothing to run"; else exit $$ended; fi
endef

lint: install ## style, types and architecture
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

fix: install ## mends what a tool can mend
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/python tools/write_schema.py

docs: install ## checks the documentation: links, and that every name has its entry
	$(BIN)/pytest tests/docs

bench: install ## Turnout and its peers side by side (docs/explanation/performance.md)
	$(BIN)/python -m benchmarks

lock: $(VENV)/.installed ## resolves the lock files anew
	$(BIN)/uv pip compile pyproject.toml --python-version 3.11 --universal --generate-hashes --no-header --no-annotate \
		--upgrade --quiet $(EXTRAS:%=--extra %) $(GROUPS:%=--group %) --output-file requirements.lock
	echo uv | $(BIN)/uv pip compile - --python-version 3.11 --universal --generate-hashes --no-header --no-annotate \
		--upgrade --quiet --output-file requirements-uv.lock

clean: ## removes what these tasks have made
	rm -rf .venv .venvs build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache benchmarks/made
	find src tests benchmarks demo -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true
