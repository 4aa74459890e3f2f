"""PostgreSQL's drivers in C, which have hooks for waiting."""

from __future__ import annotations

import asyncio
import importlib
import select
from typing import Any

from goloop.core.patch import fd_wait
from goloop.core.patch.hook import is_cooperative

_READ, _WRITE = 1, 2  # psycopg.waiting.Wait and Ready


def _ready(fd: int, wanted: int, seconds: float) -> int:
    """Park until what is wanted of these two can be done; 0: the time is over. psycopg has tried before."""
    if wanted == _READ | _WRITE:
        poll = select.poll()
        poll.register(fd, select.POLLIN | select.POLLOUT)
        events = dict(poll.poll(seconds * 1000)).get(fd, 0)
        can_write = events & ~select.POLLIN  # or fails to
        return (_READ if events & select.POLLIN else 0) | (_WRITE if can_write else 0)
    return wanted if fd_wait.wait_again(fd, wanted == _WRITE, seconds) else 0


def _run(generator: Any, fd: int, interval: float) -> Any:
    """psycopg.waiting.wait_poll() in a goroutine: let one of psycopg's generators wait, and return its value."""
    try:
        wanted = next(generator)
        while True:
            wanted = generator.send(_ready(fd, wanted, interval))
    except StopIteration as end:
        return end.value


def patch_psycopg() -> None:
    """Let psycopg (3) park goroutines that wait for the server. From any thread.

    Plain threads and coroutines wait as before. A goroutine that is cancelled in a query, by goloop.timeout() for one,
    cancels the query, and its connection can be used again. A second call does nothing. ImportError where psycopg is
    not installed.
    """
    waiting: Any = importlib.import_module("psycopg.waiting")
    before = waiting.wait
    if getattr(before, "goloop", False):
        return

    def wait(generator: Any, fileno: int, interval: float = 0.0, **options: Any) -> Any:
        if not is_cooperative():
            return before(generator, fileno, interval, **options)
        if interval and interval > 0 and options.get("timeout") is None:
            return _run(generator, fileno, interval)
        return waiting.wait_poll(generator, fileno, interval, **options)

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
            write = state != extensions.POLL_READ
            if is_cooperative():
                fd_wait.wait_again(connection.fileno(), write)
            else:
                poll = select.poll()
                poll.register(connection.fileno(), select.POLLOUT if write else select.POLLIN)
                poll.poll()

    if getattr(extensions.get_wait_callback(), "__module__", None) != __name__:
        extensions.set_wait_callback(wait)
