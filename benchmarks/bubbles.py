"""How fast bubbles of goloop.testing are: empty ones, and events of virtual time.

    python benchmarks/bubbles.py [--seconds 1]

Each row is the best of five runs of that many seconds, by the processor time of the process, so that what else runs on
the machine counts little.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Callable

from rich.console import Console
from rich.table import Table

import goloop
from goloop import testing, timer

N = 20_000  # events in a bubble


def empty_coroutine() -> int:
    async def main() -> None:
        pass

    for _ in range(200):
        testing.run(main)
    return 200


def empty_body() -> int:
    for _ in range(200):
        with testing.bubble():
            pass
    return 200


def empty_seeded() -> int:
    async def main() -> None:
        pass

    testing.explore(main, seeds=199)
    return 200


def call_later() -> int:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        end = loop.create_future()
        left = N

        def fire() -> None:
            nonlocal left
            left -= 1
            if left:
                loop.call_later(1, fire)
            else:
                end.set_result(None)

        fire()
        await end

    testing.run(main)
    return N


def sleeping_goroutine() -> int:
    with testing.bubble():
        for _ in range(N):
            goloop.sleep(1)
    return N


def sleeping_tasks() -> int:
    async def sleep() -> None:
        for _ in range(N // 100):
            await asyncio.sleep(1)

    async def main() -> None:
        await asyncio.gather(*[sleep() for _ in range(100)])

    testing.run(main)
    return N


def ticker() -> int:
    with testing.bubble(), timer.Ticker(1) as ticks:
        for _ in range(N):
            ticks.chan.recv()
    return N


ROWS: dict[str, tuple[str, Callable[[], int]]] = {
    "empty bubbles, run(coroutine)": ("bubbles/s", empty_coroutine),
    "empty bubbles, with bubble()": ("bubbles/s", empty_body),
    "empty bubbles, explore()": ("bubbles/s", empty_seeded),
    "call_later()": ("events/s", call_later),
    "asyncio.sleep() of 100 tasks": ("events/s", sleeping_tasks),
    "goloop.sleep() of a goroutine": ("events/s", sleeping_goroutine),
    "ticks of a Ticker": ("events/s", ticker),
}


def rate(work: Callable[[], int], seconds: float) -> float:
    best = 0.0
    for _ in range(5):
        begun, done = time.process_time(), 0
        while time.process_time() - begun < seconds:
            done += work()
        best = max(best, done / (time.process_time() - begun))
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=1.0)
    args = parser.parse_args()
    table = Table("what", "rate", "")
    for name, (unit, work) in ROWS.items():
        table.add_row(name, f"{rate(work, args.seconds):,.0f}", unit)
    Console().print(table)


if __name__ == "__main__":
    main()
