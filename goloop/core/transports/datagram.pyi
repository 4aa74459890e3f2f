import asyncio
from typing import Any, final

@final
class DatagramTransport(asyncio.DatagramTransport):
    max_size: int
    def __init__(
        self, loop: Any, sock: Any, protocol: Any, address: Any = None, waiter: Any = None, extra: Any = None
    ) -> None: ...
