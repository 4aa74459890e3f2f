"""Ways to put goloop in: run, new_event_loop, EventLoopPolicy. The public module is goloop.policy.

Policies are deprecated from Python 3.14 on and gone in 3.16; run() and new_event_loop() need none.
"""

from __future__ import annotations

import asyncio
import sys
from asyncio import events
from collections.abc import Callable, Coroutine
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

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
    loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None,
    handoff: bool | None = None,
    watch: bool | None = None,
) -> _T:
    """Run a coroutine on a new goloop loop and return its result, as asyncio.run() does.

    main: a coroutine object (ValueError otherwise). debug: the loop's debug mode; None: as the environment says.
    loop_factory: a function that makes the loop, as of asyncio.run(); None: Loop. handoff, watch: the arguments of
    Loop(); beside loop_factory they are a TypeError. RuntimeError when a loop runs in this thread already. From any
    plain thread, which it blocks until the coroutine has ended.
    """
    if loop_factory is None:
        loop_factory = partial(Loop, handoff=handoff, watch=watch)
    elif handoff is not None or watch is not None:
        raise TypeError("handoff= and watch= are arguments of goloop.Loop: loop_factory has to pass them on itself")
    if events._get_running_loop() is not None:
        raise RuntimeError("goloop.run() cannot be called from a running event loop")
    with asyncio.Runner(debug=debug, loop_factory=loop_factory) as runner:
        return runner.run(main)


if TYPE_CHECKING:
    from asyncio import DefaultEventLoopPolicy as _BasePolicy
elif sys.version_info >= (3, 14):
    _BasePolicy = getattr(events, "_BaseDefaultEventLoopPolicy", None)
else:
    _BasePolicy = asyncio.DefaultEventLoopPolicy

if _BasePolicy is not None:

    class EventLoopPolicy(_BasePolicy):
        """asyncio's default policy with goloop loops, for asyncio.set_event_loop_policy(). From any thread."""

        _loop_factory = Loop
