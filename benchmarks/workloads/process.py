"""Subprocesses: spawn, wait for the exit."""

from __future__ import annotations

import asyncio
import asyncio.subprocess
from typing import Any

from child import Operate, Watch


async def spawn(loop: Any, concurrency: int) -> Operate:
    async def operate(n: int, watch: Watch) -> None:
        left = n

        async def start() -> None:
            nonlocal left
            while left > 0:
                left -= 1
                process = await asyncio.create_subprocess_exec("/bin/true")
                await process.wait()

        with watch:
            await asyncio.gather(*(start() for _ in range(concurrency)))

    return operate
