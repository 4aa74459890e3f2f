"""Subprocesses: spawn, wait for the exit; bytes through one."""

from __future__ import annotations

import asyncio
import asyncio.subprocess
from typing import Any

from child import Operate, Watch

BLOCK = bytes(1 << 16)


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


async def cat(loop: Any) -> Operate:
    """Blocks go into a running cat and come back, by streams."""

    async def operate(n: int, watch: Watch) -> None:
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec("cat", stdin=pipe, stdout=pipe)
        stdin, stdout = process.stdin, process.stdout
        assert stdin is not None
        assert stdout is not None

        async def feed() -> None:
            for _ in range(n):
                stdin.write(BLOCK)
                await stdin.drain()

        async def read() -> None:
            left = n * len(BLOCK)
            while left:
                data = await stdout.read(1 << 18)
                if not data:
                    raise EOFError(f"{left} bytes did not come back")
                left -= len(data)

        with watch:
            await asyncio.gather(feed(), read())
        stdin.close()
        await process.wait()

    return operate
