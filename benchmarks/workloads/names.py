"""Name resolution by the loop."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

from child import Operate, Watch


async def getaddrinfo(loop: Any, host: str, concurrency: int) -> Operate:
    async def operate(n: int, watch: Watch) -> None:
        left = n

        async def resolve() -> None:
            nonlocal left
            while left > 0:
                left -= 1
                await loop.getaddrinfo(host, 80, type=socket.SOCK_STREAM)

        with watch:
            await asyncio.gather(*(resolve() for _ in range(concurrency)))

    return operate
