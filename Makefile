# make demo builds goloop in a virtual environment and shows what it does; make test builds it and runs the
# tests; make docs builds the site of the documentation into build/site. Nothing needs to be installed but Python, gcc
# and make. PYTHON=python3.12 chooses another Python.

PYTHON ?= $(firstword $(foreach name,python3.11 python3 python3.15 python3.14 python3.13 python3.12,$(shell command -v $(name))))
$(if $(PYTHON),,$(error no Python found: install CPython 3.11 or later, or name one with PYTHON=...))
VERSION := $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])')
VENV ?= .venv/$(VERSION)
BIN := $(VENV)/bin
SOURCES := pyproject.toml $(wildcard build_backend/*.py goloop/core/*/*.pyx goloop/core/*/*.pxd goloop/core/*/native/*)

NATIVE := $(wildcard goloop/core/*/native/*.[ch] tests/native/*.[ch] benchmarks/native/*.c)

.PHONY: build demo test lint docs bench compat wheel sbom release-check clean

build: $(VENV)/built

$(VENV)/bin/python:
	@$(PYTHON) build_backend/goloop_backend.py  # says in a sentence what the machine lacks, before anything is fetched
	@echo "making $(VENV), for Python $(VERSION)"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -qq --disable-pip-version-check --upgrade pip

$(VENV)/built: $(BIN)/python $(SOURCES)
	@echo "building goloop in $(VENV), on all cores: some fifty C files, and the packages that its tests need"
	$(BIN)/python -m pip install -qq --disable-pip-version-check --editable '.[demo,test]' --group lint
	touch $@

demo: build
	@$(BIN)/python examples/demo.py $(ARGS)

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
	for folder in benchmarks build_backend compat_tests examples release tests; do $(BIN)/mypy $$folder || exit; done
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

# make bench ONLY=tcp_echo,timers LOOPS=uvloop,goloop,C REPEATS=5 SECONDS=0.5 QUICK=1 FULL=1; see benchmarks/run.py.
# LOOPS: by default every loop of benchmarks/loops.py that is installed; PEERS=rloop,zuvloop installs some before.
comma := ,
bench: LOOPS =
bench: build
	$(BIN)/python -m pip install -qq --disable-pip-version-check --editable '.[bench]'
	$(if $(PEERS),$(BIN)/python -m pip install -qq --disable-pip-version-check --only-binary :all: \
		$(subst $(comma), ,$(PEERS)))
	$(BIN)/python benchmarks/run.py $(if $(ONLY),--only "$(ONLY)") $(if $(LOOPS),--loops $(LOOPS)) \
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

$(VENV)/release: $(BIN)/python
	$(BIN)/python -m pip install -qq --disable-pip-version-check --group release
	touch $@

# The source distribution, and from it the wheel for this Python, in dist/; checked, and tried where no compiler is.
wheel: $(VENV)/release
	rm -rf dist build/wheel
	$(BIN)/python -m build --outdir build/wheel
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/auditwheel repair --strip --wheel-dir dist build/wheel/*.whl
	mv build/wheel/*.tar.gz dist
	$(BIN)/twine check --strict dist/*
	$(BIN)/check-wheel-contents dist/*.whl
	$(BIN)/python release/check.py dist
	$(BIN)/python release/try_wheel.py dist $(TESTS) -n $(JOBS) $(ARGS)

# What comes with goloop's wheel for this Python: dist/ has to have it.
sbom: $(VENV)/release
	rm -rf build/sbom
	$(PYTHON) -m venv --without-pip build/sbom
	$(BIN)/python -m pip --python build/sbom install -qq --disable-pip-version-check --no-index --no-deps \
		--find-links dist goloop
	$(BIN)/python -m pip --python build/sbom install -qq --disable-pip-version-check goloop  # what it depends on
	$(BIN)/cyclonedx-py environment --output-reproducible --pyproject pyproject.toml --output-file build/sbom.cdx.json \
		build/sbom

# Everything that a release needs but the upload, which .github/workflows/release.yml does for a tag; docs/versions.md
release-check: $(VENV)/release
	$(BIN)/python release/check_version.py
	$(MAKE) lint test docs wheel sbom

clean:
	rm -rf .venv build dist *.egg-info goloop/core/*/*.c goloop/core/*/*.so
