"""StreamSocket: what get_extra_info("socket") of a stream returns."""

from __future__ import annotations

import socket
import weakref
from asyncio import trsock
from typing import Any


class StreamSocket(trsock.TransportSocket):
    """A socket for its options and addresses. Its stream sends first what it has collected.

    So a call here finds in the kernel what was written before, as on asyncio's loop.
    """

    __slots__ = ("_settle",)

    def __init__(self, transport: Any, sock: socket.socket) -> None:
        self._settle = weakref.WeakMethod(transport._settle)
        super().__init__(sock)

    @property
    def _sock(self) -> socket.socket:
        settle = self._settle()
        if settle is not None:
            settle()
        sock: socket.socket = trsock.TransportSocket._sock.__get__(self)  # type: ignore[attr-defined]
        return sock

    @_sock.setter
    def _sock(self, sock: socket.socket) -> None:
        trsock.TransportSocket._sock.__set__(self, sock)  # type: ignore[attr-defined]


StreamSocket.__name__ = StreamSocket.__qualname__ = "TransportSocket"  # what a program sees is asyncio's class
