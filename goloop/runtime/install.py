"""The composition of the package: each part is given here, once and in this order, what it calls upwards."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

from goloop._eventloop.loop import Loop
from goloop.core.loop import iteration
from goloop.core.sched import goroutine, handoff, scheduler, waiter
from goloop.core.sync import timer_thread as core_timers
from goloop.runtime import fork, helper_threads, ports, shutdown, substitutes, timer_thread, unhandled, watch, workers

IMPORTED = time.monotonic()  # seconds; when goloop was
_look_out: Callable[[], None]


class _Runtime:
    """runtime.ports.Runtime, made of the modules beside this one."""

    def enable_handoff(self, loop: Loop) -> None:
        substitutes.enable(loop)

    def loop_starts(self, loop: Loop, watched: bool) -> None:
        if loop._handoff or watched:
            substitutes.start_monitoring(loop, watched)
        if watched:
            _look_out()

    def loop_stops(self, loop: Loop) -> None:
        substitutes.stop_monitoring(loop)

    def loop_closes(self, loop: Loop) -> None:
        workers.end_goroutines_of(loop)

    def loop_closed(self, loop: Loop) -> None:
        substitutes.disable(loop)

    def carry(self, job: Callable[[], None]) -> bool:
        return helper_threads.give(job, helper_threads.REPORTS)


def install(nothing_moves: Callable[[Any], tuple[BaseException | None, Any]], look_out: Callable[[], None]) -> None:
    """Put the package together. Called by `import goloop`.

    nothing_moves: what those ask who wait for good, as waiter.set_nothing_moves() has it. look_out: called when a loop
    is watched, and again as long as one is.
    """
    waiter.set_nothing_moves(nothing_moves)
    iteration.set_nothing_moves(nothing_moves)
    global _look_out
    _look_out = look_out
    scheduler.set_starter(workers.start_worker)
    scheduler.set_procs(len(os.sched_getaffinity(0)))
    goroutine.set_reporter(unhandled.report, unhandled.at_once)
    core_timers.set_starter(timer_thread.start)
    handoff.set_runtime(substitutes.request, watch.tell, watch.abandoned)
    ports.set_runtime(_Runtime())
    shutdown.set_steps(workers.stop, helper_threads.stop, last=(unhandled.report_held,))
    shutdown.install()
    fork.install()
