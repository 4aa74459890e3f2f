"""aiohttp's suite, from its sdist, against the installed aiohttp of the same version.

Its loops come from asyncio.new_event_loop (the `pyloop` of its --aiohttp-loop) and asyncio.SelectorEventLoop,
both of which plugins/loop_under_test.py has replaced; so the ids of its tests are the same on every loop.
"""

from __future__ import annotations

from pathlib import Path

from sdist import installed, unpacked
from supervise import Job

NAME = "aiohttp"
TITLE = "aiohttp"
VERSION = "3.14.5"  # the release that expected/aiohttp.toml was made with


def version() -> str:
    return VERSION


def _folder(cache: Path) -> Path:
    if installed("aiohttp") != VERSION:
        raise SystemExit(f"the aiohttp suite is pinned: pip install aiohttp=={VERSION}")
    return unpacked(cache, "aiohttp", VERSION, drop=("aiohttp", "docs", "vendor"))


def modules(cache: Path) -> list[str]:
    return sorted(path.stem for path in (_folder(cache) / "tests").glob("test_*.py"))


def job(cache: Path, loop: str, module: str) -> Job:
    folder = _folder(cache)
    options = ["-q", "-c", str(folder / "pytest.ini"), "--rootdir", str(folder), "--tb=short", "-p", "no:cacheprovider"]
    options += ["-o", "addopts=", "-o", "timeout=0"]  # its options are for its CI; time is the watchdog's matter
    for plugin in ("pytest_mock", "pytest_timeout", "xdist"):
        options += ["-p", plugin]
    return Job(
        suite=NAME,
        loop=loop,
        module=module,
        target=["-m", "not dev_mode and not autobahn and not internal", str(folder / "tests" / f"{module}.py")],
        options=options,
        env={"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        limit=60.0,
    )
