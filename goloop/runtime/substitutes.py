"""The threads that stand in for a loop's home thread while it is stuck, and which loops may be handed off.

When ownership of a loop is taken, how, and how it comes back is core's matter (ownership, handoff). The threads here
also carry the reports of the watch, because hooks and log handlers may block, and the monitor must not.
All state is guarded by `_lock`, which is never held while something else runs.
"""

from __future__ import annotations

import _thread
import os
import sys
import threading
import time
import weakref
from asyncio.log import logger as asyncio_logger
from collections.abc import Callable

from goloop._eventloop.loop import Loop
from goloop.core.sched import handoff as core
from goloop.core.sched import scheduler
from goloop.runtime import watch
from goloop.runtime import workers
from goloop.runtime.real_threads import require_threads

REPORTS = "reports"
IDLE = 10.0  # seconds without work after which a thread ends

_lock = _thread.allocate_lock()
_threads: set[threading.Thread] = set()
_idle: list[_Helper] = []
_started = 0  # ever, for the threads' names
_coming: set[int] = set()  # ids of loops that a thread is on its way to
_ending = False  # shutdown() waits for them
_enabled: weakref.WeakSet[Loop] = weakref.WeakSet()  # loops with handoff=True that are not closed


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


def _give(job: Callable[[], None], name: str) -> bool:
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


def _request(loop: Loop) -> None:
    """Bring a substitute to a loop that nobody runs; the monitor asks until there is one."""
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

    if not _give(work, "substitute"):
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


def start_monitoring(loop: Loop) -> None:
    """A loop is about to run: let the monitor watch it."""
    workers.shut_down_at_exit()
    # One that a goroutine runs stays there: the thread may be in another goroutine when it looks stuck.
    core.configure(loop, loop._handoff and scheduler.this_worker() is None, loop._watches())
    core.start_monitoring(loop)


def stop_monitoring(loop: Loop) -> None:
    """A loop has run."""
    core.stop_monitoring(loop)


def shutdown(patience: float = 1.0) -> None:
    """End the threads that have nothing to do, and give the others so many seconds; they start again on demand."""
    global _ending
    with _lock:
        _ending = True
        waiting = list(_idle)
        _idle.clear()
        threads = list(_threads)
    for helper in waiting:
        helper.ready.release()
    until = time.monotonic() + patience
    for thread in threads:
        if thread is not threading.current_thread():
            thread.join(max(0.0, until - time.monotonic()))
    with _lock:
        _ending = False


def _after_fork_in_child() -> None:
    global _lock, _ending
    _lock = _thread.allocate_lock()
    _ending = False
    _threads.clear()
    _idle.clear()
    _coming.clear()
    core.after_fork_in_child()
    watch.after_fork()


watch.carry = lambda job: _give(job, REPORTS)
core.set_runtime(_request, watch.tell, watch.abandoned)
workers.shutdown_callbacks.append(shutdown)
os.register_at_fork(after_in_child=_after_fork_in_child, after_in_parent=core.after_fork_in_parent)
