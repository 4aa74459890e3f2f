"""The loop under test: what it is called, how to make it, and how a program of its own is started on it.

E2E_LOOP names it. Imported by the tests and by the programs in apps/, which find it on their PYTHONPATH; so it
must import nothing of pytest.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

# name -> what class_name() of a loop must say
CLASSES = {
    "asyncio": "asyncio.unix_events._UnixSelectorEventLoop",
    "uvloop": "uvloop.Loop",
    "goloop": "goloop._eventloop.loop.Loop",
}
NAME = os.environ.get("E2E_LOOP", "goloop")
if NAME not in CLASSES:
    raise SystemExit(f"E2E_LOOP={NAME} is not one of {', '.join(CLASSES)}")
CLASS = CLASSES[NAME]


def class_name(loop: Any = None) -> str:
    """Return the full name of the class of loop; without one: of the loop that runs here."""
    cls = type(loop or asyncio.get_running_loop())
    return f"{cls.__module__}.{cls.__qualname__}"


def factory() -> Callable[[], asyncio.AbstractEventLoop]:
    """Return the function that makes a loop under test."""
    if NAME == "uvloop":
        import uvloop

        made: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
        return made
    if NAME == "goloop":
        import goloop

        return goloop.new_event_loop
    return asyncio.SelectorEventLoop


def install() -> None:
    """Make every loop of this process one under test, as a program of a user would; stock asyncio needs nothing."""
    if NAME == "goloop":
        import goloop

        goloop.install()
    elif NAME == "uvloop":
        import uvloop

        asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())


def module(*args: str) -> list[str]:
    """Return the command that runs a module with args on the loop under test, if it makes its loop as asyncio says."""
    if NAME == "uvloop":
        launcher = Path(__file__).with_name("apps") / "on_uvloop.py"
        return [sys.executable, "-X", "faulthandler", str(launcher), "-m", *args]
    return python("-m", *args)


def python(*args: str) -> list[str]:
    """Return the command that runs python with args on the loop under test, where it has a launcher for that."""
    launcher = ["-m", "goloop"] if NAME == "goloop" else []
    return [sys.executable, "-X", "faulthandler", *launcher, *args]
