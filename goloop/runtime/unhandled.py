"""Where an exception that cannot be observed any more goes: the loop's exception handler, or a crash."""

from __future__ import annotations

import os
import sys
import traceback
from asyncio.log import logger
from typing import Any

from goloop import _environment
from goloop.core.sched import goroutine, scheduler

PANIC: str = _environment.get("GOLOOP_PANIC")


def report(message: str, exception: BaseException, g: goroutine.Goroutine[Any], loop: Any) -> None:
    """Tell the loop's exception handler, or end the process if GOLOOP_PANIC=crash.

    loop: the one that the goroutine was started from; when it does not run, or None, a worker's or the log is told.
    """
    if sys.is_finalizing():
        # The interpreter is taking itself apart: logging and the source lines may be gone, the plain words are not.
        try:
            sys.stderr.write(f"{message}\ngoroutine: {g!r}\n{type(exception).__name__}: {exception}\n")
        except Exception:
            pass
        return
    if PANIC == "crash":
        crash(message, exception, g)
    context = {"message": message, "exception": exception, "goroutine": g, "source_traceback": g.spawn_stack}
    if loop is not None and loop.is_running():
        try:
            loop.call_soon_threadsafe(loop.call_exception_handler, context)
            return
        except RuntimeError:
            pass  # closed
    worker = scheduler.this_worker()
    if worker is not None:
        worker.loop.call_exception_handler(context)
    else:
        log(message, exception, g)


def at_once(exception: BaseException, g: goroutine.Goroutine[Any]) -> None:
    """A goroutine has ended with an exception, and has no waiter: end the process if GOLOOP_PANIC=crash."""
    if PANIC == "crash" and not sys.is_finalizing():
        crash("a goroutine raised an exception, and nothing waited for it", exception, g)


def report_held() -> None:
    """At exit: report the exceptions that were not retrieved of goroutines with handles that are still held. The
    process then exits with status 1 instead of 0."""
    for g in goroutine.unobserved():
        goroutine.fail_at_exit()
        exception = g.exception()  # observed from here on
        if exception is not None:
            report("Goroutine exception was never retrieved", exception, g, None)


def log(message: str, exception: BaseException, g: goroutine.Goroutine[Any]) -> None:
    created = "".join(traceback.format_list(g.spawn_stack))
    text = f"{message}\ngoroutine: {g!r}\nObject created at (most recent call last):\n{created.rstrip()}"
    logger.error(text, exc_info=(type(exception), exception, exception.__traceback__))


def crash(message: str, exception: BaseException, g: goroutine.Goroutine[Any]) -> None:
    """Print the exception and a dump of the goroutines, and exit with status 2, as a panic does in Go."""
    lines = [f"panic: {message}\n", *traceback.format_exception(exception)]
    lines += [f"\n{g!r} created at:\n", *traceback.format_list(g.spawn_stack)]
    for other in goroutine.all_goroutines():
        lines.append(f"\n{other!r}\n")
        lines += traceback.format_list(other.spawn_stack)
    sys.stderr.write("".join(lines))
    sys.stderr.flush()
    sys.stdout.flush()
    os._exit(2)
