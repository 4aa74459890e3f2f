"""The other side of the door: finds that of a process, and asks. Each failure is a Trouble with a clear sentence."""

from __future__ import annotations

import contextlib
import glob
import os
import socket
import struct
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from goloop.debug._door import folder, wire
from goloop.debug._outside import processes

ANSWER = 10.0  # seconds that a process has to begin its answer
_PEER = struct.Struct("3i")  # struct ucred


class Trouble(Exception):
    """Why a process could not be looked into. The text is a sentence for the user."""


class Connection:
    """A connection with the door of a process. To be closed; also a context manager. For one thread."""

    def __init__(self, sock: socket.socket, pid: int) -> None:
        self.pid = pid
        self._sock = sock
        self._lines = wire.Lines(sock)

    def ask(self, do: str, *, patience: float = ANSWER, **options: Any) -> bytes:
        """Return the answer. patience: seconds until it begins. Trouble if there is none."""
        try:
            try:
                wire.send_request(self._sock, do, **options)
            except BrokenPipeError:
                pass  # it may have said why
            head = self._lines.line(patience)
            if head is None:
                raise Trouble(f"process {self.pid} has closed the connection")
            if not head.get("ok"):
                raise Trouble(f"process {self.pid}: {head.get('error')}")
            return self._lines.body(int(head["length"]))
        except TimeoutError:
            raise Trouble(_why_silent(self.pid, patience)) from None
        except (OSError, EOFError, wire.WireError) as exc:
            ended = "" if processes.exists(self.pid) else ", because it has ended"
            raise Trouble(f"process {self.pid} has not finished its answer{ended}: {exc}") from None

    def close(self) -> None:
        """Close it."""
        self._sock.close()

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *exc: Any) -> None:
        self.close()


def _why_silent(pid: int, seconds: float) -> str:
    match processes.state(pid):
        case "":
            return f"process {pid} has ended"
        case "T" | "t":
            return f"process {pid} is stopped (SIGSTOP, or a debugger): it answers once it goes on"
        case "D":
            return f"process {pid} does not answer within {seconds:g} s: the kernel holds it (state D)"
    return (
        f"process {pid} does not answer within {seconds:g} s: something keeps its interpreter lock, such as a C "
        "extension that computes; py-spy or gdb show what"
    )


def connect(pid: int) -> Connection | None:
    """Return a connection with the door of a process, None if it has none. Trouble if the door cannot be used."""
    for place in _places(pid):
        try:
            with folder.opened(place) as fd:
                for number in dict.fromkeys((pid, processes.number_inside(pid))):
                    if (connection := _try(fd, f"{number}{folder.SUFFIX}", pid)) is not None:
                        return connection
        except FileNotFoundError:
            continue
        except PermissionError as exc:
            if place == folder.path():
                raise Trouble(str(exc)) from None
        except OSError as exc:
            raise Trouble(f"{place} cannot be read: {exc}") from None
    return None


def _places(pid: int) -> list[str]:
    """Return the folders in which the door of a process can be: this user's, and those that the process itself sees."""
    return [folder.path(), *sorted(glob.glob(f"/proc/{pid}/root/tmp/goloop-[0-9]*"))]


def _try(fd: int, name: str, pid: int | None) -> Connection | None:
    """Return a connection with this socket. None if nobody listens, or another process than `pid`."""
    try:
        sock = folder.connect(fd, name)
    except (FileNotFoundError, ConnectionRefusedError):
        return None
    except TimeoutError:
        raise Trouble(_why_silent(pid or int(name.removesuffix(folder.SUFFIX)), folder.CONNECT)) from None
    served_by, _, _ = _PEER.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size))
    if pid is not None and served_by != pid:
        sock.close()
        return None
    return Connection(sock, served_by or int(name.removesuffix(folder.SUFFIX)))


def everybody(do: str, patience: float) -> list[tuple[int, bytes | Trouble]]:
    """Ask every process that this user may look into, all at once. Removes what dead ones have left behind.

    Returns their numbers, with an answer or the reason why there is none. Trouble if the folder cannot be used.
    """
    connections: list[Connection | tuple[int, Trouble]] = []
    places = [folder.path()]
    if os.geteuid() == 0:
        places += [place for place in sorted(glob.glob("/tmp/goloop-[0-9]*")) if place != places[0]]
    for place in places:
        try:
            with folder.opened(place) as fd:
                folder.sweep(fd)
                for name in folder.names(fd):
                    try:
                        if (connection := _try(fd, name, None)) is not None:
                            connections.append(connection)
                    except Trouble as exc:
                        connections.append((int(name.removesuffix(folder.SUFFIX)), exc))
        except FileNotFoundError:
            continue
        except OSError as exc:
            if place == places[0]:
                raise Trouble(str(exc)) from None
    with ThreadPoolExecutor(max_workers=32) as pool:
        return list(pool.map(lambda each: _ask_one(each, do, patience), connections))


def _ask_one(who: Connection | tuple[int, Trouble], do: str, patience: float) -> tuple[int, bytes | Trouble]:
    if isinstance(who, tuple):
        return who
    with contextlib.closing(who):
        try:
            return who.pid, who.ask(do, patience=patience)
        except Trouble as exc:
            return who.pid, exc
