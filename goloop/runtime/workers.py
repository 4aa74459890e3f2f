"""The worker pool: threads with a loop and a hub each, started on demand, retired when idle, ended in good order.

How goroutines take turns is core.sched's matter; this file owns the threads. All its state is guarded by
`_lock`, which is never held while a goroutine or a callback runs.
"""

from __future__ import annotations

import _thread
import asyncio
import sys
import threading
import time
import weakref
from asyncio.log import logger
from collections.abc import Callable
from typing import Any

from goloop import _environment
from goloop._eventloop.loop import Loop
from goloop.core.patch.hook import plain
from goloop.core.sched import goroutine, handoff, scheduler
from goloop.runtime import shutdown, timer_thread, watch
from goloop.runtime.real_threads import require_threads

IDLE = 10.0  # seconds without a goroutine after which a worker's thread ends
_MOST_PROCS = 2**31 - 1  # an int in C
ANNOUNCE = 1.0  # seconds of waiting for cancelled goroutines after which the log says so


MAX_THREADS: int = _environment.get("GOLOOP_MAXTHREADS")

WATCHED = bool(_environment.get("GOLOOP_WATCH"))  # goroutines that hold up others are reported always

_lock = _thread.allocate_lock()
_threads: set[threading.Thread] = set()  # of workers, from before their start to their end
_ending: set[scheduler.Worker] = set()  # told to stop
_starting = 0  # of these, such that have not yet looked at the backlog
_started = 0  # ever, for their names
_given_up: weakref.WeakSet[goroutine.Goroutine[Any]] = weakref.WeakSet()  # they have had their timeout


def start_worker() -> bool:
    """Start one more worker, unless one is on its way. False: there are MAX_THREADS. Any thread.

    A goroutine that starts another must not park in here, with the standard library patched: scheduling goes on.
    """
    require_threads()
    with plain():
        return _start_worker_here()


def _start_worker_here() -> bool:
    global _starting, _started
    with _lock:
        if _starting:
            return True
        full = len(_threads) >= MAX_THREADS
        if not full:
            _starting += 1
            _started += 1
            name = f"goloop-worker-{_started}"
            shutdown.at_exit()
    if full:
        watch.threads_used_up(MAX_THREADS)
        return False
    loop = thread = None
    try:
        scheduler.start_monitor()
        # Here, for the caller to learn what it failed for. Goroutines cannot leave their thread,
        # and may block it.
        loop = Loop(handoff=False, watch=False)
        thread = threading.Thread(target=_work, args=(loop,), name=name, daemon=True)
        with _lock:
            _threads.add(thread)
        thread.start()
    except BaseException as exc:
        # An exception from a signal handler may come when the thread runs: then the rest is the thread's.
        if thread is None or thread.ident is None:
            with _lock:
                _starting -= 1
                if thread is not None:
                    _threads.discard(thread)
            if loop is not None:
                loop.close()
        if isinstance(exc, RuntimeError) and "interpreter shutdown" in str(exc) and scheduler.all_workers():
            return False  # Python 3.12 and later start no thread once the main thread has ended: as with MAX_THREADS
        raise
    return True


def _work(loop: Loop) -> None:
    """What a worker's thread does."""
    global _starting
    worker = scheduler.Worker(loop)
    try:
        try:
            worker.enter()
        finally:
            with _lock:
                _starting -= 1
        loop.call_soon(worker.notify_self)
        loop.call_later(IDLE, _retire_if_idle, worker, worker.rounds)
        handoff.add_worker(loop, WATCHED)
        _run(worker)
        _end_loop(loop)
    except RuntimeError:
        if not loop._is_foreign():
            raise
        # In a forked child, when the goroutine that forked has ended: as with a thread that forks, the process ends
        # when no other thread is left.
        shutdown.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        handoff.remove_worker(loop)
        worker.exit()
        loop.close()
        left = [g for g in goroutine.abandon(worker) if g not in _given_up]
        if left:
            _complain(left, "the end of a worker", 0)
        with _lock:
            _threads.discard(threading.current_thread())
            _ending.discard(worker)


def _run(worker: scheduler.Worker) -> None:
    while True:
        try:
            worker.loop.run_forever()
            return
        except (SystemExit, KeyboardInterrupt):
            # A task of the loop raised it, and asyncio lets such through. Its goroutine has it as its exception, and
            # the others of this worker go on.
            if worker in _ending:
                return


def _end_loop(loop: Loop) -> None:
    """As asyncio.Runner does: cancel the tasks that are left, and shut down the generators and the executor."""
    tasks = asyncio.all_tasks(loop)
    for task in tasks:
        task.cancel()
    if tasks:
        loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.run_until_complete(loop.shutdown_default_executor())


def _retire_if_idle(worker: scheduler.Worker, turns: int) -> None:
    loop = worker.loop
    if not worker.retired:
        if worker.rounds != turns or _is_used(worker):
            loop.call_later(IDLE, _retire_if_idle, worker, worker.rounds)
            return
        worker.retire()
    if _is_used(worker):  # it got a goroutine at the last moment
        loop.call_later(IDLE, _retire_if_idle, worker, worker.rounds)
    else:
        _ending.add(worker)
        loop.stop()


def _is_used(worker: scheduler.Worker) -> bool:
    """Whether goroutines, or what they left on the loop - tasks, timers, servers, connections - need the worker."""
    stats = worker.loop._stats()
    return bool(worker.live or stats["timers"] or stats["descriptors"] or asyncio.all_tasks(worker.loop))


# ------------------------------------------------------------------------- end
def _end(goroutines: Callable[[], list[goroutine.Goroutine[Any]]], timeout: float, when: str) -> None:
    """Cancel what goroutines() returns until there are none, or `timeout` seconds are over. Those that are left then
    have had their time: they are not waited for again."""
    begun = time.monotonic()
    announced = False
    told: dict[int, float] = {}
    nap = 0.0002
    while True:
        left = [g for g in goroutines() if g not in _given_up]
        now = time.monotonic()
        if not left or now > begun + timeout:
            break
        for g in left:
            # Again after a while: it may have swallowed the first one in a clean-up.
            if told.get(g.id, 0.0) < now - 1.0:
                told[g.id] = now
                g.cancel()
        if now > begun + ANNOUNCE and not announced:
            announced = True
            rest = begun + timeout - now
            logger.warning("%s waits for cancelled goroutines, %.1f s more at most:\n%s", when, rest, _describe(left))
        time.sleep(nap)
        nap = min(2 * nap, 0.01)
    if left:
        _given_up.update(left)
        _complain(left, when, timeout)


def _describe(left: list[goroutine.Goroutine[Any]]) -> str:
    texts = [f"{g!r}\n{''.join(g.stack().format())}".rstrip() for g in left[:10]]
    if len(left) > 10:
        texts.append(f"and {len(left) - 10} more")
    return "\n".join(texts)


def _complain(left: list[goroutine.Goroutine[Any]], when: str, timeout: float) -> None:
    for g in left[:10]:
        logger.warning("%s: goroutine did not end in %.1f s after its cancellation: %r", when, timeout, g)
    if len(left) > 10:
        logger.warning("%s: and %d more", when, len(left) - 10)


def end_goroutines_of(loop: Loop) -> None:
    """Cancel the goroutines that were started from a loop, and wait for their ends."""
    if goroutine.num_goroutine() and scheduler.this_worker() is None:
        _end(lambda: goroutine.goroutines_of(loop), shutdown.SHUTDOWN_TIMEOUT, f"closing {loop!r}")


def stop(until: float) -> None:
    """Cancel every goroutine, wait for their ends, and stop the workers, the monitor and the clock, which could start
    goroutines. until: on the monotonic clock. RuntimeError in a goroutine."""
    if scheduler.this_worker() is not None:
        raise RuntimeError("a goroutine cannot shut down the pool that it runs on")
    timeout = max(0.0, until - time.monotonic())
    timer_thread.stop(timeout)  # what fires could start goroutines
    _end(goroutine.all_goroutines, timeout, "shutdown")
    if goroutine.num_goroutine():
        until = min(until, time.monotonic() + 0.1)  # they keep their threads, and the others end at once
    _stop_workers(until, timeout)
    timer_thread.stop(timeout)
    scheduler.stop_monitor()


def _stop_workers(until: float, timeout: float) -> None:
    while True:
        for worker in scheduler.all_workers():
            _ending.add(worker)
            worker.retire()
            try:
                worker.loop.call_soon_threadsafe(worker.loop.stop)
            except RuntimeError:
                _ending.discard(worker)  # it has just ended by itself
        if time.monotonic() > until or _all_gone(timeout):
            return
        with _lock:
            threads = list(_threads)
        try:
            threads[0].join(0.01)
        except (IndexError, RuntimeError):
            time.sleep(0.001)  # a thread is just about to be started


def _all_gone(timeout: float) -> bool:
    with _lock:
        if _threads or _starting:
            return False
    timer_thread.stop(timeout)  # again: a finally block may have set a timer
    scheduler.stop_monitor()  # and wait for it: it may be just about to bring in a worker
    with _lock:
        return not _threads and not _starting


def thread_count() -> int:
    """Return how many threads with workers there are."""
    return len(_threads)


def before_fork() -> None:
    """A process whose goroutines have all ended is to look single-threaded, and Python warns of forking others."""
    if not _threads:
        scheduler.stop_monitor()


def after_fork_in_child() -> None:
    """The workers and the monitor stayed in the parent, and so did the goroutines."""
    global _lock, _starting
    _lock = _thread.allocate_lock()
    _threads.clear()
    _ending.clear()
    _starting = 0
    scheduler.after_fork_in_child()
    goroutine.after_fork_in_child()


def gomaxprocs(n: int | None = None) -> int:
    """Set how many workers may run Python at once; return the number before (Go: runtime.GOMAXPROCS).

    n: an int of at least 1 (else TypeError, ValueError); None only asks. Workers stuck in blocking calls do not count.
    From any thread.
    """
    if n is None:
        return scheduler.get_procs()
    if not isinstance(n, int):
        raise TypeError(f"gomaxprocs() takes an int, got {n!r}")
    if not 1 <= n <= _MOST_PROCS:
        raise ValueError(f"gomaxprocs() takes at least 1, and at most {_MOST_PROCS}, got {n}")
    return scheduler.set_procs(n)
