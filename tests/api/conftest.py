"""One scenario, two loops, one outcome.

The ``both`` fixture runs a scenario on asyncio's own loop (the oracle) and then on goloop's, and fails
when what it observed differs. ``API_LOOPS=asyncio,uvloop pytest tests/api`` compares any other pair.
"""

import asyncio
import contextlib
import dataclasses
import functools
import gc
import inspect
import os

import pytest

from tests.helpers.recorders import connected


@dataclasses.dataclass(frozen=True)
class Raised:
    """The outcome of a scenario that raised: the exception's type name and text."""

    type: str
    text: str


def _new_loop(name):
    if name == "asyncio":
        return asyncio.SelectorEventLoop()
    if name == "uvloop":
        import uvloop

        return uvloop.new_event_loop()
    import goloop

    return goloop.new_event_loop()


def _names():
    return os.environ.get("API_LOOPS", "asyncio,goloop").split(",")


def run_on(name, scenario, *, debug=False):
    """Run ``scenario(loop)`` on a fresh loop of that name; return its value, or ``Raised``."""
    loop = _new_loop(name)
    loop.set_debug(debug)
    try:
        if inspect.iscoroutinefunction(scenario):
            outcome = loop.run_until_complete(asyncio.wait_for(scenario(loop), 60))
        else:
            outcome = scenario(loop)
    except Exception as exc:
        outcome = Raised(type(exc).__name__, str(exc))
    finally:
        if not loop.is_closed():
            with contextlib.suppress(RuntimeError):
                loop.run_until_complete(loop.shutdown_asyncgens())
                loop.run_until_complete(loop.shutdown_default_executor())
            loop.close()
        gc.collect()
    return outcome


@pytest.fixture
def both():
    """Call with a scenario; it must observe the same on both loops, and that outcome is returned."""

    def run(scenario, *, debug=False):
        oracle, subject = (run_on(name, scenario, debug=debug) for name in _names())
        assert subject == oracle, f"{_names()[1]}: {subject!r}\n{_names()[0]}: {oracle!r}"
        return subject

    return run


@pytest.fixture(params=["tcp", "unix"])
def link(request):
    """``async with link(loop, protocol) as (transport, peer)``, over both kinds of socket."""
    return functools.partial(connected, kind=request.param)
