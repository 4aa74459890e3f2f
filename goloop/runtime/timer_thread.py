"""The clock's thread: started with the first timer, ended when there has been none for a while, or by shutdown().

What it does is the core's matter (core.sync.timer_thread), and so are its states.
"""

from __future__ import annotations

import threading
import time

from goloop.core.sync import timer_thread
from goloop.runtime import shutdown
from goloop.runtime.real_threads import require_threads

_thread: threading.Thread | None = None  # the last one started; guard: only one is started at a time, by the core


def start() -> None:
    """Start the thread; the core calls it, one at a time."""
    global _thread
    require_threads()
    shutdown.at_exit()
    thread = threading.Thread(target=timer_thread.run, name="goloop-clock", daemon=True)
    thread.start()
    _thread = thread


def stop(timeout: float) -> None:
    """Drop all timers and deadlines, and wait for the end of the thread. It starts again on demand.

    timeout: seconds. Not for the clock's own thread.
    """
    until = time.monotonic() + timeout
    while timer_thread.drop() and time.monotonic() < until:
        time.sleep(0.0005)
    thread = _thread
    if thread is not None:
        thread.join(max(0.0, until - time.monotonic()))
