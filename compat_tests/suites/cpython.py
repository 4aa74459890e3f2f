"""CPython's own test.test_asyncio, that of the running Python.

The modules are taken from where Python has them. A StandIn replaces asyncio's loop classes and the default
policy's factory (plugins/loop_under_test.py); plugins/cpython_utils.py evens out one method of the tests'
utilities that asks for a private attribute of asyncio's loop.
"""

from __future__ import annotations

import importlib.util
import platform
import sys
from pathlib import Path

from supervise import Job

NAME = "cpython"
TITLE = "CPython test.test_asyncio"


def version() -> str:
    return platform.python_version()


def _folder() -> Path:
    spec = importlib.util.find_spec("test.test_asyncio")
    if spec is None or not spec.submodule_search_locations:
        sys.exit("this Python has no test.test_asyncio: install its test suite (Debian: libpython3-testsuite)")
    return Path(spec.submodule_search_locations[0])


def modules(cache: Path) -> list[str]:
    """Return the names of the suite's test modules, those left out included."""
    return sorted(path.stem for path in _folder().glob("test_*.py"))


def job(cache: Path, loop: str, module: str) -> Job:
    """Return the job that runs one module on one loop."""
    options = [
        *("-s", "-q", "-c", "/dev/null", "--rootdir", str(_folder()), "--tb=short"),
        *("-o", "python_classes=", "-o", "python_functions=", "--assert=plain", "--import-mode=importlib"),
    ]
    # These plugins put hooks, handlers, fixtures or threads where the tests check that there are none
    for plugin in ("cacheprovider", "logging", "unraisableexception", "threadexception", "warnings"):
        options += ["-p", f"no:{plugin}"]
    options += ["-p", "cpython_utils"]
    return Job(
        suite=NAME,
        loop=loop,
        module=module,
        target=["--pyargs", f"test.test_asyncio.{module}"],
        options=options,
        interpreter=["-W", "default"],
        env={"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
    )
