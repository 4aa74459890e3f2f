"""What the tests of handoff share."""

import asyncio
import threading

import goloop

LONG = 60  # seconds; nothing waits that long


def run(main, **options):
    return goloop.run(main, handoff=True, **options)


def on_main():
    return threading.current_thread() is threading.main_thread()


async def until(condition):
    while not condition():
        await asyncio.sleep(0.001)
