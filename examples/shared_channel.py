"""One channel between two worlds: goroutines send with send(), a coroutine on the main loop receives with async_recv().

The goroutines block in time.sleep() as plain threads would; the coroutine counts the ticks of its own loop meanwhile,
to show that nothing holds it up. Run: python examples/shared_channel.py
"""

import argparse
import asyncio
import time

import goloop
from goloop import Chan, go


def measure(sensor: str, readings: Chan[tuple[str, int]]) -> None:
    """Plain blocking code, as a driver's library would have it."""
    for value in range(3):
        time.sleep(0.05)
        readings.send((sensor, value))


async def tick(ticks: list[float]) -> None:
    while True:
        await asyncio.sleep(0.005)
        ticks.append(time.monotonic())


async def main() -> None:
    readings: Chan[tuple[str, int]] = Chan()
    ticks: list[float] = []
    heart = asyncio.create_task(tick(ticks))
    sensors = [go(measure, sensor, readings) for sensor in ("indoors", "outdoors", "cellar")]

    async def close_at_the_end() -> None:
        await asyncio.gather(*sensors)  # a goroutine is awaited like a task
        readings.close()

    closing = asyncio.create_task(close_at_the_end())
    async for sensor, value in readings:
        print(f"{sensor}: {value}")
    await closing
    heart.cancel()
    print("the loop kept ticking" if len(ticks) >= 10 else f"the loop was held up: {len(ticks)} ticks")


if __name__ == "__main__":
    argparse.ArgumentParser(description="One channel between goroutines and a coroutine.").parse_args()
    goloop.run(main())
