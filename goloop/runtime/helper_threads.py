"""Threads that do what may block: standing in for a stuck loop's home thread, and delivering the watch's reports.

Hooks and log handlers may block, and the monitor must not. A thread without work waits a while for more, then ends.
All state is guarded by `_lock`, which is never held while something else runs.
"""

from __future__ import annotations

import _thread
import threading
import time
from collections.abc import Callable

from goloop.runtime import workers

REPORTS = "reports"
IDLE = 10.0  # seconds without work after which a thread ends

_lock = _thread.allocate_lock()
_threads: set[threading.Thread] = set()
_idle: list[_Helper] = []
_started = 0  # ever, for the threads' names
_ending = False  # stop() waits for them


class _Helper:
    """A thread that waits for work."""

    def __init__(self, job: Callable[[], None] | None) -> None:
        self.job = job
        self.ready = _thread.allocate_lock()
        self.ready.acquire()

    def run(self) -> None:
        try:
            while self.job is not None:
                job, self.job = self.job, None
                job()
                del job
                with _lock:
                    if _ending:
                        return
                    _idle.append(self)
                self.ready.acquire(timeout=IDLE)
                if self.job is None:
                    with _lock:
                        # Given one after all, while the time ran out: the lock was released then.
                        if self in _idle:
                            _idle.remove(self)
                        elif self.job is not None:
                            self.ready.acquire()
        finally:
            with _lock:
                _threads.discard(threading.current_thread())


def give(job: Callable[[], None], name: str) -> bool:
    """Let a thread do the job. Returns False if there may be no more of them. Any thread."""
    global _started
    with _lock:
        if _ending:
            return False
        if _idle:
            helper = _idle.pop()
            helper.job = job
            helper.ready.release()
            return True
        # The report that there are no more must find one.
        if len(_threads) + workers.thread_count() >= workers.MAX_THREADS and name != REPORTS:
            return False
        _started += 1
        thread = threading.Thread(target=_Helper(job).run, name=f"goloop-{name}-{_started}", daemon=True)
        _threads.add(thread)
    try:
        thread.start()
    except RuntimeError:  # the system has no more threads, or the interpreter ends
        with _lock:
            _threads.discard(thread)
        return False
    return True


def all_idle() -> bool:
    """Return whether none of the threads has a job. Any thread."""
    return len(_idle) == len(_threads)


def stop(until: float) -> None:
    """End the threads that have nothing to do, and give the others a second, or up to `until` on the monotonic clock.
    They start again on demand."""
    global _ending
    with _lock:
        _ending = True
        waiting = list(_idle)
        _idle.clear()
        threads = list(_threads)
    for helper in waiting:
        helper.ready.release()
    until = min(until, time.monotonic() + 1.0)
    for thread in threads:
        if thread is not threading.current_thread():
            thread.join(max(0.0, until - time.monotonic()))
    with _lock:
        _ending = False


def after_fork_in_child() -> None:
    """The threads stayed in the parent."""
    global _lock, _ending
    _lock = _thread.allocate_lock()
    _ending = False
    _threads.clear()
    _idle.clear()
