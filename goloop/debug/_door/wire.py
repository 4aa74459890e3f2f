"""Requests and answers of the door: one line of JSON each, an answer's with the length of what follows it.

    {"goloop": 1, "do": "dump", "format": "text"}
    {"goloop": 1, "ok": true, "length": 4711} and 4711 bytes
    {"goloop": 1, "ok": false, "error": "a sentence"}

A connection carries any number of them, one after the other. Every read and write has an end in time and in size.
"""

from __future__ import annotations

import json
import socket
import time
from typing import Any

VERSION = 1
MAX_LINE = 4096  # bytes of a request, and of the line in front of an answer
CHUNK = 64 * 1024  # bytes that a peer gets PATIENCE for
PATIENCE = 10.0  # seconds for a line that has begun, and for each CHUNK


class WireError(Exception):
    """What the peer sent is no request or answer. The text is for the peer's user."""


class Lines:
    """What a socket receives: lines, and the bytes that follow them. For one thread."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._received = bytearray()

    def line(self, idle: float) -> dict[str, Any] | None:
        """Return the object in the next line, None at the end of the stream.

        idle: seconds to wait for its first byte; the rest has PATIENCE. TimeoutError, WireError, other OSErrors.
        """
        until = time.monotonic() + (PATIENCE if self._received else idle)
        while (end := self._received.find(b"\n")) < 0:
            if len(self._received) > MAX_LINE:
                break
            began = bool(self._received)
            if not self._receive(until):
                if began:
                    raise WireError("the line has no end")
                return None
            if not began:
                until = time.monotonic() + PATIENCE
        if not 0 <= end <= MAX_LINE:
            raise WireError(f"a line has at most {MAX_LINE} bytes")
        line = bytes(self._received[:end])
        del self._received[: end + 1]
        return _object(line)

    def body(self, length: int) -> bytes:
        """Return the next `length` bytes. TimeoutError, and EOFError where the stream ends before."""
        while len(self._received) < length:
            if not self._receive(time.monotonic() + PATIENCE):
                raise EOFError(f"the answer ends after {len(self._received)} of {length} bytes")
        body = bytes(self._received[:length])
        del self._received[:length]
        return body

    def _receive(self, until: float) -> bool:
        self._sock.settimeout(max(until - time.monotonic(), 0.001))
        data = self._sock.recv(CHUNK)
        self._received += data
        return bool(data)


def _object(line: bytes) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):  # a line can hold 4096 brackets
        raise WireError("a line is an object in JSON") from None
    if not isinstance(found, dict):
        raise WireError("a line is an object in JSON")
    if found.get("goloop") != VERSION:
        raise WireError(f"goloop speaks version {VERSION} of its protocol, not {found.get('goloop')!r}")
    return found


def send_request(sock: socket.socket, do: str, **options: Any) -> None:
    """Send a request: what to do, and how."""
    _send(sock, _line({"do": do, **options}))


def send_answer(sock: socket.socket, body: bytes) -> None:
    """Send an answer to a peer that takes CHUNK bytes in PATIENCE seconds, or TimeoutError."""
    _send(sock, _line({"ok": True, "length": len(body)}))
    view = memoryview(body)
    for start in range(0, len(body), CHUNK):
        _send(sock, view[start : start + CHUNK])


def send_error(sock: socket.socket, sentence: str) -> None:
    """Send the sentence instead of an answer."""
    _send(sock, _line({"ok": False, "error": sentence[: MAX_LINE // 8]}))  # a letter has up to 6 bytes in JSON


def _line(content: dict[str, Any]) -> bytes:
    return json.dumps({"goloop": VERSION, **content}).encode() + b"\n"


def _send(sock: socket.socket, data: bytes | memoryview) -> None:
    sock.settimeout(PATIENCE)
    sock.sendall(data)
