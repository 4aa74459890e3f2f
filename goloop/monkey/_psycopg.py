"""PostgreSQL's drivers in C, which have hooks for waiting."""

from __future__ import annotations

import asyncio
import importlib
import select
from typing import Any

from goloop.core.patch.hook import is_cooperative


def patch_psycopg() -> None:
    """Let psycopg (3) wait by the select module in goroutines, which patch_select() makes park. From any thread.

    Plain threads and coroutines wait as before. A goroutine that is cancelled in a query, by goloop.timeout() for one,
    cancels the query, and its connection can be used again. A second call does nothing. ImportError where psycopg is
    not installed.
    """
    waiting: Any = importlib.import_module("psycopg.waiting")
    before = waiting.wait
    if getattr(before, "goloop", False):
        return

    def wait(*args: Any, **kwargs: Any) -> Any:
        return (waiting.wait_poll if is_cooperative() else before)(*args, **kwargs)

    wait.goloop = True  # type: ignore[attr-defined]
    waiting.wait = wait
    # What psycopg takes for Ctrl-C: it cancels the query, waits for that, and raises it again.
    connection: Any = importlib.import_module("psycopg.connection")
    interrupted = getattr(connection, "_INTERRUPTED", None)
    if isinstance(interrupted, tuple):
        connection._INTERRUPTED = (*interrupted, asyncio.CancelledError)


def patch_psycopg2() -> None:
    """Let psycopg2 call back where it waits, and park there in goroutines. From any thread; a second call does nothing.

    psycopg2 has one callback for the process and, with one, talks to the server asynchronously: plain threads still
    block, but COPY and large objects are refused everywhere. So patch_all() leaves this to the program. ImportError
    where psycopg2 is not installed.
    """
    extensions: Any = importlib.import_module("psycopg2.extensions")

    def wait(connection: Any) -> None:
        while True:
            state = connection.poll()
            if state == extensions.POLL_OK:
                return
            poll = select.poll()
            poll.register(connection.fileno(), select.POLLIN if state == extensions.POLL_READ else select.POLLOUT)
            poll.poll()

    if getattr(extensions.get_wait_callback(), "__module__", None) != __name__:
        extensions.set_wait_callback(wait)
