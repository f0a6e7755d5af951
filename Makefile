# Sternpost's verbs. `make` alone lists them. Needs Python 3.11 or newer and make; everything else it gets itself.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
CACHE := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/sternpost
IN := .venv/bin
STAMP := .venv/.synced
T ?=

.PHONY: help
help: ## list the verbs
	@awk -F ':.*## ' '/^[a-z][a-z-]*:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: setup
setup: ## make the environment (.venv) as uv.lock says
	@PYTHON="$(PYTHON)" CACHE="$(CACHE)" tools/setup

# The environment is made anew when the lock or a package's metadata changed, and only then.
$(STAMP): uv.lock pyproject.toml $(wildcard libs/*/pyproject.toml services/*/pyproject.toml) operator/pyproject.toml cli/pyproject.toml tools/setup
	@PYTHON="$(PYTHON)" CACHE="$(CACHE)" tools/setup

.PHONY: tools
tools: $(STAMP) ## get the broker and, where possible, the mail clients that tests use
	@CACHE="$(CACHE)" $(IN)/python tools/fetch.py

.PHONY: run
run: $(STAMP) ## run the platform with examples/quickstart until Ctrl-C
	@exec $(IN)/python -m sternpost_cli up --manifests examples/quickstart

.PHONY: test
test: $(STAMP) tools ## run the tests; one of them: make test T=tests/unit/mail
	@$(IN)/python -m pytest $(T)

.PHONY: lint
lint: $(STAMP) ## check style, formatting, types and the arrows between packages
	@$(IN)/ruff check .
	@$(IN)/ruff format --check .
	@$(IN)/mypy .
	@PYTHONPATH=. $(IN)/lint-imports

.PHONY: proto
proto: $(STAMP) ## generate libs/wire from proto/
	@$(IN)/python tools/generate_proto.py

.PHONY: docs
docs: $(STAMP) ## write the documents that come from code
	@$(IN)/python tools/generate_docs.py

.PHONY: verify
verify: $(STAMP) ## check that generated code and documents are fresh
	@$(IN)/python tools/generate_proto.py --check
	@$(IN)/python tools/generate_docs.py --check

.PHONY: bench
bench: $(STAMP) ## measure Sternpost beside Postfix on this machine
	@$(IN)/python -m bench
