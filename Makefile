# make help lists the targets. The only thing needed beforehand is Python 3.11 or later.
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
SHELL := /bin/bash

# Else pyright asks the network for its newest version.
export PYRIGHT_PYTHON_IGNORE_WARNINGS := 1

BIN := .venv/bin
STAMP := .venv/.setup-stamp
LOCK := uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	--extra local --extra ray --extra team --extra export --extra dev -o requirements.lock pyproject.toml

SERVER_LOCK := uv pip compile --universal --python-version 3.12 --generate-hashes --no-emit-index-url \
	-c requirements.lock -o infra/server.lock infra/server.in

.PHONY: help setup demo test test-slow test-browser lint format bench docs lock infra-check

help: ## list the targets
	@grep -E '^[a-z-]+:.*## ' Makefile | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 16

setup: $(STAMP) ## make .venv with everything that requirements.lock names

$(STAMP): requirements.lock pyproject.toml
	@set -e; \
	python=; \
	for name in $(PYTHON) python3 python3.13 python3.12 python3.11; do \
		if "$$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then python=$$name; break; fi; \
	done; \
	if [ -z "$$python" ]; then \
		echo "error: no Python 3.11 or later on PATH. Install one, or name it: make setup PYTHON=/path/to/python3" >&2; exit 1; \
	fi; \
	uv=$$(command -v uv || true); \
	if [ -n "$$uv" ]; then \
		[ -x $(BIN)/python ] || "$$uv" venv --quiet --python "$$(command -v "$$python")" .venv; \
	else \
		if [ ! -x $(BIN)/pip ]; then \
			if ! "$$python" -c 'import ensurepip' 2>/dev/null; then \
				echo "error: $$python cannot make environments. On Debian or Ubuntu: apt-get install python3-venv" >&2; exit 1; \
			fi; \
			"$$python" -m venv .venv; \
		fi; \
		uv=$(BIN)/uv; \
		[ -x $$uv ] || $(BIN)/python -m pip install --quiet --disable-pip-version-check \
			"$$(grep -oE -m1 '^uv==[0-9.]+' requirements.lock)"; \
	fi; \
	echo "setting up .venv from requirements.lock"; \
	"$$uv" pip install --quiet --python $(BIN)/python --compile-bytecode --require-hashes -r requirements.lock; \
	"$$uv" pip install --quiet --python $(BIN)/python --no-build-isolation --no-deps -e .; \
	touch $@

demo: setup ## the whole loop on made scenes: services, data, two trainings, the gate
	$(BIN)/semivl demo

test: setup ## all tests but the slow ones and those in a browser; two processes, each with services of its own
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not slow and not browser"

test-slow: setup ## the tests that take minutes; SEMIVL_REAL_DATA adds real photos
	$(BIN)/python -m pytest -m "slow and not browser"

test-browser: setup ## the real pages in headless Chromium
	@chromium=$${SEMIVL_CHROMIUM:-$$(command -v chromium || command -v chromium-browser || command -v google-chrome || true)}; \
	if [ ! -x "$$chromium" ]; then \
		echo "error: no Chromium (looked for $${chromium:-chromium, chromium-browser, google-chrome})." >&2; \
		echo "Install it (Debian: apt-get install chromium), or name it: SEMIVL_CHROMIUM=/path/to/chrome" >&2; exit 1; \
	fi; \
	SEMIVL_CHROMIUM="$$chromium" $(BIN)/python -m pytest -m browser

lint: setup ## style, types, layers, Dockerfile, known holes in packages
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/pyright
	$(BIN)/lint-imports
	$(BIN)/hadolint Dockerfile
	$(BIN)/python .ci/audit.py

format: setup ## mend style where that is safe
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

bench: setup ## the timed comparisons that the README's numbers come from
	$(BIN)/python -m benchmarks

docs: setup ## check that links lead somewhere and that every code is explained
	$(BIN)/python -m pytest -q tests/test_docs.py

infra-check: setup ## judge infra/ with checkov, kubernetes-validate, terraform and others, in an environment of their own
	$(BIN)/uv venv --quiet --allow-existing --python $(BIN)/python .semivl/infra-tools
	$(BIN)/uv pip install --quiet --python .semivl/infra-tools/bin/python -r infra/tools.txt
	.semivl/infra-tools/bin/python infra/check.py

lock: setup ## remake requirements.lock from pyproject.toml, and the servers' lock with the same versions
	$(BIN)/$(LOCK)
	$(BIN)/$(SERVER_LOCK)
