# Everything a developer or a newcomer types. `make` alone lists it.
# Needs Python 3.11, git and make; the rest is installed below this folder.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= python3
UV_VERSION := 0.13.8
UV ?= .tools/bin/uv
BIN := .venv/bin

# Real images and cached encoder weights for the tests, if they are at hand.
export RALIS_SHARED ?= ../shared
ifneq ($(wildcard $(RALIS_SHARED)/hf-cache),)
export HF_HUB_CACHE ?= $(abspath $(RALIS_SHARED)/hf-cache)
endif
export UV_PYTHON_DOWNLOADS := never

UV_STAMP := .tools/.uv-$(UV_VERSION)
BACKEND_STAMP := .venv/.installed
LABEL_STUDIO_STAMP := .venv-label-studio/.installed
COMPILE := pip compile --quiet --universal --python-version 3.11 --no-emit-index-url --no-header

##@ Use

.PHONY: help
help: ## List the targets
	@awk 'BEGIN { FS = ":.*## " } \
	  /^##@/ { printf "\n%s\n", substr($$0, 5) } \
	  /^[a-z-]+:.*## / { printf "  make %-24s %s\n", $$1, $$2 }' Makefile
	@printf '\n%s\n' \
	  'make demo takes IMAGES=folder, DATASET=folder, ORACLE=1, ROUNDS=n, REGIONS_PER_ROUND=n,' \
	  'STRATEGY=name, MODE=crops|in-place; other options of `ralis demo`: OPTIONS="--seed 1".'

DEMO_OPTIONS = \
	$(if $(IMAGES),--images '$(IMAGES)') \
	$(if $(DATASET),--dataset '$(DATASET)') \
	$(if $(filter-out 0,$(ORACLE)),--oracle) \
	$(if $(ROUNDS),--rounds $(ROUNDS)) \
	$(if $(REGIONS_PER_ROUND),--regions-per-round $(REGIONS_PER_ROUND)) \
	$(if $(STRATEGY),--strategy $(STRATEGY)) \
	$(if $(MODE),--mode $(MODE)) \
	$(OPTIONS)

.PHONY: demo
demo: setup ## Start Label Studio and the backend with images to label (Ctrl-C stops all)
	$(BIN)/ralis demo $(strip $(DEMO_OPTIONS))

# What is compared. On the aerial set the CamVid policies do not fit.
STRATEGIES ?= random,entropy,margin,bald,clasp-pe,class-bal,k-center,bald-rarity,oracle-coverage
CAMVID_STRATEGIES ?= $(STRATEGIES),ralis,ralis-wiou,ralis-faithful
DATA := $(RALIS_SHARED)/data
LABELS := benchmarks/results/labels

# $(call labels,folder,dataset,strategies,options): both losses, the plain one and the weighted one.
define labels
	for power in 0 0.5; do \
	  $(BIN)/ralis benchmark --dataset '$(DATA)/$(2)' --strategies '$(3)' \
	    --class-weight-power $$power --out '$(LABELS)/$(1)/$(2)-weight-'$$power $(4) $(OPTIONS); \
	done
endef

SHORT := --seeds 3 --budgets 96,192,384 --regions-per-step 48 --updates 300
LONG := --seeds 8

.PHONY: reproduce-benchmark
reproduce-benchmark: $(BACKEND_STAMP) ## Strategies compared on two datasets, short form: minutes
	$(call labels,short,camvid,$(STRATEGIES),$(SHORT))
	$(call labels,short,dubai_aerial,$(STRATEGIES),$(SHORT))

.PHONY: reproduce-benchmark-long
reproduce-benchmark-long: $(BACKEND_STAMP) ## The same with policies, all budgets, 8 seeds: hours
	$(call labels,long,camvid,$(CAMVID_STRATEGIES),$(LONG))
	$(call labels,long,dubai_aerial,$(STRATEGIES),$(LONG))
	for initial in random k-center; do \
	  $(BIN)/ralis benchmark --dataset '$(DATA)/camvid' --strategies entropy --initial $$initial \
	    --budgets 48,96,192 $(LONG) --out '$(LABELS)/long/camvid-initial-'$$initial $(OPTIONS); \
	done

.PHONY: setup
setup: $(BACKEND_STAMP) $(LABEL_STUDIO_STAMP) ## Install both environments at the locked versions

##@ Develop

# Several small processes share the cores: one thread each is faster than many.
test check reproduce-benchmark reproduce-benchmark-long: export OMP_NUM_THREADS ?= 1

.PHONY: test
test: setup lint ## Run every check and every test, with a real Label Studio and Chromium
	$(BIN)/pytest

.PHONY: check
check: $(BACKEND_STAMP) lint ## Format, lint, types, imports, Docker files, unit tests
	$(BIN)/pytest -m "not e2e"

.PHONY: lint
lint: $(BACKEND_STAMP) ## The checks without the tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/hadolint docker/Dockerfile
	$(BIN)/check-jsonschema --builtin-schema vendor.compose-spec docker/docker-compose*.yml

.PHONY: format
format: $(BACKEND_STAMP) ## Format the code and repair what ruff can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

.PHONY: lock
lock: $(UV_STAMP) ## Resolve both locks again; UPGRADE=1 takes the newest releases
	$(UV) $(COMPILE) $(if $(UPGRADE),--upgrade) --extra dev pyproject.toml -o requirements.txt
	# Without pyproject.toml's overrides: Label Studio's environment is its own.
	$(UV) --no-config $(COMPILE) $(if $(UPGRADE),--upgrade) label-studio.in -o requirements-label-studio.txt

.PHONY: clean
clean: ## Remove the environments and what tools cached; labels and weights stay
	rm -rf .venv .venv-label-studio .tools build dist *.egg-info
	rm -rf .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Environments. A stamp is newer than what it was installed from.

$(UV_STAMP):
	test -x .tools/bin/pip || $(PYTHON) -m venv .tools
	.tools/bin/pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	rm -f .tools/.uv-*
	touch $@

$(BACKEND_STAMP): requirements.txt pyproject.toml | $(UV_STAMP)
	test -x .venv/bin/python || $(UV) venv --quiet --python 3.11 .venv
	$(UV) pip sync --quiet --python .venv requirements.txt
	$(UV) pip install --quiet --python .venv --no-deps --no-build-isolation --editable .
	touch $@

$(LABEL_STUDIO_STAMP): requirements-label-studio.txt | $(UV_STAMP)
	test -x .venv-label-studio/bin/python || $(UV) venv --quiet --python 3.11 .venv-label-studio
	$(UV) pip sync --quiet --python .venv-label-studio requirements-label-studio.txt
	touch $@
