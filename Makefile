# Everything here works alone on a machine with Python >= 3.11 (with venv), make and git: the first target that
# needs it creates .venv and installs chartae with the tested versions. PYTHON=python3.12 picks an interpreter.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PY     := $(BIN)/python
STAMP  := $(VENV)/.installed
BENCH  := .venv-bench
ARGS   ?=

export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help install browser demo lint test test-slow bench docs-benchmarks docs-gallery clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 20

install: $(STAMP) ## create .venv and install chartae with its development tools

define create_venv
@command -v $(PYTHON) >/dev/null || { echo "make: $(PYTHON) not found; name one: make PYTHON=/path/to/python3.11" >&2; exit 1; }
@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
  { echo "make: chartae needs Python >= 3.11, $(PYTHON) is older; name another: make PYTHON=python3.11" >&2; exit 1; }
@test -x $(1)/bin/python && $(1)/bin/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(1) || \
  { echo "make: $(PYTHON) cannot create virtual environments; on Debian: apt install python3-venv" >&2; exit 1; }
@echo "installing into $(1); the first time takes some minutes"
endef

# Made again only when the dependencies changed; the sources are installed editable.
$(STAMP): pyproject.toml constraints.txt
	$(call create_venv,$(VENV))
	@$(PY) -m pip install --quiet -c constraints.txt -e '.[dev]'
	@touch $@

# Apart, because the peers that the benchmarks run bring dependencies of their own.
$(BENCH)/.installed: pyproject.toml constraints.txt benchmarks/requirements.txt
	$(call create_venv,$(BENCH))
	@$(BENCH)/bin/python -m pip install --quiet -c constraints.txt -e . -r benchmarks/requirements.txt
	@touch $@

demo: $(STAMP) ## fit the bundled digits and say where the results are
	$(BIN)/chartae fit digits --out runs/digits --overwrite

lint: $(STAMP) ## formatting, lint and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Tests open the page of a report in it; without one they are skipped.
browser: ## install Chromium where it is missing and apt-get may do it
	@command -v chromium || command -v chromium-browser || command -v google-chrome || \
	  { test "$$(id -u)" = 0 && command -v apt-get >/dev/null && echo "installing chromium" && \
	    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
	      chromium fonts-dejavu-core >/dev/null; } || \
	  echo "no Chromium: the tests that open a page are skipped; install it, or run make browser as root on Debian"

test: lint browser ## formatting, lint, types and the whole test suite (add pytest options with ARGS=...)
	$(BIN)/pytest -n auto --maxprocesses 4 --dist worksteal $(ARGS)

test-slow: $(STAMP) ## the tests that take minutes each
	$(BIN)/pytest -m slow --timeout 3600 $(ARGS)

bench: $(BENCH)/.installed ## every benchmark, beside its peers; hours, on an idle machine (ARGS="--data mnist.npz")
	@set -e; for script in $$(grep -l __main__ benchmarks/*/*.py); do echo "== $$script"; \
	  $(BENCH)/bin/python $$script $(ARGS); done

docs-benchmarks: $(STAMP) ## write docs/benchmarks.md from the committed measurements
	$(PY) benchmarks/render.py

docs-gallery: $(STAMP) ## run the pages of docs/gallery and write them; minutes (ARGS="interpolation" for one)
	$(PY) docs/gallery/build.py $(ARGS)

clean: ## remove the environments and the caches, keep the runs
	rm -rf $(VENV) $(BENCH) dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis
