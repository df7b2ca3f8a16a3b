# Two commands on a fresh machine: `make start` runs a whole PKI under ./var, `make test` runs every test.
# PYTHON=/path/to/python3 takes another interpreter than the first python3 on PATH that is 3.11 or newer.

PY := .venv/bin/python
ARGS ?=
BENCHES ?= issuance keys signer rest store saturation crl ocsp start full replicas inventory acme acme_full compromise fuzz

.PHONY: help start setup test test-kill check invariants bench fuzz offline-bundle lock clean
.NOTPARALLEL:
.DELETE_ON_ERROR:

help:
	@echo 'make start   set up and run a PKI under ./var (more options: make start ARGS="--host NAME")'
	@echo 'make setup   set up only: .venv with what the tests and checks need'
	@echo 'make test    install what the tests need and run them all (ARGS="-k NAME" for some)'
	@echo 'make test-kill N=2000  kill serving installations so many times (SEED=, FROM=)'
	@echo 'make check   format, lint, types, the house rules: less than a minute'
	@echo 'make invariants  every invariant with the tests that prove it; fails where one has none'
	@echo 'make bench   the benchmarks, an hour (ARGS=--short: a few minutes; BENCHES="crl ocsp": some)'
	@echo 'make fuzz    hostile bytes for every parser, SECONDS=20 each (TARGETS="csr json_" for some)'
	@echo 'make offline-bundle  one signed archive for an air-gapped machine, in dist/ (BUNDLE_KEY=FILE signs it)'
	@echo 'make lock    write the lock files again (UPGRADE=1 takes newer versions)'
	@echo 'make clean   remove what make made; ./var stays'

start: .venv/.run
	exec .venv/bin/rootward quickstart --home ./var $(ARGS)

setup: .venv/.test

# Three at a time on two processors: much of the time a test waits for processes of its own.
test: .venv/.test
	@tools/debian-packages.sh
	@$(MAKE) --no-print-directory .node/.made
	@made=$$(tools/scratch.sh) && trap 'rm -rf "$$made"' EXIT && trap 'exit 130' INT TERM && \
	TMPDIR="$$made" $(PY) -m pytest --numprocesses 3 --dist loadfile --no-loadscope-reorder --basetemp "$$made/t" $(ARGS)

# Half an hour and more: N kills on both stores; SEED and FROM play the same again, from a later episode on.
test-kill: .venv/.test
	@tools/debian-packages.sh
	$(PY) -m tests.faults.loop --kills $(or $(N),2000) --seed $(or $(SEED),1) --from $(or $(FROM),0)

check: .venv/.test
	$(PY) -m ruff format --check .
	$(PY) -m ruff check .
	$(PY) -m mypy --strict src
	$(PY) -m pytest --quiet tests/unit/test_arrows.py tests/unit/test_house.py

invariants: .venv/.test
	@$(PY) tools/invariants.py

bench: .venv/.test
	@made=$$(mktemp -d) && trap 'rm -rf "$$made"' EXIT && export ROOTWARD_BENCH="$${ROOTWARD_BENCH:-$$made}" && \
	for name in $(BENCHES); do timeout 900 $(PY) -m bench.$$name $(ARGS) || exit 1; done

# A target that finds a crasher leaves it in .fuzz/ and fails; inputs that reach new code are gathered there too.
SECONDS ?= 20
TARGETS ?= csr ocsp_request import_ json_ jws http_answer acme_certificate dns_answer share
fuzz: .venv/.fuzz
	@set -e; for name in $(TARGETS); do $(PY) -m tests.fuzz.run $$name $(SECONDS); done

# Wheels come from where pip is configured to look, and stay in .bundle/ until requirements/offline.txt changes.
offline-bundle: .venv/.run
	$(PY) tools/offline_bundle.py --out dist $(if $(BUNDLE_KEY),--key $(BUNDLE_KEY))

# uv keeps the versions that are in the files already, unless told to upgrade.
COMPILE = .venv/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--custom-compile-command 'make lock' $(if $(UPGRADE),--upgrade)

lock: .venv/.lock
	$(COMPILE) pyproject.toml --group build --output-file requirements/run.txt
	$(COMPILE) pyproject.toml --group build --group test --constraint requirements/run.txt --output-file requirements/test.txt
	$(COMPILE) pyproject.toml --extra pkcs11 --group offline --constraint requirements/test.txt --output-file requirements/offline.txt
	$(COMPILE) --group fuzz --output-file requirements/fuzz.txt
	$(COMPILE) --group lock --output-file requirements/lock.txt

clean:
	rm -rf .venv .bundle .fuzz dist build .node .mypy_cache .ruff_cache .pytest_cache .hypothesis .schemathesis
	find src tests $(wildcard bench) -name __pycache__ -type d -prune -exec rm -rf {} +

# Stamp files: a second `make start` installs nothing.

# The interpreter's link is a missing file once the Python behind it is gone; .tree tells a tree that was moved or copied.
ifneq ($(shell cat .venv/.tree 2>/dev/null),$(CURDIR))
.PHONY: .venv/bin/python
endif

.venv/bin/python:
	@tools/bootstrap.sh venv

.venv/.run: .venv/bin/python requirements/run.txt pyproject.toml
	@tools/bootstrap.sh install requirements/run.txt
	@touch $@

.venv/.test: .venv/.run requirements/test.txt
	@tools/bootstrap.sh install requirements/test.txt
	@touch $@

# `npm ci` takes the versions and checks the hashes of package-lock.json; nothing that came with a package is run.
.node/.made: tests/clients/node/package.json tests/clients/node/package-lock.json
	@echo 'rootward: installing tests/clients/node/package-lock.json'
	@mkdir -p .node && cp $^ .node
	@npm ci --silent --ignore-scripts --no-audit --no-fund --prefix .node
	@touch $@

.venv/.fuzz: .venv/.run requirements/fuzz.txt
	@tools/bootstrap.sh install requirements/fuzz.txt
	@touch $@

.venv/.lock: .venv/.run requirements/lock.txt
	@tools/bootstrap.sh install requirements/lock.txt
	@touch $@
