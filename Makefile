# make demo builds goloop in a virtual environment and runs the main job; make test builds it and runs the
# tests. Nothing needs to be installed but Python, gcc and make. PYTHON=python3.12 chooses another Python.

PYTHON ?= $(firstword $(foreach name,python3.11 python3 python3.15 python3.14 python3.13 python3.12,$(shell command -v $(name))))
$(if $(PYTHON),,$(error no Python found: install CPython 3.11 or later, or name one with PYTHON=...))
VERSION := $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])')
VENV ?= .venv/$(VERSION)
BIN := $(VENV)/bin
SOURCES := pyproject.toml $(wildcard build_backend/*.py goloop/core/*/*.pyx goloop/core/*/*.pxd goloop/core/*/native/*)

NATIVE := $(wildcard goloop/core/*/native/*.[ch] tests/native/*.[ch] benchmarks/native/*.c)

.PHONY: build demo test lint bench compat clean

build: $(VENV)/built

$(VENV)/bin/python:
	@$(PYTHON) build_backend/goloop_backend.py  # says in a sentence what the machine lacks, before anything is fetched
	@echo "building goloop for Python $(VERSION) in $(VENV): its tools first, then some fifty C files, on all cores"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -qq --disable-pip-version-check --upgrade pip

$(VENV)/built: $(BIN)/python $(SOURCES)
	$(BIN)/python -m pip install -qq --disable-pip-version-check --editable '.[demo,test]' --group lint
	touch $@

demo: build
	$(BIN)/python examples/demo.py $(ARGS)

TESTS ?= tests
JOBS ?= $(shell nproc)
test: build
	$(BIN)/python -X dev -m pytest -n $(JOBS) $(TESTS) $(ARGS)

lint: build
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	PATH="$(abspath $(BIN)):$$PATH" cython-lint goloop/core  # it looks for pycodestyle on the PATH
	$(BIN)/clang-format --dry-run --Werror $(NATIVE)
	$(BIN)/mypy
	for folder in benchmarks build_backend compat_tests examples tests; do $(BIN)/mypy $$folder || exit; done
	$(BIN)/stubtest goloop --ignore-disjoint-bases --allowlist tests/lint/stubtest.txt \
		--mypy-config-file pyproject.toml
	$(BIN)/python tests/lint/layers.py .
	$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	$(BIN)/check-jsonschema --builtin-schema vendor.github-actions .github/actions/*/action.yml
	$(BIN)/check-jsonschema --builtin-schema vendor.github-issue-forms \
		$(filter-out %/config.yml,$(wildcard .github/ISSUE_TEMPLATE/*.yml))

# make bench ONLY=tcp_echo,timers LOOPS=uvloop,goloop,C REPEATS=5 SECONDS=0.5 QUICK=1 FULL=1; see benchmarks/run.py
bench: LOOPS = asyncio,uvloop,goloop,C
bench: build
	$(BIN)/python -m pip install -qq --disable-pip-version-check --editable '.[bench]'
	$(BIN)/python benchmarks/run.py $(if $(ONLY),--only "$(ONLY)") --loops $(LOOPS) \
		$(if $(REPEATS),--repeats $(REPEATS)) $(if $(SECONDS),--seconds $(SECONDS)) $(if $(QUICK),--quick) \
		$(if $(FULL),--full) $(ARGS)

# SUITE: cpython, uvloop, aiohttp, asyncssh, aiosmtpd, e2e, several with commas, or all; LOOPS: of asyncio, uvloop, goloop
SUITE ?= all
LOOPS ?= asyncio,uvloop,goloop
GROUP := $(if $(findstring e2e,$(SUITE:all=e2e)),e2e,compat)

$(VENV)/compat: $(VENV)/built
	$(BIN)/python -m pip install -qq --disable-pip-version-check --group compat
	touch $@

$(VENV)/e2e: $(VENV)/built
	$(BIN)/python -m pip install -qq --disable-pip-version-check --group compat --group e2e
	touch $@

compat: $(VENV)/$(GROUP)
	$(BIN)/python compat_tests/run.py --suite $(SUITE) --loops $(LOOPS) $(ARGS)

clean:
	rm -rf .venv build *.egg-info goloop/core/*/*.c goloop/core/*/*.so
