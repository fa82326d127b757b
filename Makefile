# Needs Python 3.10 to 3.13, make and git; everything else is put into .venv.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
DAG ?=
CONF ?=
# DAG and CONF reach the recipes through the environment, as they are: neither make nor the shell
# may take a $ or a quote in them for its own.
override DAG := $(value DAG)
override CONF := $(value CONF)
export DAG CONF

.DEFAULT_GOAL := help
.PHONY: help demo test up down run bench lint docs screenshots lock audit env environment

help: ## what can be made
	@sed -n 's/^\([a-z]*\):.*## /\1 /p' Makefile | while read -r name what; do printf '  make %-12s %s\n' "$$name" "$$what"; done

demo: $(READY) ## sample pictures through real Airflow, held against what must come out
	@$(BIN)/python -m devstack demo

test: lint ## environment, lint, types and the whole test suite, from nothing
	$(BIN)/python -m pytest --numprocesses auto --dist loadfile --no-loadscope-reorder

up: $(READY) ## Airflow with its UI, S3 and SQS, left running on this machine
	@$(BIN)/python -m devstack up

down: ## stop them and leave nothing behind
	@if [ -x $(BIN)/python ]; then $(BIN)/python -m devstack down; else echo 'Nothing was up.'; fi

run: $(READY) ## one run to its end: make run DAG=pyramid_tiff CONF='{"prefix": "digital/"}'
	@if [ -z "$$DAG" ]; then echo 'Say which DAG: make run DAG=pyramid_tiff' >&2; exit 2; fi
	@$(BIN)/python -m devstack run -- "$$DAG" "$$CONF"

bench: $(READY) ## speed and memory beside the vips command line
	@$(BIN)/python -m bench

lint: $(READY) ## style, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(READY) ## docs/DAGS.md, from the DAGs
	@$(BIN)/python docs/generate.py

screenshots: $(READY) ## the pictures of docs/, with Chromium or Chrome
	@$(BIN)/python -m docs.screenshots

lock: $(READY) ## uv.lock and requirements.txt, after pyproject.toml was changed
	$(BIN)/uv lock
	$(BIN)/uv export --frozen --no-dev --no-emit-project --no-header -o requirements.txt
	@# uv leaves extras out; pip then looks for a newer celery[redis], of which it has no hash.
	sed -i.old 's/^celery==/celery[redis]==/' requirements.txt && rm requirements.txt.old

audit: $(READY) ## known vulnerabilities in what is locked
	$(BIN)/uv tool run pip-audit --disable-pip --require-hashes --strict -r requirements.txt

env: ## .env with new secrets, for docker-compose.yaml
	@$(PYTHON) config/env.py

environment: $(READY) ## .venv alone

$(READY): uv.lock pyproject.toml
	@command -v $(PYTHON) >/dev/null || { \
	  echo "There is no $(PYTHON) here. Install Python 3.10 to 3.13, or name one:" >&2; \
	  echo "make PYTHON=/path/to/python3.12 …" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' || { \
	  echo "Python 3.10 to 3.13 is needed, and $(PYTHON) is $$($(PYTHON) -V 2>&1)." >&2; \
	  echo "Name another one: make PYTHON=python3.12 …" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "$(PYTHON) cannot make virtual environments: its module venv or ensurepip is missing." >&2; \
	  echo "On Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	@[ -x $(BIN)/python ] || $(PYTHON) -m venv .venv
	@[ -x $(BIN)/uv ] || $(BIN)/python -m pip install --quiet \
	  "uv==$$(sed -n '/^name = "uv"$$/{n;s/^version = "\(.*\)"$$/\1/p;}' uv.lock)"
	$(BIN)/uv sync --frozen --inexact --compile-bytecode
	@touch $@
