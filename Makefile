# make demo builds goloop in a virtual environment and shows what it does; make test builds it and runs the
# tests; make docs builds the site of the documentation into build/site. Nothing needs to be installed but Python, gcc and make. PYTHON=python3.12 chooses another Python.

PYTHON ?= $(firstword $(foreach name,python3.11 python3 python3.15 python3.14 python3.13 python3.12,$(shell command -v $(name))))
VERSION := $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])')
VENV ?= .venv/$(VERSION)
BIN := $(VENV)/bin
SOURCES := pyproject.toml $(wildcard goloop/core/*/*.pyx goloop/core/*/*.pxd goloop/core/*/native/*)

NATIVE := $(wildcard goloop/core/*/native/*.[ch] tests/native/*.[ch] benchmarks/native/*.c)

.PHONY: build demo test lint docs bench compat clean

build: $(VENV)/built

# The first words come at once: compiling takes minutes.
$(VENV)/bin/python:
	@echo "Making a virtual environment of Python $(VERSION) in $(VENV)."
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -qq --disable-pip-version-check --upgrade pip

$(VENV)/built: $(BIN)/python $(SOURCES)
	@echo "Building goloop in $(VENV): this takes some minutes, and only after a change of its sources."
	$(BIN)/python -m pip install -qq --disable-pip-version-check --editable '.[demo,test]' --group lint
	touch $@

demo: build
	@$(BIN)/python examples/demo.py $(ARGS)

TESTS ?= tests
test: build
	$(BIN)/python -X dev -m pytest -n 2 $(TESTS) $(ARGS)

lint: build
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	PATH="$(abspath $(BIN)):$$PATH" cython-lint goloop/core  # it looks for pycodestyle on the PATH
	$(BIN)/clang-format --dry-run --Werror $(NATIVE)
	$(BIN)/mypy
	for folder in benchmarks compat_tests examples tests; do $(BIN)/mypy $$folder || exit; done
	$(BIN)/stubtest goloop --ignore-disjoint-bases --allowlist tests/lint/stubtest.txt \
		--mypy-config-file pyproject.toml
	$(BIN)/python tests/lint/layers.py .
	$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	$(BIN)/check-jsonschema --builtin-schema vendor.github-actions .github/actions/*/action.yml
	$(BIN)/check-jsonschema --builtin-schema vendor.github-issue-forms \
		$(filter-out %/config.yml,$(wildcard .github/ISSUE_TEMPLATE/*.yml))

# The site needs no network but for the installation of the group docs, and neither do its readers.
$(VENV)/docs: $(VENV)/built pyproject.toml
	$(BIN)/python -m pip install -qq --disable-pip-version-check --group docs
	touch $@

docs: $(VENV)/docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet
	@echo "build/site/index.html"

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
