import asyncio
from typing import Any, final

@final
class StreamTransport(asyncio.Transport):
    max_size: int
    def __init__(
        self,
        loop: Any,
        sock: Any,
        protocol: Any,
        waiter: Any = None,
        extra: Any = None,
        server: Any = None,
        context: Any = None,
    ) -> None: ...
    def _make_empty_waiter(self) -> asyncio.Future[None]: ...
    def _reset_empty_waiter(self) -> None: ...
    def _make_writable_waiter(self) -> asyncio.Future[None]: ...
