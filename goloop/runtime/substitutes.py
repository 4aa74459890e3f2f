"""Substitutes: the threads that stand in for a loop's home thread while it is stuck; and which loops may be handed off.

When ownership of a loop is taken, how, and how it comes back is the core's matter (ownership, handoff).
"""

from __future__ import annotations

import sys
import weakref
from asyncio.log import logger as asyncio_logger

from goloop._eventloop.loop import Loop
from goloop.core.sched import handoff as core
from goloop.core.sched import scheduler
from goloop.runtime import helper_threads, shutdown
from goloop.runtime.real_threads import require_threads

_coming: set[int] = set()  # ids of loops that a thread is on its way to
_enabled: weakref.WeakSet[Loop] = weakref.WeakSet()  # loops with handoff=True that are not closed


def request(loop: Loop) -> None:
    """Bring a substitute to a loop that no thread runs; the monitor asks until there is one."""
    key = id(loop)
    if key in _coming:
        return
    _coming.add(key)

    def work() -> None:
        _coming.discard(key)
        try:
            loop._run_as_substitute()
        except BaseException:
            asyncio_logger.exception("a substitute of %r failed", loop)

    if not helper_threads.give(work, "substitute"):
        _coming.discard(key)


def enable(loop: Loop) -> None:
    """Let a loop be handed off. RuntimeError where that is not possible."""
    if not getattr(sys, "_is_gil_enabled", lambda: True)():
        raise RuntimeError("handoff needs the GIL: without it, use `with goloop.blocking():`")
    require_threads()
    core.prepare()
    _enabled.add(loop)


def disable(loop: Loop) -> None:
    """The loop was closed."""
    _enabled.discard(loop)
    if not _enabled:
        core.release()


def start_monitoring(loop: Loop, watched: bool) -> None:
    """A loop is about to run: let the monitor watch it."""
    shutdown.at_exit()
    # A loop that a goroutine runs stays there: the thread may be in another goroutine when it looks stuck.
    core.configure(loop, loop._handoff and scheduler.this_worker() is None, watched)
    core.start_monitoring(loop)


def stop_monitoring(loop: Loop) -> None:
    """A loop has run."""
    core.stop_monitoring(loop)


def after_fork_in_child() -> None:
    """The threads that were on their way stayed in the parent."""
    _coming.clear()
