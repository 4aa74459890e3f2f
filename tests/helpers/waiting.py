"""Waiting for a condition, never for a time."""

import asyncio
import socket
import time
from collections.abc import Callable, Coroutine
from typing import Any

SECONDS = 60  # for what never takes that long
PAUSE = 0.001  # seconds between two looks at a condition that nothing announces


def until(condition: Callable[[], object]) -> None:
    """Wait until the condition holds."""
    end = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < end, "it never came true"
        time.sleep(PAUSE)


async def async_until(condition: Callable[[], object]) -> None:
    """Let the loop run until the condition holds, asleep in between."""
    end = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < end, "it never came true"
        await asyncio.sleep(PAUSE)


def turn(loop: asyncio.AbstractEventLoop) -> None:
    """Run one iteration: what is ready or due now, and nothing that this schedules in its turn."""
    loop.call_soon(loop.stop)
    loop.run_forever()


async def polled() -> None:
    """Return when the loop has seen all that was readable, and has run what it calls for that."""
    loop = asyncio.get_running_loop()
    seen = asyncio.Event()
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        loop.add_reader(ours, seen.set)
        theirs.send(b"x")
        await seen.wait()
        loop.remove_reader(ours)
    await asyncio.sleep(0)


async def settle() -> None:
    """Give the loop, and threads that work for it, the chance to do what they should not do."""
    for _ in range(5):
        await asyncio.sleep(0)
    await asyncio.sleep(10 * PAUSE)
    await polled()


async def parked(coroutine: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
    """Start a task, let it come to its wait, and return it."""
    task = asyncio.ensure_future(coroutine)
    for _ in range(3):
        await asyncio.sleep(0)
    assert not task.done()
    return task
