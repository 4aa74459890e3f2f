"""The process that is measured: one workload on one loop.

    python benchmarks/child.py LOOP[+NAME=VALUE...] MODULE:FUNCTION PARAMETERS

What follows a + is set in the environment: goloop+GOLOOP_IO=auto is a contestant of its own.
A server workload is `async def serve(loop, **parameters) -> address`: its address is printed, and it serves until it
is killed. A work workload, `async def make(loop, **parameters) -> operate`, gives `async def operate(n, watch)` that
does n operations and has the watch run while it does: warmed up, timed, printed as JSON. A check, `async def
check(loop, **parameters) -> None`, fails if the loop does something wrong.
"""

from __future__ import annotations

import asyncio
import functools
import importlib
import json
import os
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

import loops
import usage

Operate = Callable[[int, "Watch"], Awaitable[None]]
SLICE = 0.05  # seconds a batch of operations takes


class Watch:
    """Sums up the wall and processor time, and the context switches, of `with watch:` blocks."""

    def __init__(self) -> None:
        self.wall = self.user = self.system = 0.0
        self.switches = 0

    def _add(self, sign: int) -> None:
        user, system, switches = usage.own()
        self.user += sign * user
        self.system += sign * system
        self.switches += sign * switches

    def __enter__(self) -> None:
        self._add(-1)
        self.wall -= time.perf_counter()

    def __exit__(self, *exc: object) -> None:
        self.wall += time.perf_counter()
        self._add(1)


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
    return {
        "operations": operations,
        "seconds": watch.wall,
        "cpu": watch.user + watch.system,
        "system": watch.system,
        "switches": watch.switches,
    }


async def main(function: Any, parameters: dict[str, Any]) -> None:
    loop = asyncio.get_running_loop()
    warmup, seconds = parameters.pop("warmup", 0.0), parameters.pop("seconds", 0.0)
    operations = parameters.pop("operations", 0)
    made = await function(loop, **parameters)
    if made is None:
        print("right", flush=True)
    elif callable(made) and operations:
        await made(operations, Watch())  # to be counted, not timed
    elif callable(made):
        print(json.dumps(await time_operations(made, warmup, seconds)), flush=True)
    else:
        print(f"ready {made}", flush=True)
        await loop.create_future()


if __name__ == "__main__":
    loop_name, *variables = sys.argv[1].split("+")
    os.environ.update((name, value) for name, _, value in (variable.partition("=") for variable in variables))
    module, _, name = sys.argv[2].partition(":")
    function = getattr(importlib.import_module(f"workloads.{module}"), name)
    with asyncio.Runner(loop_factory=functools.partial(loops.new_event_loop, loop_name)) as runner:
        runner.run(main(function, json.loads(sys.argv[3])))
