"""The listening socket of all TCP servers that are measured."""

from __future__ import annotations

import socket


def listener(port: int = 0, shared: bool = False) -> socket.socket:
    """One on a port of 127.0.0.1 (0: a free one), non-blocking, with Reno's congestion control.

    shared: other processes listen there as well (SO_REUSEPORT), and the kernel deals the connections out.

    Where the system has BBR, that paces: from messages of 64 KiB on the server waits for the kernel's timers, and all
    servers are equally slow (at 256 KiB the one in C made 11,700 round trips a second, and 30,000 without pacing).
    """
    sock = socket.socket(proto=socket.IPPROTO_TCP)  # without the number asyncio leaves Nagle's algorithm on
    if shared:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    sock.bind(("127.0.0.1", port))
    sock.listen(1024)
    sock.setblocking(False)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, b"reno")  # what it accepts has it as well
    return sock
