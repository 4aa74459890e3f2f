"""GOLOOP_SCHEDTRACE: a line to stderr every so many milliseconds, as Go's GODEBUG=schedtrace prints it."""

from __future__ import annotations

import os
import threading
import time

from goloop import _environment
from goloop._eventloop.stats import LoopStats
from goloop.core.patch.hook import plain
from goloop.debug._stats import Stats, stats
from goloop.runtime import fork

_started = False


def start() -> None:
    """Begin to print, if the environment asks for it. Once; the import of goloop calls it."""
    global _started
    if _environment.get("GOLOOP_SCHEDTRACE") and not _started:
        _started = True
        _start_thread()
        fork.add(_start_thread)  # a child prints lines of its own


def _start_thread() -> None:
    interval = _environment.get("GOLOOP_SCHEDTRACE") / 1000
    with plain():
        threading.Thread(target=_print, args=(interval,), name="goloop-schedtrace", daemon=True).start()


def _print(interval: float) -> None:
    begun = due = time.monotonic()
    before = stats()
    while True:
        due += interval
        time.sleep(max(0.0, due - time.monotonic()))
        now = stats()
        try:
            os.write(2, line(now, before, time.monotonic() - begun).encode())
        except OSError:
            return  # nobody reads any more
        before = now


def line(now: Stats, before: Stats, seconds: float) -> str:
    """Return the line for the time between two stats(). seconds: since the first one. From any thread."""
    parked = sum(n for state, n in now.goroutines.items() if state not in ("not started", "runnable", "running"))
    text = (
        f"SCHED {seconds * 1000:.0f}ms: pid={now.pid} gomaxprocs={now.gomaxprocs} "
        f"workers={now.workers}/{now.max_workers} threads={now.threads} goroutines={sum(now.goroutines.values())} "
        f"parked={parked} runnable={now.goroutines.get('runnable', 0)} "
        f"backlog={now.backlog}/{now.backlog_age * 1000:.0f}ms handoffs={now.handoffs}"
    )
    known = {loop.number: loop for loop in before.loops}
    elapsed = max(now.time - before.time, 1e-9)
    return "".join((text, *(_loop(loop, known.get(loop.number), elapsed) for loop in now.loops), "\n"))


def _loop(now: LoopStats, before: LoopStats | None, elapsed: float) -> str:
    lag = now.lag if before is None else now.lag - before.lag
    callbacks = now.callbacks - (before.callbacks if before else 0)
    busy = min((now.busy - (before.busy if before else 0)) / elapsed, 1)
    late = max(lag.quantile(0.99), now.behind) * 1000
    return (
        f" [loop {now.number} {now.thread or 'not running'}: busy={busy:.0%} "
        f"callbacks={callbacks} lag={late:.3g}ms ready={now.ready} timers={now.timers} "
        f"fds={now.descriptors}]"
    )
