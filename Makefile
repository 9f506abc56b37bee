PYTHON ?= python3
PORT ?= 4000
BIN = .venv/bin

# A newcomer runs these targets. When something is missing, say so in one line.
.PHONY: help
help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /make \1\t/' | expand -t 24

.PHONY: run
run: .venv/running  ## serve http://localhost:4000/, counting in ./data (PORT=… for another port)
	@exec $(BIN)/python server.py --port=$(PORT) --redis-url=embedded:data

# The files of the program. Tests, the audit and the benchmark are not among them.
PROGRAM = server.py limits.py openapi.yaml config counter embedded handlers http1 process replicas watch static templates
DIST ?= dist

.PHONY: pyz
pyz: .venv/installed  ## write dist/friendlyhello.pyz: one file that needs nothing but Python
	rm -rf $(DIST)/parts && mkdir -p $(DIST)/parts
	$(BIN)/$(PIP_INSTALL) requirements-run.txt --no-compile --target=$(DIST)/parts
	cp -R $(PROGRAM) deploy/pyz.py $(DIST)/parts
	find $(DIST)/parts -name __pycache__ -prune -exec rm -r {} +
	$(BIN)/python deploy/pyz.py >$(DIST)/parts/MADE_FOR
	git rev-parse HEAD >$(DIST)/parts/COMMIT 2>/dev/null || true
	$(BIN)/shiv --reproducible --entry-point=pyz:main --site-packages=$(DIST)/parts \
	  --output-file=$(DIST)/friendlyhello.pyz
	rm -r $(DIST)/parts

# Tests that have targets of their own, because they take long or need more than Python.
APART = bench/test_bench.py browser container faults stores deploy/test_gateway.py watch/test_otel.py watch/test_promtool.py

# Most tests wait most of the time, so there are more processes than cores.
WORKERS = 6

.PHONY: test
test: .venv/installed  ## run the tests of every room, against a real Valkey, in a minute
	$(BIN)/pytest -n $(WORKERS) -m 'not slow' $(APART:%=--ignore=tests/%)

.PHONY: test-slow
test-slow: .venv/installed  ## run the slow tests of these rooms
	$(BIN)/pytest -n $(WORKERS) -m slow $(APART:%=--ignore=tests/%)

.PHONY: test-all
test-all: test test-slow test-faults test-otel  ## run all tests that need only Python

.PHONY: coverage
coverage: .venv/installed  ## run the tests again, and list the lines that no test runs; takes twice as long
	$(BIN)/pytest -n 3 $(APART:%=--ignore=tests/%) --cov --cov-report=term

SOAK ?= 0.2

.PHONY: test-faults
test-faults: .venv/installed  ## test the server while Redis, the network and clients fail (SOAK=10 minutes)
	$(BIN)/pytest -n 4 --dist=worksteal tests/faults --soak=$(SOAK)

.PHONY: test-browser
test-browser: .venv/installed  ## look at /live with Chromium, behind nginx too; needs both and npm, writes screenshots/
	$(BIN)/pytest -n 3 --dist=worksteal tests/browser

.PHONY: pictures
pictures: .venv/installed  ## write docs/live.png and docs/live.webp with Chromium, in 6 minutes
	$(BIN)/python -m tests.browser.pictures

.PHONY: test-container
test-container: .venv/installed  ## build, run, stop, scale and update the image, on a Docker Engine
	$(BIN)/pytest -n 3 --dist=loadfile tests/container --timeout=300

.PHONY: test-stores
test-stores: .venv/installed  ## count in Redis 6 to 8 and Valkey, with proxies, TLS and access lists, on a Docker Engine
	$(BIN)/pytest tests/stores --timeout=300

.PHONY: bench
bench: bench/.venv/installed  ## measure the server beside its peers, in 30 minutes (BENCH='--rounds 1')
	@bench/.venv/bin/python -m bench $(BENCH)

.PHONY: bench-page
bench-page: .venv/installed  ## measure a page without the system, in 20 seconds
	@$(BIN)/python -m bench.page

.PHONY: test-bench
test-bench: bench/.venv/installed  ## test the benchmark, which needs wrk and h2load
	$(BIN)/pytest tests/bench

.PHONY: test-promtool
test-promtool: .venv/installed  ## check metrics and alerts with Prometheus's own tool
	$(BIN)/pytest tests/watch/test_promtool.py

.PHONY: test-gateway
test-gateway: .venv/installed  ## check the routes and rollouts with models from npm
	$(BIN)/pytest tests/deploy/test_gateway.py

.PHONY: test-otel
test-otel: .venv/installed .venv-otel/installed  ## test the traces, with OpenTelemetry's own packages
	$(BIN)/pytest tests/watch/test_otel.py

.PHONY: profile
profile: bench/.venv/installed  ## draw bench/profile.svg, a flame graph of the server under load
	@bench/.venv/bin/python -m bench profile

MINUTES ?= 20

.PHONY: fuzz
fuzz: .venv/installed  ## send the HTTP server random input (MINUTES=20)
	$(BIN)/python -m tests.fuzz.test_fuzz $(MINUTES)

SAMPLE ?= 200
SEED ?= 0

.PHONY: mutants
mutants: .venv/installed  ## break the program in random places, and list what no test notices (SAMPLE=200 SEED=0)
	$(BIN)/python -m tests.mutants --number=$(SAMPLE) --seed=$(SEED)

.PHONY: lint
lint: .venv/installed  ## check format, style, types, the direction of imports, and the workflows
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*
	$(BIN)/check-jsonschema --builtin-schema vendor.dependabot .github/dependabot.yml
	$(BIN)/zizmor --quiet --offline --persona=pedantic .github

.PHONY: format
format: .venv/installed  ## format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

LOCK = $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-strip-extras --no-emit-index-url --no-emit-find-links --no-annotate --custom-compile-command 'make lock'
NPM_LOCK = npm update --package-lock-only --no-audit --no-fund

.PHONY: lock
lock: .venv/installed  ## write the lock files from *requirements*.in
	$(LOCK) --upgrade requirements.in -o requirements.txt
	$(LOCK) --upgrade -c requirements.txt requirements-run.in -o requirements-run.txt
	$(LOCK) --upgrade -c requirements-run.txt requirements-dev.in -o requirements-dev.txt
	$(LOCK) --upgrade -c requirements.txt requirements-otel.in -o requirements-otel.txt
	$(LOCK) --upgrade -c requirements-dev.txt bench/requirements.in -o bench/requirements.txt
	cd bench/peers/node && $(NPM_LOCK)
	cd tests/deploy/gateway && $(NPM_LOCK)
	cd tests/browser/validate && $(NPM_LOCK)

.PHONY: stamp
stamp: .venv/installed  ## copy the version, the alerts and the dashboard into files that need them
	version=$$($(BIN)/python server.py --version | cut -d' ' -f2) && sed -i -E \
	  -e "s/^( +org.opencontainers.image.version=).*/\1\"$$version\"/" \
	  -e "s/^( +newTag: ).*/\1$$version/" -e "s/(io\/version: )[0-9.]+/\1$$version/" Dockerfile deploy/kubernetes/kustomization.yaml
	rules=deploy/kubernetes/components/monitor/rules.yaml && sed -i '/^spec:/q' $$rules \
	  && sed -n '/^groups:/,$$p' deploy/alerts.yaml | sed 's/^./  &/' >>$$rules
	cp deploy/grafana.json deploy/kubernetes/components/monitor/friendlyhello.json

.PHONY: clean
clean:  ## remove what the other targets made, except ./data
	rm -rf .venv .venv-otel .pytest_cache .mypy_cache .ruff_cache .coverage .coverage.*
	rm -rf dist screenshots bench/.venv bench/peers/node/node_modules bench/peers/*/hello bench/profile.svg
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

PIP_INSTALL = pip install --quiet --disable-pip-version-check --require-hashes -r

.venv/running: requirements-run.txt
	@$(PYTHON) -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	  || { echo "friendlyhello needs Python 3.11 or newer with venv; $(PYTHON) is not one (PYTHON=… names another)"; exit 1; }
	$(PYTHON) -m venv --clear .venv
	$(BIN)/$(PIP_INSTALL) requirements-run.txt
	@touch $@

.venv/installed: .venv/running requirements-dev.txt
	$(BIN)/$(PIP_INSTALL) requirements-dev.txt
	@touch $@

bench/.venv/installed: .venv/installed bench/requirements.txt
	$(BIN)/python -m venv --clear bench/.venv
	bench/.venv/bin/$(PIP_INSTALL) bench/requirements.txt
	@touch $@

.venv-otel/installed: .venv/installed requirements-otel.txt
	$(BIN)/python -m venv --clear .venv-otel
	.venv-otel/bin/$(PIP_INSTALL) requirements-otel.txt
	@touch $@
