"""uvloop's suite, from its sdist, at the version that is installed.

Its mixins are run in the classes made for uvloop (Test_UV_*), with the loop under test put in by
plugins/uvloop_suite.py; the classes made for asyncio (Test_AIO_*) are the same mixins, and left out.
"""

from __future__ import annotations

from pathlib import Path

from sdist import installed, unpacked
from supervise import Job

NAME = "uvloop"
TITLE = "uvloop"


def version() -> str:
    return installed("uvloop")


def _folder(cache: Path) -> Path:
    return unpacked(cache, "uvloop", version(), drop=("uvloop", "vendor", "docs"))


def modules(cache: Path) -> list[str]:
    return sorted(path.stem for path in (_folder(cache) / "tests").glob("test_*.py"))


def job(cache: Path, loop: str, module: str) -> Job:
    folder = _folder(cache)
    options = ["-s", "-q", "-c", "/dev/null", "--rootdir", str(folder), "--tb=short"]
    options += ["-o", "python_classes=", "-o", "python_functions="]
    for plugin in ("cacheprovider", "logging", "unraisableexception", "threadexception", "warnings"):
        options += ["-p", f"no:{plugin}"]
    return Job(
        suite=NAME,
        loop=loop,
        module=module,
        target=["-p", "uvloop_suite", str(folder / "tests" / f"{module}.py")],
        options=options,
        env={"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
    )
