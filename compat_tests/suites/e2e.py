"""Real servers and clients, in e2e/: libraries as the group `e2e` pins them, servers from Debian's packages.

Other suites get their loop by a StandIn; these programs get it as a user would put it in, and each test checks
the class of the loop that it was on.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tomllib
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

from report import PINNED
from supervise import Job

NAME = "e2e"
TITLE = "real servers and clients"

ROOT = Path(__file__).resolve().parent.parent.parent
FOLDER = ROOT / "compat_tests" / "e2e"
# The packages that the tests are about, of all that the group brings
STACK = ["aiohttp", "uvicorn", "starlette", "gunicorn", "hypercorn", "tornado", "asyncpg", "psycopg", "redis"]
STACK += ["distributed", "pyzmq", "fastapi", "litestar", "quart", "django", "sanic", "granian", "daphne", "twisted"]
STACK += ["grpcio", "sqlalchemy", "anyio", "pytest-asyncio", "ipython", "ipykernel", "jupyterlab", "textual"]
STACK += ["prompt-toolkit", "aiokafka"]


def _postgres() -> str | None:
    """Return the path of PostgreSQL's server; Debian has it beside the PATH, by version."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda p: int(p.parts[-3]))
    return str(found[-1]) if found else shutil.which("postgres")


# Debian package -> where its server is, if it is installed
SERVERS: dict[str, Callable[[], str | None]] = {
    "postgresql": _postgres,
    "redis-server": lambda: shutil.which("redis-server"),
}


def _pins() -> dict[str, str]:
    """Return the versions that the group pins, by name."""
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]
    found = (re.match(r"([\w.-]+)(?:\[[\w,]+\])?==([\w.]+)", requirement) for requirement in groups["e2e"])
    return {match[1]: match[2] for match in found if match}


def version() -> str:
    return PINNED


def note() -> str:
    """Return a line for below the table."""
    pins = _pins()
    return ", ".join(f"{name} {pins[name]}" for name in STACK)


def prepare(say: Callable[[str], None]) -> None:
    """Check the pinned versions; install servers that are missing, or say that their tests are skipped."""
    for name, wanted in _pins().items():
        try:
            found = metadata.version(name)
        except metadata.PackageNotFoundError:
            found = "missing"
        if found != wanted:
            raise SystemExit(f"{name} is {found}, and not {wanted}: pip install -e '.[e2e]'")
    missing = [package for package, where in SERVERS.items() if not where()]
    if missing and os.geteuid() == 0 and shutil.which("apt-get"):
        say(f"installing {' and '.join(missing)} by apt-get")
        env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        for command in (["update"], ["install", "--yes", "--no-install-recommends", *missing]):
            subprocess.run(["apt-get", "-qq", *command], env=env, stdout=subprocess.DEVNULL, check=True)
    for package, where in SERVERS.items():
        path = where()
        if path is None:
            say(f"{package} is not installed, its tests are skipped: apt-get install {package}")
        else:
            told = subprocess.run([path, "--version"], capture_output=True, text=True, check=True).stdout
            say(f"the tests start their own {told.strip()}")


def modules(cache: Path) -> list[str]:
    return sorted(path.stem for path in FOLDER.glob("test_*.py"))


def job(cache: Path, loop: str, module: str) -> Job:
    options = ["-q", "-c", "/dev/null", "--rootdir", str(FOLDER), "--tb=short", "-p", "no:cacheprovider", "-W", "error"]
    options += ["-p", "pytest_timeout"]  # for its mark; time is the watchdog's matter
    return Job(
        suite=NAME,
        loop=loop,
        module=module,
        target=[str(FOLDER / f"{module}.py")],
        options=options,
        env={"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "E2E_LOOP": loop, "COMPAT_PUT_IN": "0"},
        limit=180.0,  # a cluster in processes, each with its imports, on a machine that does other things besides
    )
