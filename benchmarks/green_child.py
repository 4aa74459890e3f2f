"""The process that is measured: one workload of one contestant, as JSON.

python benchmarks/green_child.py CONTESTANT WORKLOAD WARMUP SECONDS
"""

from __future__ import annotations

import asyncio
import gc
import importlib
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

SLICE = 0.05  # seconds a batch of operations takes
PARKED = 20_000


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def contestant(name: str) -> Any:
    return importlib.import_module(f"green.{name}")


def timed(module: Any, operate: Any, warmup: float, seconds: float) -> dict[str, float]:
    """Find a batch that takes a slice, warm up with that, then measure; inside of one goroutine."""
    batch, begun = 1, time.perf_counter()
    clock = [0.0, 0.0]

    def before() -> None:
        clock[:] = [time.perf_counter(), time.process_time()]

    def after() -> tuple[float, float]:
        return time.perf_counter() - clock[0], time.process_time() - clock[1]

    def once() -> tuple[float, float]:
        before()
        operate(batch)
        return after()

    async def once_async() -> tuple[float, float]:
        before()
        await operate(batch)
        return after()

    function = once_async if asyncio.iscoroutinefunction(operate) else once
    while True:
        wall, _ = module.run(function)
        if wall < SLICE:
            batch = max(batch + 1, min(4 * batch, int(batch * SLICE / max(wall, 1e-9))))
        elif time.perf_counter() - begun > warmup:
            break
    total = used = operations = 0.0
    while total < seconds:
        wall, cpu = module.run(function)
        total, used, operations = total + wall, used + cpu, operations + batch
    return {"operations": operations, "seconds": total, "cpu": used}


def parked(module: Any) -> dict[str, float]:
    def measure() -> float:
        gc.collect()
        before = resident()
        kept = module.park(PARKED)
        return (resident() - before) / len(kept)

    async def measure_async() -> float:
        gc.collect()
        before = resident()
        kept = await module.park(PARKED)
        return (resident() - before) / len(kept)

    each = module.run(measure_async if asyncio.iscoroutinefunction(module.park) else measure)
    return {"memory": each}


def main() -> None:
    name, workload, warmup, seconds = sys.argv[1:]
    module = contestant(name)
    if workload == "serve":
        module.run(module.serve, lambda port: print("ready", port, flush=True))
    elif workload == "park":
        print(json.dumps(parked(module)), flush=True)
        os._exit(0)  # they are parked for good
    else:
        print(json.dumps(timed(module, getattr(module, workload), float(warmup), float(seconds))), flush=True)


if __name__ == "__main__":
    main()
