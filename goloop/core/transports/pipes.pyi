import asyncio
from typing import Any, final

@final
class ReadPipeTransport(asyncio.ReadTransport):
    max_size: int
    def __init__(self, loop: Any, pipe: Any, protocol: Any, waiter: Any = None, extra: Any = None) -> None: ...

@final
class WritePipeTransport(asyncio.WriteTransport):
    def __init__(self, loop: Any, pipe: Any, protocol: Any, waiter: Any = None, extra: Any = None) -> None: ...
