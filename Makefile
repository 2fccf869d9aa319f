# Every target does its own set-up: system packages, .venv, libraries (./setup; a second run finds all done).
# `make help` tells the targets. ARGS="…" is passed on to pytest, the demo and the benchmark.

SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help setup setup-vm setup-test demo demo-vm image test unit root-test test-vm soak fuzz lint bench vectors man lock clean

PYTHON := .venv/bin/python
PYTEST := $(PYTHON) -m pytest
ARGS ?=

# What needs root is run by sudo where we are not root. Its caches stay out of the tree, so that no file of root's is left.
ifeq ($(shell id -u),0)
AS_ROOT :=
else
AS_ROOT := sudo --preserve-env=CI,COWORKD_REQUIRE_CAPABILITIES,PYTHONDONTWRITEBYTECODE \
	env HYPOTHESIS_STORAGE_DIRECTORY=/var/tmp/coworkd-hypothesis-root
ROOT_PYTEST_OPTIONS := -p no:cacheprovider
export PYTHONDONTWRITEBYTECODE := 1
endif

help: ## tell every target
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## install what coworkd needs (system packages, .venv); asks nothing
	@./setup run

setup-vm:
	@./setup vm

setup-test:
	@./setup test

demo: setup root-or-sudo ## run the main job on real input: a session, a command in its sandbox, what is refused, the audit log
	@$(AS_ROOT) $(PYTHON) tests/demo/run_demo.py $(ARGS)

demo-vm: setup-vm root-or-sudo ## build the guest, boot it under QEMU and run the same demo in it
	@$(AS_ROOT) $(PYTHON) tests/demo/run_demo.py --vm $(ARGS)

image: setup-vm root-or-sudo ## build the guest's root file system, kernel and initrd into build/image/ (ARGS=--help tells how)
	@$(AS_ROOT) rootfs-build/build $(ARGS)

test: setup-test root-or-sudo ## run every test (needs root for the sandboxes; pytest's closing line comes last)
	@$(AS_ROOT) $(PYTEST) $(ROOT_PYTEST_OPTIONS) tests $(ARGS)

unit: setup-test ## run the tests that need no root: units and the house's rules
	@$(PYTEST) tests/unit tests/test_house.py tests/test_capabilities.py $(ARGS)

root-test: setup-test root-or-sudo ## run the tests with real sandboxes, namespaces and mounts
	@$(AS_ROOT) $(PYTEST) $(ROOT_PYTEST_OPTIONS) tests/root $(ARGS)

test-vm: setup-test root-or-sudo ## run the tests in booted guests, whose images it builds once and keeps
	@$(AS_ROOT) $(PYTEST) $(ROOT_PYTEST_OPTIONS) tests/vm $(ARGS)

soak: setup-test root-or-sudo ## half an hour of load with faults, 10,000 starts, 500 rounds of kills, 200 power cuts (docs/testing.md)
	@$(AS_ROOT) env COWORKD_SOAK_MINUTES=$${COWORKD_SOAK_MINUTES:-30} $(PYTHON) -m tests.soak
	@$(AS_ROOT) env COWORKD_STARTS=$${COWORKD_STARTS:-10000} $(PYTHON) -m tests.soak.starts
	@$(AS_ROOT) env COWORKD_KILL_ROUNDS=$${COWORKD_KILL_ROUNDS:-500} $(PYTEST) $(ROOT_PYTEST_OPTIONS) tests/root/test_kills.py
	@$(AS_ROOT) env COWORKD_POWER_CUTS=$${COWORKD_POWER_CUTS:-200} COWORKD_POWER_SEED=$${COWORKD_POWER_SEED:-0} \
	    $(PYTEST) $(ROOT_PYTEST_OPTIONS) tests/root/test_power_cut.py $(ARGS)

fuzz: setup-test root-or-sudo ## ten minutes of made-up input and of models (COWORKD_FUZZ_SECONDS)
	@$(AS_ROOT) env COWORKD_FUZZ_SECONDS=$${COWORKD_FUZZ_SECONDS:-600} $(PYTHON) -m tests.fuzz $(ARGS)

lint: setup-test ## ruff, mypy --strict and the import contracts
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .
	@.venv/bin/mypy
	@.venv/bin/lint-imports --no-logo --no-cache

bench: setup-test root-or-sudo ## measure ours beside raw bubblewrap and what else is installed; writes docs/benchmarks.md
	@$(AS_ROOT) $(PYTHON) -m tests.bench --write $(ARGS)

vectors: setup-test ## write the protocol's test vectors anew (tests/vectors/)
	@$(PYTHON) tests/vectors/make_vectors.py

man: setup-test ## check the man pages and render them to build/man/
	@mkdir -p build/man
	@for page in docs/man/*.[1-9]; do \
	    mandoc -T lint -W warning "$$page" && mandoc -T utf8 "$$page" >"build/man/$${page##*/}.txt" || exit 1; \
	done; ls build/man

lock: ## write requirements/*.lock anew from pyproject.toml (ARGS=--upgrade takes newer versions)
	@requirements/lock $(ARGS)

clean: ## remove .venv, caches and build output
	rm -rf .venv .setup.lock build dist ./*.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find coworkd tests -name __pycache__ -type d -prune -exec rm -rf {} +

.PHONY: root-or-sudo
root-or-sudo:
	@[ "$$(id -u)" -eq 0 ] || command -v sudo >/dev/null || { \
	    echo "This needs root (namespaces, mounts, other users), and there is no sudo here: run it as root." >&2; exit 1; }
