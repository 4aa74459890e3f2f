"""Five classic races, each as a small program that passes first come, first served, and fails for some schedules."""

from __future__ import annotations

import asyncio

import goloop
from goloop import sync


async def lost_update() -> None:
    """A value is read, and written back behind an await: what another task has written meanwhile is lost."""
    total = 0

    async def add(*pauses: float) -> None:
        nonlocal total
        for pause in pauses:
            await asyncio.sleep(pause)
        seen = total
        await asyncio.sleep(1)
        total = seen + 1

    await asyncio.gather(add(1), add(1.5, 0.5))
    assert total == 2


def double_checked_init() -> None:
    """It is looked whether the thing is there, and again, but not after the wait."""
    made: list[object] = []
    mutex = sync.Mutex()
    things: set[int] = set()

    def instance() -> None:
        if not made:
            with mutex:
                pass  # the second look is missing
            made.append(object())
        things.add(id(made[-1]))

    for g in [goloop.go(instance) for _ in range(3)]:
        g.join()
    assert len(things) == 1


def missed_close() -> None:
    """A consumer that looks for the end in a select misses what was sent before it."""
    queue, done = goloop.Chan[int](3), goloop.Chan[None]()
    got = []

    def consume() -> None:
        while True:
            index, value, _ = goloop.select(goloop.recv(queue), goloop.recv(done))
            if index == 1:
                return
            got.append(value)

    consumer = goloop.go(consume)
    for n in range(3):
        queue.send(n)
    done.close()
    consumer.join()
    assert got == [0, 1, 2]


def lock_order() -> None:
    """Two locks are taken in opposite orders."""
    first, second = sync.Mutex(), sync.Mutex()

    def both(a: sync.Mutex, b: sync.Mutex) -> None:
        with a, b:
            pass

    for g in [goloop.go(both, first, second), goloop.go(both, second, first)]:
        g.join()


async def late_timeout() -> None:
    """A timeout fires as the result arrives, and what was taken for the waiter is lost."""
    stock, answers = ["one"], goloop.Chan[str]()
    asyncio.get_running_loop().call_later(1, lambda: answers.try_send(stock.pop()))
    try:
        got = await answers.async_recv(timeout=1)
    except TimeoutError:
        got = None
    assert got == "one" or stock == ["one"]
