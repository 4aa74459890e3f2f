"""Ways to put goloop in: run, new_event_loop, EventLoopPolicy. The public module is goloop.policy.

Policies are deprecated from Python 3.14 on and gone in 3.16; run() and new_event_loop() need none.
"""

from __future__ import annotations

import asyncio
import sys
from asyncio import events
from collections.abc import Coroutine
from typing import Any, TypeVar

from goloop._eventloop.loop import Loop

_T = TypeVar("_T")


def new_event_loop() -> Loop:
    """Return a new loop, as asyncio.new_event_loop(). From any thread; the caller closes the loop.

    It is usable as asyncio.Runner's loop_factory.
    """
    return Loop()


def run(
    main: Coroutine[Any, Any, _T],
    *,
    debug: bool | None = None,
    handoff: bool | None = None,
    watch: bool | None = None,
) -> _T:
    """Run a coroutine on a new goloop loop and return its result, as asyncio.run() does.

    main: a coroutine object (ValueError otherwise). debug: the loop's debug mode; None: as the environment says.
    handoff, watch: the arguments of Loop(). RuntimeError when a loop runs in this thread already. From any plain
    thread, which it blocks until the coroutine has ended.
    """
    if events._get_running_loop() is not None:
        raise RuntimeError("goloop.run() cannot be called from a running event loop")
    with asyncio.Runner(debug=debug, loop_factory=lambda: Loop(handoff=handoff, watch=watch)) as runner:
        return runner.run(main)


if sys.version_info >= (3, 14):
    _BasePolicy: Any = getattr(events, "_BaseDefaultEventLoopPolicy", None)
else:
    _BasePolicy = asyncio.DefaultEventLoopPolicy

if _BasePolicy is not None:

    class EventLoopPolicy(_BasePolicy):
        """asyncio's default policy with goloop loops, for asyncio.set_event_loop_policy(). From any thread."""

        _loop_factory = Loop
