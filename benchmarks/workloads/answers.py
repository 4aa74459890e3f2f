"""Checks that run on a loop: whoever fails one of them is not measured in the families concerned.

Each looks at what the workloads of its family rely on, and raises AssertionError with what was wrong.
"""

from __future__ import annotations

import asyncio
import asyncio.subprocess
import contextvars
import random
import socket
import threading
from typing import Any

import aiohttp

EARLY = 0.002  # seconds; uvloop counts in milliseconds


def expect(condition: object, what: str) -> None:
    if not condition:
        raise AssertionError(what)


async def starts(loop: Any) -> None:
    """Runs a coroutine, and comes to an end after it."""
    expect(await asyncio.sleep(0, "value") == "value", "asyncio.sleep() returned something else")


async def callbacks(loop: Any) -> None:
    """Order, arguments, contexts and cancellation of call_soon()."""
    seen: list[Any] = []
    done = loop.create_future()
    for number in range(9_999):
        arguments = (number, "b", "c")[: number % 3 + 1]
        loop.call_soon(lambda *args: seen.append(args), *arguments)
    loop.call_soon(done.set_result, None)
    await done
    expect(seen == [(n, "b", "c")[: n % 3 + 1] for n in range(9_999)], "call_soon: another order, or other arguments")

    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="outside")
    context = contextvars.copy_context()
    context.run(variable.set, "given")
    values: list[str] = []
    loop.call_soon(lambda: values.append(variable.get()), context=context)
    variable.set("inherited")
    loop.call_soon(lambda: values.append(variable.get()))
    variable.set("too late")
    cancelled = loop.call_soon(values.append, "cancelled")
    cancelled.cancel()
    await asyncio.sleep(0)
    expect(values == ["given", "inherited"], f"call_soon: contexts or cancellation: {values}")

    order: list[int] = []

    def first() -> None:
        order.append(1)
        loop.call_soon(order.append, 3)

    loop.call_soon(first)
    loop.call_soon(order.append, 2)
    await asyncio.sleep(0)
    expect(order == [1, 2], f"call_soon from a callback does not wait for the next turn: {order}")
    await asyncio.sleep(0)
    expect(order == [1, 2, 3], f"call_soon from a callback: {order}")


async def tasks(loop: Any) -> None:
    """Tasks take turns, results and exceptions arrive."""
    order: list[str] = []

    async def work(name: str) -> str:
        for _ in range(100):
            order.append(name)
            await asyncio.sleep(0)
        return name

    async def fail() -> None:
        await asyncio.sleep(0)
        raise KeyError("key")

    a, b, error = await asyncio.gather(work("a"), work("b"), fail(), return_exceptions=True)
    expect(order == ["a", "b"] * 100, "sleep(0): tasks do not take turns")
    expect(a == "a" and b == "b" and isinstance(error, KeyError), f"gather: {a!r}, {b!r}, {error!r}")


async def timers(loop: Any) -> None:
    """Timers fire in order, not before they are due, and not if they are cancelled."""
    delays = [step / 100 for step in range(1, 21)]
    random.Random(0).shuffle(delays)
    done = loop.create_future()
    fired: list[float] = []
    early: list[float] = []
    begun = loop.time()

    def fire(due: float) -> None:
        fired.append(due)
        if loop.time() < due - EARLY:
            early.append(due - loop.time())

    for delay in delays:
        loop.call_at(begun + delay, fire, begun + delay)
        loop.call_later(delay, fired.append, -1.0).cancel()
    loop.call_later(0.25, done.set_result, None)
    await done
    expect(fired == [begun + delay for delay in sorted(delays)], "timers: another order, or a cancelled one fired")
    expect(not early, f"timers: {max(early, default=0) * 1e3:.1f} ms early")

    count, left = 5_000, 5_000
    now = loop.create_future()

    def arrive() -> None:
        nonlocal left
        left -= 1
        if not left:
            now.set_result(None)

    for _ in range(count):
        loop.call_later(0, arrive)
    await asyncio.wait_for(now, 10)


async def threadsafe(loop: Any) -> None:
    """Nothing that four threads post is lost, and each thread's come in order; a sleeping loop wakes up."""
    each = 5_000
    got: list[list[int]] = [[] for _ in range(4)]
    done = loop.create_future()
    ended = 0

    def end() -> None:
        nonlocal ended
        ended += 1
        if ended == len(got):
            done.set_result(None)

    def post(mine: list[int]) -> None:
        for number in range(each):
            loop.call_soon_threadsafe(mine.append, number)
        loop.call_soon_threadsafe(end)

    threads = [threading.Thread(target=post, args=(mine,)) for mine in got]
    for thread in threads:
        thread.start()
    await asyncio.wait_for(done, 20)
    for thread in threads:
        thread.join()
    expect(all(mine == list(range(each)) for mine in got), "call_soon_threadsafe: some are lost, or in another order")

    woken = loop.create_future()
    threading.Timer(0.05, loop.call_soon_threadsafe, (woken.set_result, None)).start()
    await asyncio.wait_for(woken, 10)


def in_numbers(entries: Any) -> list[tuple[object, ...]]:
    return [(int(family), int(kind), *rest) for family, kind, *rest in entries]


async def getaddrinfo(loop: Any) -> None:
    """The same as socket.getaddrinfo()."""
    for host in ("127.0.0.1", "::1", "localhost"):
        got = in_numbers(await loop.getaddrinfo(host, 80, type=socket.SOCK_STREAM))
        right = in_numbers(socket.getaddrinfo(host, 80, type=socket.SOCK_STREAM))
        expect(got == right, f"getaddrinfo({host!r}): {got} instead of {right}")
    try:
        await loop.getaddrinfo("name.invalid.", 80, type=socket.SOCK_STREAM)
    except socket.gaierror:
        return
    raise AssertionError("getaddrinfo: no error for a name that does not exist")


async def subprocesses(loop: Any) -> None:
    """Exit statuses, of several at a time, and bytes through cat."""

    async def status_of(*command: str) -> int:
        process = await asyncio.create_subprocess_exec(*command)
        return await process.wait()

    for _ in range(3):
        got = await asyncio.gather(*(status_of("sh", "-c", f"exit {status}") for status in range(10)))
        expect(got == list(range(10)), f"subprocess: exit statuses {got}")
    expect(await status_of("sh", "-c", "kill -TERM $$") == -15, "subprocess: status of one that a signal ended")

    pipe = asyncio.subprocess.PIPE
    data = random.Random(0).randbytes(3_000_001)
    process = await asyncio.create_subprocess_exec("cat", stdin=pipe, stdout=pipe)
    out, _ = await process.communicate(data)
    expect(out == data and process.returncode == 0, "subprocess: other bytes came back from cat")


async def http_client(loop: Any, port: int, length: int) -> None:
    """Bodies of a server that answers with so many bytes."""
    async with aiohttp.ClientSession() as session:
        for _ in range(20):
            async with session.get(f"http://127.0.0.1:{port}/") as response:
                body = await response.read()
                expect(response.status == 200 and len(body) == length, f"http client: {response.status}, {body!r}")
