"""The end of what goloop runs: one list of steps, and one registration with atexit.

runtime.install says what the steps are. This module imports nothing of the runtime, because each of its parts asks
for the end at exit when it starts its first thread.
"""

from __future__ import annotations

import atexit
import functools
import os
import time
from collections.abc import Callable
from typing import Any

from goloop import _environment
from goloop.core.poll.pollset import send_collected

# Seconds that cancelled goroutines have for their finally blocks, once, when their loop closes or at exit.
SHUTDOWN_TIMEOUT: float = _environment.get("GOLOOP_SHUTDOWN_TIMEOUT")

_steps: tuple[Callable[[float], None], ...] = ()
_last: tuple[Callable[[], None], ...] = ()
_registered = False


def set_steps(*steps: Callable[[float], None], last: tuple[Callable[[], None], ...]) -> None:
    """Say what shutdown() does, in order: functions of the monotonic time at which they are to be done. last: what
    follows at exit only."""
    global _steps, _last
    _steps, _last = steps, last


def add_step(step: Callable[[float], None]) -> None:
    """Add a step after the others, once: of a part that few programs load."""
    global _steps
    if step not in _steps:
        _steps = (*_steps, step)


def shutdown(timeout: float = SHUTDOWN_TIMEOUT) -> None:
    """Cancel every goroutine, wait for their ends, and stop the workers, the monitor, the clock and the helpers. They
    start again on demand. Timers and deadlines that are pending are dropped.

    timeout: seconds. RuntimeError in a goroutine. For a thread without a running loop; at exit it is called anyway.
    """
    until = time.monotonic() + timeout
    for step in _steps:
        step(until)


def at_exit() -> None:
    """See that shutdown() is called when the interpreter exits. The code that starts a thread calls it; any thread."""
    global _registered
    if not _registered:
        _registered = True
        atexit.register(_exit)


def _exit() -> None:
    try:
        shutdown()
    finally:
        for action in _last:
            action()


def install() -> None:
    """See that what loops have collected to send is sent before an end of the process that runs no handler. Once."""
    for name in ("_exit", "execv", "execve"):
        setattr(os, name, _after_sending(getattr(os, name)))


def _after_sending(end: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(end)
    def send_and_end(*args: Any, **kwargs: Any) -> Any:
        send_collected()
        return end(*args, **kwargs)

    return send_and_end
