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
# Python keeps what it has compiled: else each of hundreds of processes compiles torch anew.
unexport PYTHONDONTWRITEBYTECODE

PIP_AUDIT_VERSION := 2.10.1
UV_STAMP := .tools/.uv-$(UV_VERSION)
AUDIT_STAMP := .tools/.pip-audit-$(PIP_AUDIT_VERSION)
BACKEND_STAMP := .venv/.installed
LABEL_STUDIO_STAMP := .venv-label-studio/.installed
COMPILE := pip compile --quiet --universal --python-version 3.11 --no-emit-index-url --no-header --generate-hashes

##@ Use

.PHONY: help
help: ## List the targets
	@awk 'BEGIN { FS = ":.*## " } \
	  /^##@/ { printf "\n%s\n", substr($$0, 5) } \
	  /^[a-z-]+:.*## / { printf "  make %-24s %s\n", $$1, $$2 }' Makefile
	@printf '\n%s\n%s\n' \
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

# What is compared.
STRATEGIES ?= random,entropy,bald,bald-rarity,coverage,oracle-coverage,any,linear
# ... and besides, with the plain loss: policies of one dataset, and placebos.
ON_CAMVID := ,any-camvid,any-aerial,placebo-untrained,placebo-shuffled
ON_AERIAL := ,any-camvid
DATA := $(RALIS_SHARED)/data
LABELS := benchmarks/results/labels

# $(call labels,folder,dataset,power of the class weights,strategies,options)
labels = $(BIN)/ralis benchmark --dataset '$(DATA)/$(2)' --class-weight-power $(3) \
	--strategies '$(4)' --out '$(LABELS)/$(1)/$(2)-weight-$(3)' $(5) $(OPTIONS)
# $(call every,dataset): each strategy that is no learned policy.
every = $(BIN)/ralis benchmark --dataset '$(DATA)/$(1)' --strategies '$(EVERY)' --seeds 8 \
	--first-seed 2000 --budgets 144,240,480,960,1440 --regions-per-step 48 \
	--out '$(LABELS)/long/$(1)-strategies' $(OPTIONS)
# $(call cold,dataset,random or k-center): how the first regions are chosen.
cold = $(BIN)/ralis benchmark --dataset '$(DATA)/$(1)' --strategies random,bald-rarity \
	--initial $(2) --budgets 48,96,192 --regions-per-step 24 --seeds 16 --first-seed 2000 \
	--out '$(LABELS)/long/$(1)-initial-$(2)' $(OPTIONS)
# $(call warm,seed): RALIS whose first games are played by `coverage`.
WARM := .cache/warm
warm = $(BIN)/ralis train-policy --dataset '$(DATA)/camvid' --config repaired-warm --seed $(1) \
	--out $(WARM)/warm-s$(1)
# $(call full,dataset,folder,power,strategies,options): the segmenter itself, at half the size.
full = $(BIN)/ralis benchmark --dataset '$(DATA)/$(1)' --fidelity full --image-scale 0.5 \
	--test-images 58 --updates 240 --first-seed 3000 --class-weight-power $(3) \
	--strategies '$(4)' --out '$(LABELS)/long/$(2)' $(5) $(OPTIONS)

# A line of a recipe each.
define NEWLINE

	
endef

SHORT := --seeds 3 --budgets 96,192,384 --regions-per-step 48 --updates 300
LONG := --seeds 24 --first-seed 2000 --budgets 144,240,480,960,1440 --regions-per-step 48
EVERY := random,entropy,bald-rarity,coverage,margin,clasp-pe,class-bal,power,equal,$\
	spatial-diversity,foreground-random,entropy-rarity,k-center,oracle-rarity,oracle-error,$\
	oracle-coverage
RALIS := random,entropy,margin,bald-rarity,ralis-faithful,ralis,ralis-wiou
FULL := random,entropy,bald-rarity,coverage
FULL_RULES := --seeds 5 --regions-per-step 48 --budgets 144,288
FULL_DIVERSE := coverage-diverse,coverage,bald-rarity,any,entropy,margin,k-center,random

.PHONY: reproduce-benchmark
reproduce-benchmark: $(BACKEND_STAMP) ## Strategies compared on two datasets, short form: minutes
	$(call labels,short,camvid,0,$(STRATEGIES),$(SHORT))
	$(call labels,short,camvid,0.5,$(STRATEGIES),$(SHORT))
	$(call labels,short,dubai_aerial,0,$(STRATEGIES),$(SHORT))
	$(call labels,short,dubai_aerial,0.5,$(STRATEGIES),$(SHORT))

.PHONY: reproduce-benchmark-long
reproduce-benchmark-long: $(BACKEND_STAMP) ## What the repository shows, from the same seeds: hours
	$(call labels,long,camvid,0,$(STRATEGIES)$(ON_CAMVID),$(LONG))
	$(call labels,long,camvid,0.5,$(STRATEGIES),$(LONG))
	$(call labels,long,dubai_aerial,0,$(STRATEGIES)$(ON_AERIAL),$(LONG))
	$(call labels,long,dubai_aerial,0.5,$(STRATEGIES),$(LONG))
	$(call every,camvid)
	$(call every,dubai_aerial)
	$(BIN)/ralis benchmark --dataset '$(DATA)/camvid' --strategies '$(RALIS)' --seeds 4 \
	  --budgets 144,240,480,960,1440,1920 --out '$(LABELS)/long/camvid-policies' $(OPTIONS)
	$(call warm,0)
	$(call warm,1)
	cp policies/ralis-camvid.json policies/ralis-camvid.safetensors $(WARM)
	$(BIN)/ralis benchmark --dataset '$(DATA)/camvid' --policies $(WARM) --seeds 8 \
	  --strategies random,entropy,coverage,ralis,warm-s0,warm-s1 --budgets 144,240,480,960 \
	  --out '$(LABELS)/long/camvid-warm' $(OPTIONS)
	$(call cold,camvid,random)
	$(call cold,camvid,k-center)
	$(call cold,dubai_aerial,random)
	$(call cold,dubai_aerial,k-center)
	$(call full,camvid,full-weight-0,0,random,--seeds 3 --initial-regions 240 --budgets 240)
	$(call full,camvid,full-weight-0.5,0.5,random,--seeds 3 --initial-regions 240 --budgets 240)
	$(call full,camvid,full-strategies,0,$(FULL),$(FULL_RULES))
	$(call full,camvid,full-strategies-weighted,0.5,$(FULL),$(FULL_RULES))
	$(call full,clothing,full-diverse-clothing,0.5,$(FULL_DIVERSE),$(FULL_RULES))
	$(call full,camvid,full-diverse-camvid,0.5,$(FULL_DIVERSE),$(FULL_RULES))
	$(BIN)/ralis benchmark --dataset '$(DATA)/camvid' --strategies '$(FULL)' \
	  --first-seed 3000 $(FULL_RULES) --seeds 12 --out '$(LABELS)/long/fast-strategies'
	$(BIN)/python benchmarks/fidelity_agreement.py '$(LABELS)/long/fast-strategies/summary.json' \
	  '$(LABELS)/long/full-strategies/summary.json' --out '$(LABELS)/fidelity-agreement.json'
	$(BIN)/python benchmarks/segmenter_loss.py --dataset '$(DATA)/camvid' \
	  --out '$(LABELS)/segmenter-loss-camvid.json'
	$(BIN)/python benchmarks/trust_gate.py --dataset '$(DATA)/camvid' \
	  --out '$(LABELS)/trust-gate-camvid.json'
	$(BIN)/python benchmarks/labels_report.py
	$(BIN)/python benchmarks/policy_report.py

KINDS := .cache/kinds
# Beside what the repository shows, so that neither takes the other's place.
REPRODUCED := .cache/reproduced
FORMULAS := $(REPRODUCED)/formulas
FRESH := $(REPRODUCED)/formulas-fresh
CONFIRMED := $(REPRODUCED)/formulas-confirmed
GENERATED := grey cells streets
# Of these the small segmenter learns something over more than 144 regions.
LEARNED := camvid clothing dubai_aerial nuclei
SETS := camvid clothing dubai_aerial nuclei roads $(GENERATED)
# $(call sets,left out): the options for every label set but one.
sets = $(foreach set,$(filter-out $(1),$(SETS)),\
	--dataset '$(if $(filter $(set),$(GENERATED)),$(KINDS),$(DATA))/$(set)')
# $(call adaptive,policy,left out,preset,options): games of a label set are played once for all.
adaptive = $(BIN)/ralis train-policy $(call sets,$(2)) --config $(3) --out $(1) $(4)

# $(call unseen,dataset,power): the regions that strategies need, and a policy that never saw it.
unseen = $(BIN)/ralis benchmark --dataset '$(DATA)/$(1)' --class-weight-power $(2) \
	--strategies '$(UNSEEN),any-without-$(1)' --policies $(FORMULAS)/policies \
	--out '$(REPRODUCED)/unseen-$(1)-weight-$(2)' $(UNSEEN_RULES) $(OPTIONS)
# $(call diverse,dataset): what the default is worth on a whole label set while labels are few.
diverse = $(BIN)/ralis benchmark --dataset '$(DATA)/$(1)' --seeds 8 --first-seed 8000 --updates 300 \
	--strategies random,coverage,coverage-diverse --initial-regions 24 --regions-per-step 24 \
	--budgets 48,96,192,384 --out '$(REPRODUCED)/diverse-$(1)-weight-0' $(OPTIONS)
UNSEEN := random,entropy,bald-rarity,coverage
UNSEEN_RULES := --seeds 8 --first-seed 7000 --budgets 96,192,384,768 --regions-per-step 48 \
	--updates 300
PLAYERS := random,entropy,margin,bald,bald-rarity,clasp-pe,coverage,any,any-fixed,any-placebo,$\
	oracle-coverage,coverage-neighbours,coverage-mixed,coverage-noise,coverage-apart,$\
	coverage-apart-64,coverage-both,coverage-diverse
FRESH_PLAYERS := random,coverage,bald-rarity,coverage-apart,coverage-apart-64,coverage-diverse

.PHONY: reproduce-default
reproduce-default: $(BACKEND_STAMP) ## The default and the policy `any`, on eight label sets: hours
	$(BIN)/python -m benchmarks.kinds --out $(KINDS)
	$(call adaptive,$(FORMULAS)/policies/any,,adaptive)
	$(call adaptive,$(FORMULAS)/policies/any-fixed,,adaptive-fixed)
	$(call adaptive,$(FORMULAS)/policies/any-placebo,,adaptive,--shuffle-rewards)
	$(foreach set,$(SETS),$(call adaptive,$(FORMULAS)/policies/any-without-$(set),$(set),adaptive)$(NEWLINE))
	$(foreach set,$(LEARNED),$(call unseen,$(set),0)$(NEWLINE)$(call unseen,$(set),0.5)$(NEWLINE))
	$(BIN)/python -m benchmarks.formulas $(call sets,) --report --out $(FORMULAS) \
	  --policies $(FORMULAS)/policies --left-out any --strategies $(PLAYERS)
	$(foreach set,$(SETS),$(call adaptive,$(FRESH)/policies/apart-without-$(set),$(set),adaptive-apart)$(NEWLINE))
	$(BIN)/python -m benchmarks.formulas $(call sets,) --report --out $(FRESH) --first-seed 2000 \
	  --policies $(FRESH)/policies --left-out apart --strategies $(FRESH_PLAYERS)
	$(BIN)/python -m benchmarks.formulas $(call sets,) --report --out $(CONFIRMED) \
	  --first-seed 3000 --games 40
	$(foreach set,$(LEARNED),$(call diverse,$(set))$(NEWLINE))

REWARDS := benchmarks/results/rewards
# $(call rewards,dataset): every arm that the file does not hold yet.
rewards = $(BIN)/python benchmarks/segmenter_rewards.py --dataset '$(DATA)/$(1)' \
	--out '$(REWARDS)/$(1).json' $(OPTIONS)

.PHONY: reproduce-rewards
reproduce-rewards: $(BACKEND_STAMP) ## What a segmenter learns from scores, on two datasets: hours
	$(call rewards,camvid)
	$(call rewards,dubai_aerial)
	$(BIN)/python benchmarks/reward_gradients.py --dataset '$(DATA)/camvid' \
	  --segmenter .cache/rewards/camvid/start-0.safetensors --out '$(REWARDS)/gradients-camvid.json'

.PHONY: gpu
gpu: ## Tests and measurements on a GPU, four minutes at most; needs no network
	PYTHON='$(PYTHON)' benchmarks/gpu/run $(OPTIONS)

GPU_WHEELS := .gpu-wheels
GPU_WHEELS_MAX_KB := 65536
# Packages of benchmarks/gpu/wheels.txt that the image brings, such as opencv-python-headless: a name
# that is no package's is in no line.
GPU_IMAGE_HAS ?= nothing

.PHONY: gpu-wheels
gpu-wheels: $(UV_STAMP) ## What `make gpu` lacks on a bare CUDA image with Python 3.12, to carry there
	rm -rf $(GPU_WHEELS)
	mkdir $(GPU_WHEELS)
	sed -e '/--hash=/d' -e 's/ *\\$$//' requirements.txt >$(GPU_WHEELS)/versions.txt
	grep -vxF $(foreach name,$(GPU_IMAGE_HAS),-e $(name)) benchmarks/gpu/wheels.txt \
	  >$(GPU_WHEELS)/wheels.txt
	.tools/bin/pip download --quiet --dest $(GPU_WHEELS) --no-deps --only-binary :all: \
	  --python-version 3.12 --implementation cp --abi cp312 --abi abi3 --abi none \
	  --platform manylinux_2_28_x86_64 --platform manylinux_2_17_x86_64 \
	  --platform manylinux2014_x86_64 --platform any \
	  -r $(GPU_WHEELS)/wheels.txt -c $(GPU_WHEELS)/versions.txt
	du -sk $(GPU_WHEELS) | awk '{ print $$1 " KB of wheels" } \
	  $$1 > $(GPU_WHEELS_MAX_KB) { print "more than $(GPU_WHEELS_MAX_KB) KB"; exit 1 }'

GPU_DATASET ?= camvid

.PHONY: gpu-data
gpu-data: $(BACKEND_STAMP) ## A part of GPU_DATASET and the weights in .gpu-data, to carry to a GPU
	$(BIN)/python -m benchmarks.gpu.data --dataset '$(DATA)/$(GPU_DATASET)' --out .gpu-data

.PHONY: setup
setup: $(BACKEND_STAMP) $(LABEL_STUDIO_STAMP) ## Install both environments at the locked versions

##@ Develop

# Several small processes share the cores: one thread each is faster than many.
test check faults long chaos load reproduce-benchmark reproduce-benchmark-long reproduce-default \
  reproduce-rewards: \
  export OMP_NUM_THREADS ?= 1

.PHONY: test
test: setup check ## Run every check and every test, with a real Label Studio and Chromium
	# Named: else each process looks for them in every file, and imports it.
	$(BIN)/pytest -m 'e2e and not long' -n 3 --dist loadfile --no-loadscope-reorder \
	  $$(grep -rl --include='test_*.py' 'mark\.e2e' tests | sort)

FUZZ_SECONDS ?= 3600
FUZZ_TARGETS ?= rle payload label-config image weights
ATHERIS_VERSION := 3.0.0
# atheris is compiled: its own environment borrows the backend's packages.
FUZZ := .venv-fuzz
fuzz: export PYTHONPATH := $(CURDIR):$(CURDIR)/.venv/lib/python3.11/site-packages

.PHONY: fuzz
fuzz: $(BACKEND_STAMP) $(FUZZ)/.installed ## Damaged input for what decodes, FUZZ_SECONDS each (an hour)
	for target in $(FUZZ_TARGETS); do \
	  $(FUZZ)/bin/python -m tests.fuzz.atheris_run $$target .fuzz/corpus-$$target \
	    -max_total_time=$(FUZZ_SECONDS) -print_final_stats=1 -timeout=60; done
	end=$$(($$(date +%s) + $(FUZZ_SECONDS))); while [ $$(date +%s) -lt $$end ]; do \
	  $(BIN)/pytest -m e2e --timeout 0 tests/fuzz; done

.PHONY: check
check: $(BACKEND_STAMP) lint ## Format, lint, types, imports, Docker files, unit tests
	$(BIN)/pytest -m "not e2e" -n 2 --dist worksteal

.PHONY: faults
faults: $(BACKEND_STAMP) ## Let each statement, file operation and call fail in each way: hours
	RALIS_STRIDE=1 $(BIN)/pytest -m e2e --timeout 0 \
	  tests/online/worker/test_two_workers.py tests/online/worker/test_tool_reader.py
	$(BIN)/python -u -m tests.faults --out benchmarks/results/faults.json $(OPTIONS)

.PHONY: long
long: setup ## What make test leaves out: a demo in place, kills in mid-training, whole sweeps
	RALIS_STRIDE=1 $(BIN)/pytest -m 'long or sweep' --timeout 0 \
	  $$(grep -rl --include='test_*.py' 'mark\.\(long\|sweep\)' tests | sort)

.PHONY: chaos
chaos: setup ## Kill the backend KILLS times (50) beside a failing Label Studio
	RALIS_CHAOS_KILLS=$(or $(KILLS),50) RALIS_CHAOS_OUT=benchmarks/results/chaos.json \
	  $(BIN)/pytest -s -m e2e tests/e2e/test_chaos.py

.PHONY: load
load: setup ## What 100 annotators send for ten minutes, while the worker trains
	$(BIN)/python benchmarks/load.py --out benchmarks/results/load.json $(OPTIONS)

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
	$(PYTHON) .ci/sbom.py requirements.txt docs/sbom.cdx.json

# Advisories come from the registry and from osv.dev: without a network there are none to be had.
.PHONY: audit
audit: $(AUDIT_STAMP) ## Look up what both locks name in the known advisories
	$(PYTHON) .ci/audit.py .tools/bin/pip-audit requirements.txt requirements-label-studio.txt

.PHONY: clean
clean: ## Remove the environments and what tools cached; labels and weights stay
	rm -rf .venv .venv-label-studio .venv-gpu $(FUZZ) .fuzz .gpu-wheels .tools build dist *.egg-info
	rm -rf .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Environments. A stamp is newer than what it was installed from.

$(UV_STAMP):
	test -x .tools/bin/pip || $(PYTHON) -m venv .tools
	.tools/bin/pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	rm -f .tools/.uv-*
	touch $@

$(AUDIT_STAMP): | $(UV_STAMP)
	.tools/bin/pip install --quiet --disable-pip-version-check pip-audit==$(PIP_AUDIT_VERSION)
	touch $@

$(BACKEND_STAMP): requirements.txt pyproject.toml | $(UV_STAMP)
	@echo 'Installing the backend in .venv: some gigabytes, minutes at the first time …'
	test -x .venv/bin/python || $(UV) venv --quiet --python 3.11 .venv
	# compiled at once: else each of the first processes compiles torch for itself
	$(UV) pip sync --quiet --compile-bytecode --require-hashes --python .venv requirements.txt
	$(UV) pip install --quiet --python .venv --no-deps --no-build-isolation --editable .
	touch $@

$(FUZZ)/.installed: Makefile | $(UV_STAMP)
	test -x $(FUZZ)/bin/python || $(UV) venv --quiet --python 3.11 $(FUZZ)
	$(UV) pip install --quiet --python $(FUZZ) atheris==$(ATHERIS_VERSION)
	touch $@

$(LABEL_STUDIO_STAMP): requirements-label-studio.txt | $(UV_STAMP)
	@echo 'Installing Label Studio in .venv-label-studio …'
	test -x .venv-label-studio/bin/python || $(UV) venv --quiet --python 3.11 .venv-label-studio
	$(UV) pip sync --quiet --require-hashes --python .venv-label-studio requirements-label-studio.txt
	touch $@
