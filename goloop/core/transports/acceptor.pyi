import socket
from collections.abc import Callable, Coroutine
from typing import Any, final

@final
class Acceptor:
    accepting: set[Any]
    cancelled: bool
    def __init__(
        self,
        loop: Any,
        sock: socket.socket,
        factory: Callable[[], Any],
        server: Any,
        backlog: int,
        tls: Callable[[Acceptor, Any, socket.socket, dict[str, Any], Any], Coroutine[Any, Any, None]] | None,
        context: Any = None,
    ) -> None: ...
    def start(self) -> None: ...
    def cancel(self) -> None: ...
