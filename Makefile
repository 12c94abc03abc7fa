# One command for each thing that one does with this checkout. Each does its own set-up first (tools/setup), which is quick
# when there is nothing to do.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help setup setup-test demo up test crash lint types bench docs clean
BIN := .venv/bin
SCRIPTS := tools/demo tools/draw-flows tools/schema-revision

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-7s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup:
	@tools/setup

setup-test:
	@tools/setup --test

demo: setup ## build one real VM and show it (KEEP=1 leaves everything running)
	@$(BIN)/python tools/demo

up: setup ## run the service in the foreground until Ctrl-C (CONDUCTORS=n for several conductors)
	@exec $(BIN)/hullwright up

test: setup-test ## lint, types and the whole test suite (PYTEST="tests/cli -x" for a part of it)
	@$(MAKE) --no-print-directory run-lint run-types
	@$(BIN)/python -m pytest $(PYTEST)

crash: setup-test ## kill and hinder processes at every boundary of every operation; writes docs/reliability.md (CRASH="--scenario build")
	@$(BIN)/python tools/crash $(or $(CRASH),--write)

lint: setup run-lint ## ruff, and the import contracts of the rooms

types: setup run-types ## mypy, strict

.PHONY: run-lint run-types
run-lint:
	@$(BIN)/ruff check . $(SCRIPTS) tools/crash tools/record-history
	@$(BIN)/ruff format --check --quiet . $(SCRIPTS) tools/crash tools/record-history
	@$(BIN)/lint-imports --no-cache >var/log/lint-imports.log || { cat var/log/lint-imports.log; exit 1; }
	@tail -n 1 var/log/lint-imports.log

run-types:
	@$(BIN)/mypy
	@$(BIN)/mypy --scripts-are-modules $(SCRIPTS) benchmarks

bench: setup ## builds per second, CPU and memory per build, on fake hosts (BENCH="-n 500 -c 8")
	@$(BIN)/python benchmarks/builds.py $(BENCH)

docs: setup ## what is generated: samples of configuration and policy, drawings of the flows
	@$(BIN)/oslo-config-generator --config-file etc/hullwright-config-generator.conf
	@$(BIN)/oslopolicy-sample-generator --config-file etc/hullwright-policy-generator.conf
	@$(BIN)/python tools/draw-flows docs/flows.md

clean: ## stop our own libvirtd with its guests; remove what demo, up and test left under var/, and caches
	@if [ -d var/libvirt ]; then tools/libvirtd stop --purge; fi
	@rm -rf var build .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	@find src tests -name __pycache__ -prune -exec rm -rf {} +
