"""aiosmtpd's suite, from its sdist: a mail server that runs a loop in a thread and stops it at any moment."""

from __future__ import annotations

from pathlib import Path

from sdist import installed, unpacked
from supervise import Job

NAME = "aiosmtpd"
TITLE = "aiosmtpd"
VERSION = "1.4.6"
SERIAL = True  # each test listens on one and the same port


def version() -> str:
    return VERSION


def _folder(cache: Path) -> Path:
    if installed("aiosmtpd") != VERSION:
        raise SystemExit(f"the aiosmtpd suite is pinned: pip install aiosmtpd=={VERSION}")
    return unpacked(cache, "aiosmtpd", VERSION)  # whole: the tests are a part of the package


def modules(cache: Path) -> list[str]:
    return sorted(path.stem for path in (_folder(cache) / "aiosmtpd" / "tests").glob("test_*.py"))


def job(cache: Path, loop: str, module: str) -> Job:
    folder = _folder(cache)
    options = ["-q", "-c", "/dev/null", "--rootdir", str(folder), "--tb=short", "-p", "no:cacheprovider"]
    options += ["-p", "pytest_mock"]
    return Job(
        suite=NAME,
        loop=loop,
        module=module,
        target=[str(folder / "aiosmtpd" / "tests" / f"{module}.py")],
        options=options,
        env={"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONPATH": str(folder)},
        limit=60.0,
    )
