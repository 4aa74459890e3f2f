"""Small tools for the scenarios in this directory.

Outcomes are compared between two loops, so they must be plain values without addresses or descriptor
numbers. Nothing here keeps state, except for the log handler while ``logged`` is open.
"""

import asyncio
import contextlib
import logging
import os
import re
import socket
import subprocess
import sys
import textwrap
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from typing import Any


def turn(loop: asyncio.AbstractEventLoop) -> None:
    """Run one iteration: what is ready or due now, and nothing that this schedules in its turn."""
    loop.call_soon(loop.stop)
    loop.run_forever()


def attempt(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call; return the value, or the exception's type name and text."""
    try:
        return function(*args, **kwargs)
    except Exception as exc:
        return type(exc).__name__, str(exc)


async def attempt_await(awaitable: Awaitable[Any]) -> Any:
    """Await; return the value, or the exception's type name and text."""
    try:
        return await awaitable
    except (Exception, asyncio.CancelledError) as exc:
        return type(exc).__name__, str(exc)


def plain(text: object) -> str:
    """A repr or message without what may differ from run to run: addresses, seconds, task numbers."""
    text = re.sub(r"0x[0-9a-f]+", "0x", str(text))
    return re.sub(r"\d+\.\d+", "S", re.sub(r"Task-\d+", "Task-N", text))


@contextlib.contextmanager
def logged(level: int = logging.WARNING) -> Iterator[list[tuple[str, str]]]:
    """A list of ``(level name, message)`` of what the ``asyncio`` logger is given, first line only."""
    logger = logging.getLogger("asyncio")
    lines: list[tuple[str, str]] = []

    class Collect(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append((record.levelname, record.getMessage().splitlines()[0]))

    handler = Collect(level)
    before, logger.propagate = logger.propagate, False
    level_before = logger.level
    logger.setLevel(level)
    logger.addHandler(handler)
    try:
        yield lines
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level_before)
        logger.propagate = before


def run_script(loop: asyncio.AbstractEventLoop, source: str, **environ: str) -> tuple[int, str]:
    """Run ``source`` in a fresh interpreter; return its exit status and standard output.

    The script finds a loop like the given one as ``loop``, and its class as ``new_loop``. Standard error is passed
    on to ours, where pytest shows it should the test fail.
    """
    cls = type(loop)
    prelude = f"""\
        import asyncio, os, signal, socket, sys, threading, time
        from {cls.__module__} import {cls.__qualname__} as new_loop
        loop = new_loop()
    """
    path = os.pathsep.join(entry for entry in sys.path if entry)
    done = subprocess.run(
        [sys.executable, "-u", "-c", textwrap.dedent(prelude) + textwrap.dedent(source)],
        env={**os.environ, "PYTHONPATH": path, **environ},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )
    sys.stderr.write(done.stderr)
    return done.returncode, done.stdout


@contextlib.contextmanager
def stream_pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two connected sockets that do not block."""
    one, other = socket.socketpair()
    with one, other:
        one.setblocking(False)
        other.setblocking(False)
        yield one, other


@contextlib.contextmanager
def listening(
    family: socket.AddressFamily = socket.AF_INET, address: Any = ("127.0.0.1", 0)
) -> Iterator[socket.socket]:
    """A listening socket that does not block."""
    with socket.socket(family) as sock:
        sock.bind(address)
        sock.listen(10)
        sock.setblocking(False)
        yield sock


def client(
    family: socket.AddressFamily = socket.AF_INET, type: socket.SocketKind = socket.SOCK_STREAM
) -> socket.socket:
    """A socket that is not connected and does not block."""
    sock = socket.socket(family, type)
    sock.setblocking(False)
    return sock


async def parked(coroutine: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
    """Start a task, let it come to its wait, and return it."""
    task = asyncio.ensure_future(coroutine)
    for _ in range(3):
        await asyncio.sleep(0)
    assert not task.done()
    return task
