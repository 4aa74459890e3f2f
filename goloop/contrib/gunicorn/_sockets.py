"""What GoroutineWorker does to sockets: the head of an answer goes with its body, and listeners that close for good."""

from __future__ import annotations

import ctypes
import os
import socket
import ssl
import struct
from pathlib import Path
from typing import Any

from typing_extensions import Buffer

from goloop.core.patch.socket_io import recv_later
from goloop.core.sched.goroutine_api import gosched

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


def held_by_workers_alone(fd: int, master: int) -> bool:
    """Whether no process but workers of this master, which has closed it, can accept from its listener.

    Others may be a master that goes on, one that takes over (SIGUSR2), systemd, or a child of the application. False as
    well if that cannot be seen.
    """
    listener = os.fstat(fd)
    mine = Path("/proc/self/environ").read_bytes()
    if b"LISTEN_FDS=" in mine:
        return False  # it is systemd's
    for process in Path("/proc").iterdir():
        if not process.name.isdigit() or int(process.name) == os.getpid():
            continue
        try:
            if not _holds(process, listener):
                continue
            # A new master is a child of the old one, too, but was executed, with an environment of its own.
            if _parent(process) != master or (process / "environ").read_bytes() != mine:
                return False
        except (FileNotFoundError, ProcessLookupError):
            pass  # it has ended meanwhile
        except PermissionError:
            if _descends(process, master):
                return False
    return True


def _holds(process: Path, listener: os.stat_result) -> bool:
    for descriptor in (process / "fd").iterdir():
        try:
            if os.path.samestat(descriptor.stat(), listener):
                return True
        except FileNotFoundError:
            pass  # closed meanwhile
    return False


def _parent(process: Path) -> int:
    return int((process / "stat").read_text().rpartition(")")[2].split()[1])


def _descends(process: Path, ancestor: int) -> bool:
    try:
        pid = int(process.name)
        while pid > 1 and pid != ancestor:
            pid = _parent(Path("/proc", str(pid)))
    except (FileNotFoundError, ProcessLookupError):
        return False
    return pid == ancestor


class Connection(socket.socket):
    """An accepted connection that sends the head of an answer together with what follows.

    gunicorn sends them one after the other; this is one system call, and one packet. begin_answer() is called before
    each request, end_answer() after it. In between connections take turns: the goroutine of one that has had its
    answer parks before it looks for the next request, or a client that is quick would keep the others waiting.
    """

    _held: bytes | None = None  # the head that waits; b"" while it is still to come; None: nothing is held back
    _answered = False  # since the last recv()

    def begin_answer(self) -> None:
        if self._answered:  # the request was there already: the client sends many at once
            self._answered = False
            gosched()
        self._held = b""

    def end_answer(self) -> None:
        """Send the head of an answer without a body."""
        held, self._held = self._held, None
        self._answered = True
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

    def recv(self, buflen: int = 1024, flags: int = 0) -> bytes:
        if self._held:
            self._release()  # the client may answer to it
        if self._answered and not flags:
            self._answered = False
            return self._recv_next(buflen)
        return super().recv(buflen, flags)

    def _recv_next(self, buflen: int) -> bytes:
        """Receive the beginning of another request."""
        return recv_later(self, buflen)

    def sendfile(self, file: Any, offset: int = 0, count: int | None = None) -> int:
        self._release()
        return super().sendfile(file, offset, count)

    def settimeout(self, seconds: float | None, /) -> None:
        if seconds != self.gettimeout():  # gunicorn puts back what there is, for each request
            super().settimeout(seconds)

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

    def _recv_next(self, buflen: int) -> bytes:
        gosched()  # it may have data at hand, that no descriptor tells of
        return ssl.SSLSocket.recv(self, buflen)


def connection(accepted: socket.socket) -> Connection:
    """Return a Connection, in blocking mode, that takes over what accept() returned."""
    if accepted.gettimeout() is not None:  # socket.setdefaulttimeout()
        accepted.setblocking(True)
    return Connection(accepted.family, accepted.type, accepted.proto, accepted.detach())
