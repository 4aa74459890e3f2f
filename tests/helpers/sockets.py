"""Sockets for the tests: pairs, listeners, clients; none of them blocks."""

import asyncio
import contextlib
import socket
import sys
from collections.abc import Iterator
from typing import Any

from tests.helpers.waiting import PAUSE


@contextlib.contextmanager
def stream_pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two connected sockets that do not block."""
    one, other = socket.socketpair()
    with one, other:
        one.setblocking(False)
        other.setblocking(False)
        yield one, other


def socket_pair(kind: str, *, small: bool = False) -> tuple[socket.socket, socket.socket]:
    """Two connected non-blocking sockets, ``tcp`` or ``unix``; ``small`` shrinks what the kernel buffers."""
    if kind == "unix":
        ours, peer = socket.socketpair()
    else:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            if small:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 15)
            ours = socket.create_connection(listener.getsockname())
            peer = listener.accept()[0]
    if small:
        for end in (ours, peer):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 15)
            end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 15)
    ours.setblocking(False)
    peer.setblocking(False)
    return ours, peer


@contextlib.contextmanager
def listening(
    family: socket.AddressFamily = socket.AF_INET, address: Any = ("127.0.0.1", 0)
) -> Iterator[socket.socket]:
    """A listening socket that does not block."""
    with socket.socket(family) as sock:
        sock.bind(address)
        sock.listen(10)
        sock.setblocking(False)
        yield sock


def client(
    family: socket.AddressFamily = socket.AF_INET, type: socket.SocketKind = socket.SOCK_STREAM
) -> socket.socket:
    """A socket that is not connected and does not block."""
    sock = socket.socket(family, type)
    sock.setblocking(False)
    return sock


async def receive(sock: socket.socket, nbytes: int = sys.maxsize) -> bytes:
    """Read that many bytes from a non-blocking socket, or all up to the end of the stream."""
    got = bytearray()
    while len(got) < nbytes:
        try:
            chunk = sock.recv(min(nbytes - len(got), 1 << 18))
        except BlockingIOError:
            await asyncio.sleep(PAUSE)
            continue
        if not chunk:
            break
        got += chunk
    return bytes(got)
