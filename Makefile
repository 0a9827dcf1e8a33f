# Everything a developer does. `make` alone lists it. Needs Python 3.11 or newer and make; all else is installed into .venv.

VENV := .venv
BIN := $(VENV)/bin
IMAGE := build/contract.binpb
RELEASED := protos/released.binpb
# Arguments for the command behind a target: make test ARGS="tests/storage -x"
ARGS ?=

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

.PHONY: help
help: ## Show this list
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# ---- Running ----

.PHONY: install
install: $(VENV)/.installed ## Install everything from the hashed lock into .venv

.PHONY: run
run: install ## Start Apex: the service, the bridge and the chat page
	@$(BIN)/apex up $(ARGS)

# Two stamps: a changed lock installs packages again, a changed pyproject.toml only the project itself.
$(VENV)/.packages: requirements/dev.txt
	@python=python3.11; "$$python" -c '' 2>/dev/null || python=python3; \
	"$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	  || { echo 'Apex needs Python 3.11 or newer: neither python3.11 nor python3 is one.' >&2; exit 1; }; \
	$(BIN)/python -c '' 2>/dev/null || "$$python" -m venv --clear $(VENV) \
	  || { echo 'Python cannot make a virtual environment; on Debian and Ubuntu install python3-venv.' >&2; exit 1; }
	@echo 'Installing packages into $(VENV) …'
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements/dev.txt
	@touch $@

$(VENV)/.installed: $(VENV)/.packages pyproject.toml
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

# ---- Tests and checks ----

# One worker per core up to four; a file's tests stay on one worker, so that what they share is started once.
.PHONY: test
test: install ## Run all tests
	@$(BIN)/pytest -n logical --maxprocesses=4 --dist=loadfile $(ARGS)

# Each mutant in a fork of its own, some at once (ARGS="--jobs 2 fencing" and the like; ARGS=--stale after moving code).
.PHONY: mutation
mutation: install ## Take each promise out of the product in turn and see a named test fail (6 minutes)
	@$(BIN)/python -m tests.mutation $(ARGS)

# Every round is one `kill -9`; most of its time is spent waiting for starts and leases, hence two at once.
.PHONY: chaos
chaos: install ## Kill the service at every commit point, on both databases (15 minutes); `make test` has a short form
	@$(BIN)/pytest tests/chaos --chaos-repeats=1 -n 2 --dist=loadfile --quiet $(ARGS)

# One seed again, with everything that happens in it: make simulation ARGS="--seed 7 --trace"
.PHONY: simulation
simulation: install ## Live through 500 simulated lives (ARGS="--seeds 5000", ARGS="--bugs" plants known bugs)
	@$(BIN)/python -m tests.simulation $(ARGS)

.PHONY: pictures
pictures: install ## Take the pictures of README.md anew (needs Chromium)
	@$(BIN)/python -m tests.support.pictures_main

.PHONY: check
check: check-static test ## Everything that must pass before a change is merged

.PHONY: check-static
check-static: format-check lint types generate-check breaking ## The same without the tests

.PHONY: format
format: install ## Format the code and sort the imports
	@$(BIN)/ruff check --quiet --select I --fix .
	@$(BIN)/ruff format .

.PHONY: format-check
format-check: install ## Check the format
	@$(BIN)/ruff format --check .

.PHONY: lint
lint: lint-code imports lint-contract ## Lint the code, the import directions and the contract

.PHONY: lint-code
lint-code: install
	@$(BIN)/ruff check .

.PHONY: imports
imports: install ## Check the import directions of ARCHITECTURE.md
	@$(BIN)/lint-imports --no-logo

.PHONY: lint-contract
lint-contract: $(IMAGE)
	@$(BIN)/buf lint $(IMAGE) --path apex

.PHONY: types
types: install ## Check the types
	@$(BIN)/mypy

.PHONY: soak
soak: install ## Let 2,000 sockets and 40,000 streams come and go, and see that nothing is left (5 minutes)
	@APEX_SOAK=1 $(BIN)/pytest -s tests/traps/test_churn.py $(ARGS)

# ---- Speed ----

# On an idle machine with at least 2 cores; PostgreSQL at 127.0.0.1:5432 (ARGS="--postgres-url …" for another one).
.PHONY: bench
bench: install ## Measure the speed beside the floor (12 minutes); table here, figures in build/bench.json
	@$(BIN)/python -m benchmarks $(ARGS)

.PHONY: bench-quick
bench-quick: install ## The same in short (2 minutes)
	@$(BIN)/python -m benchmarks --sizes quick --output build/bench-quick.json $(ARGS)

# ---- The contract ----

.PHONY: generate
generate: install ## Make the code in generated/ from protos/
	@$(BIN)/python protos/generate.py code

.PHONY: generate-check
generate-check: install ## Check that generated/ is what protos/ makes
	@$(BIN)/python protos/generate.py check

.PHONY: breaking
breaking: $(IMAGE) ## Compare the contract with the last released one
	@$(BIN)/buf breaking $(IMAGE) --against $(RELEASED) --path apex

.PHONY: release-contract
release-contract: $(IMAGE) ## Declare the contract released: from now on it only grows
	@if [ -e $(RELEASED) ]; then $(BIN)/buf breaking $(IMAGE) --against $(RELEASED) --path apex; fi
	@$(BIN)/python protos/generate.py image --no-comments $(RELEASED)

$(IMAGE): $(VENV)/.installed protos/generate.py $(shell find protos -name '*.proto')
	@$(BIN)/python protos/generate.py image $@

# ---- Upkeep ----

# Keeps what is pinned; UPGRADE=1 takes the newest versions instead. The runtime lock is a subset of the other, pin for pin.
LOCK := $(BIN)/uv pip compile --quiet --no-config --universal --python-version 3.11 --generate-hashes \
	--no-header --no-annotate --no-emit-index-url --no-emit-find-links pyproject.toml

.PHONY: lock
lock: ## Compile the locks in requirements/ from pyproject.toml (UPGRADE=1: newest versions)
	@test -x $(BIN)/uv || $(MAKE) --no-print-directory install
	@$(LOCK) $(if $(UPGRADE),--upgrade) --extra dev --output-file requirements/dev.txt
	@$(LOCK) --upgrade --constraints requirements/dev.txt --output-file requirements/base.txt

.PHONY: clean
clean: ## Remove caches and build output; not .venv, not your data
	@rm -rf build dist .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	@find . -path ./$(VENV) -prune -o -name __pycache__ -type d -exec rm -rf {} +
