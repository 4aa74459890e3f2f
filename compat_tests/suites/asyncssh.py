"""asyncssh's tests of forwarding, from its sdist, against the installed asyncssh of the same version.

Forwarding is where a library depends on the order of a connection's first callbacks: a peer that speaks first must not
be heard before the task that connected has gone on.
"""

from __future__ import annotations

from pathlib import Path

from sdist import installed, unpacked
from supervise import Job

NAME = "asyncssh"
TITLE = "asyncssh, forwarding"
VERSION = "2.24.1"


def version() -> str:
    return VERSION


def _folder(cache: Path) -> Path:
    if installed("asyncssh") != VERSION:
        raise SystemExit(f"the asyncssh suite is pinned: pip install asyncssh=={VERSION}")
    return unpacked(cache, "asyncssh", VERSION, drop=("asyncssh", "docs", "examples"))


def modules(cache: Path) -> list[str]:
    return ["test_forward"]


def job(cache: Path, loop: str, module: str) -> Job:
    folder = _folder(cache)
    options = ["-q", "-c", "/dev/null", "--rootdir", str(folder), "--tb=short", "-p", "no:cacheprovider"]
    return Job(
        suite=NAME,
        loop=loop,
        module=module,
        target=[str(folder / "tests" / f"{module}.py")],
        options=options,
        env={"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        limit=60.0,
    )
