# Thin: each target is a command or two. `make help` lists them.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
BIN := .venv/bin
PYTEST_FLAGS ?=
UP_FLAGS ?=
URL ?= $(or $(PENSTOCK_URL),http://127.0.0.1:8000)
BENCH_FLAGS ?=
METERING_FLAGS ?=
CHECK_FLAGS ?=
export PYTHON

# What `make test` runs: engines, which take longest, beside units in slices, of which the last is
# all that no other one has (scripts/test_parts.py); then the platform by itself.
ENGINES = engines -m "engine and not bench" --ignore tests/platform $(PYTEST_FLAGS)
SLICES = serving/gateway serving/controller loadtests models
SLICED = $(foreach one,$(SLICES),$(notdir $(one)) -m "not engine" tests/$(one) $(PYTEST_FLAGS) +)
OTHERS = others -m "not engine" $(SLICES:%=--ignore tests/%) $(PYTEST_FLAGS)
PLATFORM = platform -m "engine and not bench" tests/platform $(PYTEST_FLAGS)

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: setup
setup: ## install everything into .venv; does nothing when it is there
	@scripts/setup.sh

.PHONY: up
up: setup ## set up, then serve at http://127.0.0.1:8000 until Ctrl-C (UP_FLAGS="--port 9000")
	@$(BIN)/penstock up $(UP_FLAGS)

.PHONY: down
down: setup ## stop what `make up` started, from another terminal
	@$(BIN)/penstock down

.PHONY: test
test: setup ## all tests: units beside engines, then the platform (PYTEST_FLAGS="-k name")
	@status=0; \
	$(BIN)/python scripts/test_parts.py $(ENGINES) + $(SLICED) $(OTHERS) || status=1; \
	scripts/test_part.sh $(PLATFORM) || status=1; \
	exit $$status

.PHONY: test-units
test-units: setup ## tests without real engines (minutes)
	scripts/test_part.sh units -m "not engine" $(PYTEST_FLAGS)

.PHONY: test-engines
test-engines: setup ## tests with real vLLM and Ray, but for those of the whole platform
	scripts/test_part.sh $(ENGINES)

.PHONY: test-platform
test-platform: setup ## the tests of the whole platform, with real vLLM under real Ray
	scripts/test_part.sh $(PLATFORM)

.PHONY: test-long
test-long: setup ## long forms: chaos, ten rollouts, an upgrade, each question, benches' whole way
	LONG_TESTS=1 $(BIN)/python -m pytest -m engine tests/platform/test_chaos.py \
	tests/platform/test_rollouts.py tests/platform/test_guide.py tests/platform/test_gang.py \
	tests/serving/engine/test_ranks.py tests/cluster/test_upgrade.py tests/scripts $(PYTEST_FLAGS)

.PHONY: test-metering
test-metering: setup ## kill -9 of everything, thrice on each database; then all counts agree
	$(BIN)/python -m tests.metering.run --real $(METERING_FLAGS)

.PHONY: test-outage
test-outage: setup ## PostgreSQL away for ten minutes under load (METERING_FLAGS="--away-s 30")
	$(BIN)/python -m tests.metering.outage $(METERING_FLAGS)

.PHONY: test-memory
test-memory: setup ## memory over 200,000 metered requests, 10 min (METERING_FLAGS="--requests 50000")
	$(BIN)/python -m tests.metering.memory $(METERING_FLAGS)

.PHONY: test-limits
test-limits: setup ## 50 keys at twice their limit, two gateways (LIMITS_FLAGS="--store redis")
	$(BIN)/python -m tests.metering.limits $(LIMITS_FLAGS)

.PHONY: fuzz
fuzz: setup ## 50,000 odd requests against a gateway (FUZZ_REQUESTS=n FUZZ_SEED=n)
	FUZZ_REQUESTS=$${FUZZ_REQUESTS:-50000} FUZZ_SEED=$${FUZZ_SEED:-$$RANDOM} \
	$(BIN)/python -m pytest tests/serving/gateway/test_fuzz.py $(PYTEST_FLAGS)

.PHONY: check
check: setup ## ruff, mypy --strict, import-linter
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

.PHONY: fix
fix: setup ## what ruff can mend by itself
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

.PHONY: docs
docs: setup ## write docs/reference and the chart's values from the code
	$(BIN)/python scripts/reference.py
	PYTHONPATH=. $(BIN)/python scripts/chart.py
	$(BIN)/python scripts/dashboards.py

.PHONY: bench
bench: setup ## load test of what serves at URL, with PENSTOCK_API_KEY (BENCH_FLAGS="--help")
	$(BIN)/penstock bench $(URL) $(BENCH_FLAGS)

.PHONY: bench-gateway
bench-gateway: setup ## CPU a chunk and delays of the gateway, nginx, a Rust router and LiteLLM
	$(BIN)/python -m scripts.bench_gateway $(BENCH_FLAGS)

.PHONY: bench-overhead
bench-overhead: setup ## the platform against its bare engine (BENCH_FLAGS="--quick"; minutes)
	$(BIN)/python scripts/bench_overhead.py $(BENCH_FLAGS)

.PHONY: bench-cold-start
bench-cold-start: setup ## sleeping models to their first token, 8 min (BENCH_FLAGS="--parts wakes")
	$(BIN)/python -m scripts.bench_cold_start $(BENCH_FLAGS)

.PHONY: bench-autoscale
bench-autoscale: setup ## bursts from zero to two engines and back, and 10 min of steady load, live
	$(BIN)/python scripts/bench_autoscale.py $(BENCH_FLAGS)

.PHONY: bench-metering
bench-metering: setup ## what metering costs a gateway and the database
	$(BIN)/python scripts/bench_metering.py $(BENCH_FLAGS)

.PHONY: bench-calibrate
bench-calibrate: setup ## the simulator against the live platform on ten minutes (BENCH_FLAGS="--slice-s 120")
	$(BIN)/python scripts/bench_calibrate.py $(BENCH_FLAGS)

.PHONY: bench-truth
bench-truth: setup ## how exact the load tests measure, beside vLLM's own client
	$(BIN)/python -m loadtests.truth $(BENCH_FLAGS)

.PHONY: bench-agreement
bench-agreement: setup ## the load tests' figures beside vLLM's client and guidellm, on a real engine
	$(BIN)/python scripts/bench_agreement.py $(BENCH_FLAGS)

.PHONY: bench-affinity
bench-affinity: setup ## prefix-cache hits and balance of four fake engines, simulated (seconds; BENCH_FLAGS=--live: two real ones, minutes)
	$(BIN)/python -m scripts.bench_affinity $(BENCH_FLAGS)

.PHONY: bench-fairness
bench-fairness: setup ## a tenant floods: what the other one notices, simulated (a minute)
	$(BIN)/python scripts/bench_fairness.py $(BENCH_FLAGS)

.PHONY: check-machine
check-machine: setup ## the script for GPU machines with tiny models on the CPU (CHECK_FLAGS="--parts bare")
	loadtests/gpu/check.sh --installed --python $(BIN)/python --work .penstock/check --cpu --quick $(CHECK_FLAGS)

.PHONY: clean
clean: ## remove .venv, caches and the local platform's data (stops it first)
	@if [ -x $(BIN)/penstock ]; then $(BIN)/penstock down; fi
	rm -rf .venv .penstock .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
