"""The clock's thread: started with the first timer, ended when there has been none for a while, or by pool.shutdown().

What it does is core.clock's matter, and so are its states.
"""

from __future__ import annotations

import atexit
import os
import threading
import time

from goloop.core.sync import timer_thread
from goloop.runtime.real_threads import require_threads

_thread: threading.Thread | None = None  # the last one started; guard: only one is started at a time, by core.clock
_at_exit = False  # stop() is registered


def _start() -> None:
    global _thread, _at_exit
    require_threads()
    if not _at_exit:
        _at_exit = True
        atexit.register(stop)
    thread = threading.Thread(target=timer_thread.run, name="goloop-clock", daemon=True)
    thread.start()
    _thread = thread


def stop(patience: float = 5.0) -> None:
    """Drop all timers and deadlines, and wait for the end of the thread. It starts again on demand.

    patience: seconds. Not for the clock's own thread.
    """
    until = time.monotonic() + patience
    while timer_thread.drop() and time.monotonic() < until:
        time.sleep(0.0005)
    thread = _thread
    if thread is not None:
        thread.join(max(0.0, until - time.monotonic()))


timer_thread.set_starter(_start)
os.register_at_fork(after_in_child=timer_thread.after_fork_in_child)
