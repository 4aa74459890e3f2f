"""The watch's look-out for circles of waits: each is in the log once. It runs while a loop is watched."""

from __future__ import annotations

import logging
import os
import threading
import time
from typing import Any

from goloop._eventloop import signals
from goloop.core.look import loops as core
from goloop.debug._asleep import harmless
from goloop.debug._collect import snapshot
from goloop.debug._snapshot import Snapshot
from goloop.debug._text import stack_lines
from goloop.runtime import shutdown

logger = logging.getLogger("goloop")

INTERVAL = 5.0  # seconds between two looks; more where a look takes long
_SHARE = 200  # of the time that a look takes, which passes until the next one at least

_wake = threading.Event()
_thread: threading.Thread | None = None
_at_fork = False  # the hooks are registered
_seen: set[frozenset[str]] = set()  # circles that the last look has found,
_told: set[frozenset[str]] = set()  # and those that are in the log. Guard: the GIL, as for all here


def start() -> None:
    """A watched loop begins to run: see that there is a look-out. Any thread."""
    global _thread, _at_fork
    if not _at_fork:
        _at_fork = True
        os.register_at_fork(before=_stop, after_in_parent=_start_again, after_in_child=_forget)
        shutdown.add_step(_stop)
    if _thread is None:
        thread = threading.Thread(target=_keep_looking, name="goloop-lookout", daemon=True)
        harmless.add(thread)
        _wake.clear()
        _thread = thread
        try:
            thread.start()
        except RuntimeError:  # there may be no more threads: the next loop that is watched tries again
            _thread = None


def _watched() -> bool:
    return any(not loop.is_closed() and core.is_watched(loop) for loop in signals.all_loops())


def _keep_looking() -> None:
    global _thread
    pause = INTERVAL
    while not _wake.wait(pause) and _watched():
        try:
            found = snapshot()
            _tell(found)
            pause = max(INTERVAL, _SHARE * found.took)
        except Exception:
            logger.exception("the look-out for deadlocks failed")
    if _thread is threading.current_thread():
        _thread = None
        if not _wake.is_set() and _watched():  # a loop that found this thread, which was on its way out
            start()


def _tell(found: Snapshot) -> None:
    """Log the circles that were there at the last look, too, and are not in the log."""
    circles = {frozenset(deadlock.members): deadlock for deadlock in found.deadlocks}
    for members, deadlock in circles.items():
        if members in _seen and members not in _told:
            _told.add(members)
            logger.error("deadlock: %s\n%s", deadlock.text, "\n".join(_stacks(found, deadlock.members)))
    _told.intersection_update(circles)
    _seen.clear()
    _seen.update(circles)


def _stacks(found: Snapshot, members: tuple[str, ...]) -> list[str]:
    actors: list[Any] = [*found.goroutines, *found.tasks, *found.threads]
    by_key = {actor.key: actor for actor in actors}
    lines = []
    for key in members:
        actor = by_key.get(key)
        if actor is not None:
            name = getattr(actor, "function", "") or getattr(actor, "coroutine", "") or actor.name
            lines += [f"  {key.partition('-')[0]} {actor.name or actor.id} {name} [{actor.wait}]"]
            lines += stack_lines(actor.stack, "      ")
    return lines


# ------------------------------------------------------------------------- fork
def _stop(until: float | None = None) -> None:
    """End the look-out. Before a fork: a process with this thread alone is to look single-threaded; at the end of all.

    until: for how long, on the monotonic clock; None: a look is over in some milliseconds.
    """
    thread = _thread
    if thread is not None and thread is not threading.current_thread():
        _wake.set()
        thread.join(None if until is None else max(0.0, until - time.monotonic()))


def _start_again() -> None:
    if _watched():
        start()


def _forget() -> None:
    global _thread, _wake
    _thread = None
    _wake = threading.Event()
    _seen.clear()
    _told.clear()
