# Every target installs what it needs first (see .ci/setup) and is quick when nothing is missing.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help demo lab test test-fast lint lock setup clean

help: ## say what each target does
	@echo 'afpub: publish Jupyter kernels and container images through CVMFS.'
	@echo
	@sed -nE 's/^([a-z-]+):[^#]*## (.*)/  make \1|\2/p' Makefile | awk -F"|" "{ printf \"%-18s %s\\n\", \$$1, \$$2 }"
	@echo
	@echo 'Start with make demo. System packages are installed with apt, as root or through sudo; all else stays in this folder.'

demo: ## build the demonstration images, publish them into a signed repository below build/demo, verify it
	@.ci/setup images
	@.ci/demo

lab: ## JupyterLab on the kernels of the demonstration, on this machine only; Ctrl-C ends it
	@.ci/setup images
	@.ci/lab

test: ## every check and every test, image builds and browser included
	@.ci/setup test
	@.ci/test all

test-fast: ## every check, and the tests that build no image (about four minutes)
	@.ci/setup core
	@.ci/test fast

lint: ## the checks alone: style, types, shell scripts
	@.ci/setup core
	@.ci/test lint

setup: ## only install what demo, lab and test need
	@.ci/setup test

lock: ## resolve pyproject.toml anew into requirements.lock (UPGRADE=1 takes newer versions)
	@.ci/setup core
	@.venv/bin/uv pip compile pyproject.toml --output-file requirements.lock --quiet $(if $(UPGRADE),--upgrade) \
		--all-extras --generate-hashes --universal --no-header --no-annotate --python-version 3.11

clean: ## remove what was built: build/ (with the demonstration's repository and keys) and caches; .venv stays
	@.ci/clean
