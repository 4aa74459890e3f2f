"""What GoroutineWorker does to sockets: the head of an answer goes with its body, and listeners that close for good."""

from __future__ import annotations

import ctypes
import socket
import ssl
import struct
from typing import Any

from typing_extensions import Buffer

_WHOLE = 65536  # bytes of a body up to which it is copied behind the head
_SO_ATTACH_FILTER = 26  # asm-generic/socket.h; it takes a struct sock_fprog
_DROP_SYN = (  # code, jump if true, jump if false, value; from linux/filter.h: a program that sees the TCP header
    (0x30, 0, 0, 13),  # load the byte with the flags
    (0x45, 0, 1, 0x02),  # SYN?
    (0x06, 0, 0, 0),  # drop it
    (0x06, 0, 0, 0xFFFFFFFF),  # pass it
)


def refuse_handshakes(sock: socket.socket) -> bool:
    """Let a TCP listener drop packets that begin a handshake, and finish those that have begun; False if it cannot.

    The client's kernel tries again a second later, and is refused then, or has another server.
    """
    if sock.family not in (socket.AF_INET, socket.AF_INET6):
        return False
    filter = b"".join(struct.pack("=HBBI", *instruction) for instruction in _DROP_SYN)
    room = ctypes.create_string_buffer(filter)
    try:
        sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("HP", len(_DROP_SYN), ctypes.addressof(room)))
    except OSError:
        return False
    return True


class Connection(socket.socket):
    """An accepted connection that sends the head of an answer together with what follows.

    gunicorn sends them one after the other; this is one system call, and one packet. begin_answer() is called before
    each request, end_answer() after it.
    """

    _held: bytes | None = None  # the head that waits; b"" while it is still to come; None: nothing is held back

    def begin_answer(self) -> None:
        self._held = b""

    def end_answer(self) -> None:
        """Send the head of an answer without a body."""
        held, self._held = self._held, None
        if held:
            super().sendall(held)

    def sendall(self, data: Buffer, flags: int = 0, /) -> None:
        held = self._held
        if held is None:
            super().sendall(data, flags)
        elif held:
            self._held = None
            if flags or not isinstance(data, bytes) or len(data) > _WHOLE:
                super().sendall(held)
                super().sendall(data, flags)
            else:
                super().sendall(held + data)
        elif isinstance(data, bytes) and data.startswith(b"HTTP/1.") and data[9:10] != b"1":  # and no early hints
            self._held = data
        else:
            super().sendall(data, flags)

    def send(self, data: Buffer, flags: int = 0, /) -> int:
        self._release()
        return super().send(data, flags)

    def sendfile(self, file: Any, offset: int = 0, count: int | None = None) -> int:
        self._release()
        return super().sendfile(file, offset, count)

    def shutdown(self, how: int, /) -> None:
        self._release()
        super().shutdown(how)

    def _release(self) -> None:
        """Something else is done with the connection: the head goes first."""
        if self._held:
            held, self._held = self._held, b""
            super().sendall(held)


class TLSConnection(Connection, ssl.SSLSocket):
    """The same over TLS; made by an ssl.SSLContext."""


def connection(accepted: socket.socket) -> Connection:
    """Return a Connection, in blocking mode, that takes over what accept() returned."""
    if accepted.gettimeout() is not None:  # socket.setdefaulttimeout()
        accepted.setblocking(True)
    return Connection(accepted.family, accepted.type, accepted.proto, accepted.detach())
