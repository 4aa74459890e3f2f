"""Whether anything can ever wake what waits: if not, whoever waits for it in a thread or in run() gets a DeadlockError.

Everything that could wake something counts, also if it never would: a timer, a descriptor that is watched, a thread
that is not goloop's own, a job in an executor, a signal handler, a loop of another kind. A thread that waits for good
asks now and then, and the answer counts when it is the same twice and nothing has moved in between.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import weakref
from asyncio import runners
from types import FrameType
from typing import Any

from goloop._eventloop import signals
from goloop.core.look import loops as core
from goloop.core.look.waits import blocked_threads
from goloop.core.net.polldesc import PollDesc
from goloop.core.sched import goroutine, scheduler
from goloop.core.sync import timer_thread
from goloop.debug._collect import Jobs, snapshot
from goloop.debug._text import text_of
from goloop.errors import DeadlockError
from goloop.runtime import helper_threads, workers

_NATIVE = ("goloop-netpoll", "goloop-monitor")
_OWN = frozenset(("goloop-clock", "goloop-door", "goloop-door-client", "goloop-schedtrace"))  # they only look
harmless: weakref.WeakSet[threading.Thread] = weakref.WeakSet()  # threads of goloop.debug's, which wake no goroutine

_telling = threading.Lock()
os.register_at_fork(after_in_child=_telling._at_fork_reinit)  # type: ignore[attr-defined]
_tellings = 0  # how often a thread was told; guard: _telling


def look(found: Any) -> tuple[BaseException | None, Any]:
    """What a thread asks that waits for good; see waiter.set_nothing_moves()."""
    global _tellings
    now = _at_rest()
    if now is None or now != found:
        return None, now
    if not _speaks_for_all():
        return None, None
    with _telling:  # the one that is told may wake the others: nothing rests any more
        if _at_rest() != found:
            return None, None
        _tellings += 1
    headline = "all goroutines and tasks are asleep, and nothing can ever wake them"
    return DeadlockError(f"{headline}\n\n{text_of(snapshot())}"), now


def _speaks_for_all() -> bool:
    """Whether this thread is the one that is told: the main thread, if that waits as well."""
    main = threading.main_thread()
    if threading.current_thread() is main or not main.is_alive():
        return True
    return main.ident not in _waiting() and all(core.loop_runs(loop) != main.ident for loop in signals.all_loops())


def _waiting() -> set[int]:
    """The idents of the threads that wait without an end, and not for a descriptor."""
    return {
        ident for ident, on, ends in blocked_threads() if not ends and not (isinstance(on, PollDesc) and on.fd >= 0)
    }


def _at_rest() -> Any:
    """Return None if something may wake something, else what has happened so far, to be compared."""
    me = threading.get_ident()
    if sys.is_finalizing() or scheduler.backlog_size() or timer_thread.pending():
        return None
    waiting = _waiting()
    resting = {me, *waiting}
    beats = []
    for loop in signals.all_loops():
        home = 0 if loop.is_closed() else core.loop_runs(loop)
        if home:
            if not _rests(loop, me):
                return None
            resting.add(home)
            beats.append((id(loop), core.beat(loop)))
    if not all(core.worker_rests(worker) for worker in scheduler.all_workers()):
        return None
    if _handles_signals() or not _threads_rest(resting):
        return None
    return beats, goroutine.last_goroutine_id(), goroutine.num_goroutine(), waiting, _tellings


def _rests(loop: Any, me: int) -> bool:
    """Whether a loop that runs sleeps, and has nothing that could end that."""
    own_descriptors = 1 if loop._signal_sockets is not None else 0
    return (
        core.loop_rests(loop, me)
        and not core.timers_but(loop, workers._retire_if_idle)
        and loop._stats()["descriptors"] == own_descriptors
    )


def _handles_signals() -> bool:
    """Whether a signal has a handler of the program's, which could wake something."""
    for number in signal.valid_signals():
        handler: Any = signal.getsignal(number)
        if handler is None or not callable(handler) or handler is signal.default_int_handler:
            continue  # None: a handler in C, as faulthandler's
        function = getattr(getattr(handler, "func", handler), "__func__", None)
        if function is not getattr(runners.Runner, "_on_sigint", ...):  # asyncio.run()'s: as Ctrl-C without it
            return True
    return False


# ---------------------------------------------------------------------- threads
def _threads_rest(resting: set[int]) -> bool:
    """Whether no thread of the process could wake something. resting: idents of such as cannot."""
    frames = sys._current_frames()
    try:
        known = dict(threading._active)  # type: ignore[attr-defined]
        pools = Jobs(frames).threads
        idle = helper_threads.all_idle()
        for ident, frame in frames.items():
            thread = known.get(ident)
            if not (
                ident in resting
                or thread in harmless
                or (thread in helper_threads._threads and idle)
                or (thread is not None and thread.name in _OWN)
                or _pool_rests(pools.get(ident))
                or _waits_for_the_end(frame, ident)
            ):
                return False
        return _natives_rest({thread.native_id for thread in known.values()})
    finally:
        frames.clear()


def _pool_rests(job: tuple[Any, str] | None) -> bool:
    """Whether a thread of an executor has no job, and there is none for it."""
    if job is None:
        return False
    queue, text = job
    return not text and queue is not None and queue.qsize() == 0


def _waits_for_the_end(frame: FrameType, ident: int) -> bool:
    """Whether the main thread has ended, and waits for the others."""
    return ident == threading.main_thread().ident and frame.f_code is threading._shutdown.__code__  # type: ignore[attr-defined]


def _natives_rest(of_python: set[int | None]) -> bool:
    """Whether the threads that Python does not know are goloop's: an extension's could wake something."""
    try:
        for name in os.listdir("/proc/self/task"):
            if int(name) not in of_python:
                with open(f"/proc/self/task/{name}/comm") as file:
                    if file.read().rstrip("\n") not in _NATIVE:
                        return False
    except OSError:  # no /proc, or a thread has just ended
        return False
    return True
