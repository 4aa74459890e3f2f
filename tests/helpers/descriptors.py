"""How many wait for a connection, a listener, a packet socket or a poll descriptor, in whatever kind of actor.

Goroutines have a state that says so; a plain thread that waits is to be seen in the descriptor's queues only.
"""

import fcntl
import gc
import socket
import struct
import termios
from typing import Any

from goloop.core.net.polldesc import PollDesc

NODE = "WaitNode"
QUEUES = ("PollDesc", "Direction", "WaitQueue", NODE)  # what leads to the nodes, by the names of the types


def waiters(thing: object) -> int:
    """How many wait for its descriptor, or for those who do to be out of the way."""
    thing = getattr(thing, "_listener", thing)  # a TLSListener stands on another one
    seen = new = {id(thing): thing}
    while new:
        found = gc.get_referents(*new.values())
        new = {id(each): each for each in found if type(each).__name__ in QUEUES and id(each) not in seen}
        seen = seen | new
    return sum(type(each).__name__ == NODE for each in seen.values())


def waiters_anywhere() -> int:
    """The same for all descriptors of the process: what dials has one that no test can reach."""
    return sum(waiters(each) for each in gc.get_objects() if isinstance(each, PollDesc))


def unread(conn: Any) -> int:
    """How many bytes have arrived that nobody has read yet."""
    return int.from_bytes(fcntl.ioctl(conn.fileno(), termios.FIONREAD, bytes(4)), "little")


def has_full_backlog(listener: socket.socket) -> bool:
    """Whether a TCP listener has taken as many connections as it can without an accept()."""
    taken, backlog = struct.unpack_from("II", listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 32), 24)
    return bool(taken > backlog)
