"""Scheduling: call_soon, call_soon_threadsafe, timers, tasks, futures. No I/O."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

from child import Operate, Watch

from workloads import keep


def nothing() -> None:
    pass


async def call_soon(loop: Any) -> Operate:
    """A chain: each callback schedules the next."""

    async def operate(n: int, watch: Watch) -> None:
        done = loop.create_future()
        left = n

        def step() -> None:
            nonlocal left
            left -= 1
            if left:
                loop.call_soon(step)
            else:
                done.set_result(None)

        with watch:
            loop.call_soon(step)
            await done

    return operate


async def call_soon_batch(loop: Any) -> Operate:
    """A thousand callbacks at a time, with an argument."""

    async def operate(n: int, watch: Watch) -> None:
        seen = 0

        def count(step: int) -> None:
            nonlocal seen
            seen += step

        with watch:
            while seen < n:
                for _ in range(min(1000, n - seen)):
                    loop.call_soon(count, 1)
                await asyncio.sleep(0)

    return operate


async def call_soon_burst(loop: Any, arguments: int, count: int) -> Operate:
    """Bursts: `count` callbacks are scheduled at once, and then run. A burst is the operation."""

    bodies: dict[int, Any] = {0: nothing, 1: lambda a: None, 3: lambda a, b, c: None}
    body, args = bodies[arguments], (1, 2, 3)[:arguments]

    async def operate(n: int, watch: Watch) -> None:
        for _ in range(n):
            done = loop.create_future()
            with watch:
                for _ in range(count):
                    loop.call_soon(body, *args)
                loop.call_soon(done.set_result, None)
                await done

    return operate


async def call_soon_threadsafe(loop: Any, threads: int) -> Operate:
    """Other threads post callbacks as fast as they can."""

    async def operate(n: int, watch: Watch) -> None:
        n = max(n // threads, 1) * threads
        done = loop.create_future()
        left = n

        def arrived() -> None:
            nonlocal left
            left -= 1
            if not left:
                done.set_result(None)

        def post() -> None:
            for _ in range(n // threads):
                loop.call_soon_threadsafe(arrived)

        posters = [threading.Thread(target=post) for _ in range(threads)]
        with watch:
            for poster in posters:
                poster.start()
            await done
        for poster in posters:
            poster.join()

    return operate


async def threadsafe_wake(loop: Any) -> Operate:
    """A thread wakes the sleeping loop and waits for its answer."""

    async def operate(n: int, watch: Watch) -> None:
        done = loop.create_future()
        answered = threading.Semaphore(0)

        def post() -> None:
            for _ in range(n):
                loop.call_soon_threadsafe(answered.release)
                answered.acquire()
            loop.call_soon_threadsafe(done.set_result, None)

        poster = threading.Thread(target=post)
        with watch:
            poster.start()
            await done
        poster.join()

    return operate


async def timer(loop: Any, operation: str, pending: int) -> Operate:
    """call_later beside `pending` timers that are not due: set, cancel or fire."""
    # On the loop for as long as the process lives; spread, so that a heap has something to order.
    keep([loop.call_later(1000 + i * 7919 % 1000, nothing) for i in range(pending)])
    chunk = 1000

    async def set_timers(n: int, watch: Watch) -> None:
        for start in range(0, n, chunk):
            with watch:
                timers = [loop.call_later(1500 + i % 100, nothing) for i in range(min(chunk, n - start))]
            for handle in timers:
                handle.cancel()

    async def cancel_timers(n: int, watch: Watch) -> None:
        for start in range(0, n, chunk):
            timers = [loop.call_later(1500 + i % 100, nothing) for i in range(min(chunk, n - start))]
            with watch:
                for handle in timers:
                    handle.cancel()
            await asyncio.sleep(0)

    async def fire_timers(n: int, watch: Watch) -> None:
        for start in range(0, n, chunk):
            count = min(chunk, n - start)
            left = count
            done = loop.create_future()

            def fire() -> None:
                nonlocal left
                left -= 1
                if not left:
                    done.set_result(None)  # noqa: B023, awaited below, in the same turn of the loop

            with watch:
                for _ in range(count):
                    loop.call_later(0, fire)
                await done

    return {"set": set_timers, "cancel": cancel_timers, "fire": fire_timers}[operation]


async def task(loop: Any) -> Operate:
    """Create a task and await it."""

    async def work() -> None:
        pass

    async def operate(n: int, watch: Watch) -> None:
        with watch:
            for _ in range(n):
                await loop.create_task(work())

    return operate


async def sleep_zero(loop: Any) -> Operate:
    """A task gives way, again and again."""

    async def operate(n: int, watch: Watch) -> None:
        with watch:
            for _ in range(n):
                await asyncio.sleep(0)

    return operate


async def gather(loop: Any, count: int) -> Operate:
    """asyncio.gather of coroutines that yield once."""

    async def operate(n: int, watch: Watch) -> None:
        with watch:
            for _ in range(n):
                await asyncio.gather(*(asyncio.sleep(0) for _ in range(count)))

    return operate


async def future_ping_pong(loop: Any) -> Operate:
    """Two tasks wake each other through futures."""

    async def operate(n: int, watch: Watch) -> None:
        ball = [loop.create_future(), loop.create_future()]

        async def play(me: int) -> None:
            for _ in range(n):
                await ball[me]
                ball[me] = loop.create_future()
                ball[1 - me].set_result(None)

        with watch:
            ball[0].set_result(None)
            await asyncio.gather(play(0), play(1))

    return operate
