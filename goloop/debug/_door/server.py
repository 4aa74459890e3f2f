"""The threads of the door: one that accepts, and one for each client while it is connected.

They read, answer and wait with plain blocking calls, so nothing that a loop or worker does or fails to do reaches
them. What a client can cost is bounded: the number of clients, the size and time of a request, the time of an answer.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import struct
import threading
import time
import traceback
from collections.abc import Callable
from typing import Any

from goloop.debug._asleep import harmless
from goloop.debug._door import folder, wire

MAX_CLIENTS = 8
IDLE = 300.0  # seconds that a client may think between two requests
FAREWELL = 1.0  # seconds for the answers that are on their way when the door closes
_PEER = struct.Struct("3i")  # struct ucred: pid, uid, gid


class Refused(Exception):
    """A request that cannot be answered; the text is a sentence for its user."""


class Client:
    """The process that asks, as the maker of an answer sees it."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    def left_within(self, seconds: float) -> bool:
        """Wait that long, and return whether the client has gone away or the door closes meanwhile."""
        poll = select.poll()
        poll.register(self._sock, select.POLLIN | select.POLLRDHUP)
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            for _, events in poll.poll(left * 1000):
                if events & (select.POLLHUP | select.POLLRDHUP | select.POLLERR):
                    return True
                poll.modify(self._sock, select.POLLRDHUP)  # its next request can wait
        return False


Answer = Callable[[dict[str, Any], Client], bytes]


class Server:
    """An open door. answer: makes the answers, in the thread of the client.

    OSError if the folder cannot be used, RuntimeError if there can be no more threads.
    """

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self._lock = threading.Lock()  # guards _clients and _closing; nothing else runs under it
        self._clients: dict[socket.socket, threading.Thread] = {}
        self._closing = threading.Event()
        self._owner = os.geteuid()
        self._folder = folder.path()
        self._pid = os.getpid()
        self.path = os.path.join(self._folder, f"{self._pid}{folder.SUFFIX}")
        with folder.opened(self._folder, make=True) as fd:
            folder.sweep(fd)
            self._listener, self._identity = folder.listen(fd, self._pid, MAX_CLIENTS)
        self._thread = threading.Thread(target=self._accept, name="goloop-door", daemon=True)
        harmless.add(self._thread)
        try:
            self._thread.start()
        except BaseException:
            self._listener.close()
            self._remove()
            raise

    def close(self) -> None:
        """End the threads, and remove the socket. Answers that are on their way get a moment."""
        self._remove()
        with self._lock:
            self._closing.set()
            clients = dict(self._clients)
        self._listener.shutdown(socket.SHUT_RDWR)  # wakes its thread
        for sock in clients:
            _shut_down(sock, socket.SHUT_RD)
        until = time.monotonic() + FAREWELL
        for thread in (self._thread, *clients.values()):
            if thread is not threading.current_thread():
                thread.join(max(until - time.monotonic(), 0.0))
        for sock in clients:
            _shut_down(sock, socket.SHUT_RDWR)
        self._listener.close()

    def abandon(self) -> None:
        """Let go of what belongs to the parent. In a forked child, where none of the threads is."""
        self._listener.close()
        for sock in self._clients:
            sock.close()

    def _remove(self) -> None:
        """Remove the socket's file. One that cannot be is recognized as stale by whoever looks."""
        with contextlib.suppress(OSError), folder.opened(self._folder) as fd:
            folder.remove(fd, self._pid, self._identity)

    # ---------------------------------------------------------- its threads
    def _accept(self) -> None:
        while not self._closing.is_set():
            try:
                sock, _ = self._listener.accept()
            except OSError:  # it is shut down; or no descriptor is free, and the backlog waits for one
                self._closing.wait(0.1)
                continue
            if not self._admit(sock):
                sock.close()

    def _admit(self, sock: socket.socket) -> bool:
        """Give a client a thread of its own, or return False: it has been told why."""
        refusal = self._refusal(sock)
        if refusal is None:
            thread = threading.Thread(target=self._serve, args=(sock,), name="goloop-door-client", daemon=True)
            harmless.add(thread)
            with self._lock:
                if self._closing.is_set():
                    return False
                self._clients[sock] = thread
            try:
                thread.start()
                return True
            except RuntimeError as exc:  # no more threads
                refusal = str(exc)
                with self._lock:
                    del self._clients[sock]
        with contextlib.suppress(OSError):
            wire.send_error(sock, refusal)
        return False

    def _refusal(self, sock: socket.socket) -> str | None:
        _, uid, _ = _PEER.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size))
        if uid not in (self._owner, 0):
            return f"only user {self._owner} may look into this process"
        if len(self._clients) >= MAX_CLIENTS:
            return f"{MAX_CLIENTS} others look into this process already"
        return None

    def _serve(self, sock: socket.socket) -> None:
        """Answer a client until it goes. One that is too slow, or says what is no request, loses its connection."""
        lines = wire.Lines(sock)
        try:
            while not self._closing.is_set() and (request := lines.line(IDLE)) is not None:
                self._answer_one(sock, request)
        except wire.WireError as exc:
            with contextlib.suppress(OSError):
                wire.send_error(sock, str(exc))
        except OSError:
            pass
        finally:
            with self._lock:
                self._clients.pop(sock, None)
                sock.close()

    def _answer_one(self, sock: socket.socket, request: dict[str, Any]) -> None:
        try:
            body = self._answer(request, Client(sock))
        except Refused as exc:
            wire.send_error(sock, str(exc))
        except Exception as exc:
            # The log may be what is stuck; the one who asks hears it.
            where = traceback.extract_tb(exc.__traceback__)[-1]
            said = "".join(traceback.format_exception_only(exc)).strip()
            wire.send_error(sock, f"the answer failed at {where.filename}:{where.lineno}: {said}")
        else:
            wire.send_answer(sock, body)


def _shut_down(sock: socket.socket, how: int) -> None:
    try:
        sock.shutdown(how)
    except OSError:  # its thread has closed it, or the client has gone
        pass
