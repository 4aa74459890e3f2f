"""The listening socket of all TCP servers that are measured."""

from __future__ import annotations

import socket


def listener() -> socket.socket:
    """One on a free port of 127.0.0.1, non-blocking, with Reno's congestion control.

    Where the system has BBR, that paces: from messages of 64 KiB on the server waits for the kernel's timers, and all
    servers are equally slow (at 256 KiB the one in C made 11,700 round trips a second, and 30,000 without pacing).
    """
    sock = socket.socket(proto=socket.IPPROTO_TCP)  # without the number asyncio leaves Nagle's algorithm on
    sock.bind(("127.0.0.1", 0))
    sock.listen(1024)
    sock.setblocking(False)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, b"reno")  # what it accepts has it as well
    return sock
