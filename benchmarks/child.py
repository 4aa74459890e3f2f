"""The process that is measured: one workload on one loop.

    python benchmarks/child.py LOOP[+NAME=VALUE...] MODULE:FUNCTION PARAMETERS

What follows a + is set in the environment: goloop+GOLOOP_IO=auto is a contestant of its own.
A server workload is `async def serve(loop, **parameters) -> address`: its address is printed, and it serves until it
is killed. A work workload, `async def make(loop, **parameters) -> operate`, gives `async def operate(n, watch)` that
does n operations and has the watch run while it does: warmed up, timed, printed as JSON.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

Operate = Callable[[int, "Watch"], Awaitable[None]]
SLICE = 0.05  # seconds a batch of operations takes


class Watch:
    """Sums up the wall and processor time of `with watch:` blocks."""

    def __init__(self) -> None:
        self.wall = self.cpu = 0.0

    def __enter__(self) -> None:
        self.cpu -= time.process_time()
        self.wall -= time.perf_counter()

    def __exit__(self, *exc: object) -> None:
        self.wall += time.perf_counter()
        self.cpu += time.process_time()


async def time_operations(operate: Operate, warmup: float, seconds: float) -> dict[str, Any]:
    """Find a batch that takes a slice, warm up with that, and then measure for `seconds` of watched time."""
    batch = 1
    begun = time.perf_counter()
    while True:
        watch = Watch()
        await operate(batch, watch)
        if watch.wall < SLICE:
            batch = max(batch + 1, min(4 * batch, int(batch * SLICE / max(watch.wall, 1e-9))))
        elif time.perf_counter() - begun > warmup:
            break
    watch, operations = Watch(), 0
    while watch.wall < seconds:
        await operate(batch, watch)
        operations += batch
    return {"operations": operations, "seconds": watch.wall, "cpu": watch.cpu}


async def main(function: Any, parameters: dict[str, Any]) -> None:
    loop = asyncio.get_running_loop()
    warmup, seconds = parameters.pop("warmup", 0.0), parameters.pop("seconds", 0.0)
    operations = parameters.pop("operations", 0)
    made = await function(loop, **parameters)
    if callable(made) and operations:
        await made(operations, Watch())  # to be counted, not timed
    elif callable(made):
        print(json.dumps(await time_operations(made, warmup, seconds)), flush=True)
    else:
        print(f"ready {made}", flush=True)
        await loop.create_future()


if __name__ == "__main__":
    loop_name, *variables = sys.argv[1].split("+")
    os.environ.update((name, value) for name, _, value in (variable.partition("=") for variable in variables))
    if loop_name != "asyncio":
        importlib.import_module(loop_name).install()
    module, _, name = sys.argv[2].partition(":")
    function = getattr(importlib.import_module(f"workloads.{module}"), name)
    asyncio.run(main(function, json.loads(sys.argv[3])))
