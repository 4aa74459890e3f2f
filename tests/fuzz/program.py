"""Random programs over the public API of a loop, each made from a seed.

A program is {"kind", "seed", "debug", ..., "body": [...]}: nested lists of operations, which are tuples of a
name, numbers and further lists. Any element of any list may be left out and it is still a program; that is
how minimising works. The operations are the do_*, co_* and op_* methods of the interpreters.
"""

from __future__ import annotations

import random
import sys
from typing import Any

Op = tuple[Any, ...]  # a name, numbers and further lists
Block = list[Op]
Program = dict[str, Any]

ERRORS = ("Oops", "Oops", "Oops", "CancelledError", "SystemExit", "KeyboardInterrupt")
# What is chosen from; a word that stands there twice is chosen twice as often.
CALLS = """
soon soon soon soon_ts soon_in later later later at cancel_handle cancel_handle future add_callback
add_callback remove_callback set_result set_exception cancel_future task task task task cancel_task
cancel_task set_var raise handler report stop misuse bell ring ring unbell queue_put event
"""
WAITS = """
sleep sleep sleep sleep await_future shield_future wait_future await_task shield_task wait_task guard guard
gather group timeout wait lock queue_get event_wait last generate
"""
TRANSPORT = """
write write write write write write writelines writelines limits pause pause resume resume resume eof close abort
protocol limits react react react react
"""
STREAM = """
write write write drain read read readline exactly eof close wait_closed cancel
"""
RAW = """
send send drain drain shut close recv recv sendall cancel thread thread thread
"""
DATAGRAM = """
sendto sendto sendto sendto close abort limits react react
"""
RAW_DATAGRAM = """
send send drain drain close recvfrom cancel thread
"""
EVENTS = ("data", "data", "data", "eof", "eof", "pause", "resume", "lost")


def make(seed: int) -> Program:
    """The program with that seed."""
    rng = random.Random(seed)
    kind = "callbacks" if rng.random() < 0.5 else "wires"
    program = {"kind": kind, "seed": seed, "debug": rng.random() < 0.15}
    program.update(_Callbacks(rng).program() if kind == "callbacks" else _wires(rng))
    return program


# ------------------------------------------------------------------ callbacks
class _Callbacks:
    """Timers, callbacks, futures, tasks and contexts on a virtual clock."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.labels = 0
        self.left = rng.choice((15, 40, 120))  # operations that this program may still get

    def program(self) -> Program:
        eager = sys.version_info >= (3, 12) and self.rng.random() < 0.1
        return {"eager": eager, "body": [self.block(0) for _ in range(self.rng.randint(1, 6))]}

    def label(self) -> int:
        self.labels += 1
        return self.labels

    def block(self, depth: int, asynchronous: bool = False) -> Block:
        """Some operations for a callback, or for a coroutine."""
        ops = []
        for _ in range(self.rng.choice((1, 2, 2, 3, 4))):
            if self.left <= 0 or depth > 6:
                break
            self.left -= 1
            waits = asynchronous and self.rng.random() < 0.6
            ops.append(self.waiting(depth + 1) if waits else self.plain(depth + 1))
        return ops

    def blocks(self, depth: int) -> list[Block]:
        return [self.block(depth, True) for _ in range(self.rng.randint(1, 3))]

    def plain(self, depth: int) -> Op:
        rng, n = self.rng, self.rng.randrange(8)
        name = rng.choice(CALLS.split())
        if name in ("soon", "soon_ts", "soon_in"):
            return (name, self.label(), self.block(depth))
        if name in ("later", "at"):
            return (name, self.label(), rng.randrange(-1, 6), self.block(depth))
        if name in ("add_callback",):
            return (name, self.label(), n, self.block(depth))
        if name == "bell":
            return (name, self.label(), self.block(depth))
        if name == "task":
            return (name, self.label(), self.block(depth, True))
        if name == "raise":
            return (name, self.label(), rng.choice(ERRORS))
        if name == "handler":
            return (name, self.label(), rng.choice(("record", "record", "raise", "default", "stop")))
        return (name, self.label(), n)

    def waiting(self, depth: int) -> Op:
        rng, n, label = self.rng, self.rng.randrange(8), self.label()
        name = rng.choice(WAITS.split())
        if name in ("sleep", "queue_get", "event_wait"):
            return (name, label, rng.choice((0, 0, 1, 2, 5)))
        if name in ("wait_future", "wait_task"):
            return (name, label, n, rng.randrange(4))
        if name in ("gather", "wait"):
            return (name, label, rng.randrange(3), self.blocks(depth))
        if name == "group":
            return (name, label, self.blocks(depth))
        if name == "timeout":
            return (name, label, rng.randrange(4), self.block(depth, True))
        if name == "guard":
            kind = rng.choice(("Exception", "CancelledError", "finally"))
            return (name, label, kind, self.block(depth, True), self.block(depth, True))
        if name in ("lock", "generate"):
            return (name, label, self.block(depth, True))
        return (name, label, n)


# ---------------------------------------------------------------------- wires
def _wires(rng: random.Random) -> Program:
    """Connections, and steps of operations on their ends; after each step the loop comes to rest."""
    wires = [_wire(rng) for _ in range(rng.choice((1, 1, 2, 3)))]
    steps: list[list[tuple[int, int, Op]]] = []
    follow: list[tuple[int, int, Op]] = []
    for _ in range(rng.randint(3, 12)):
        burst, follow = follow, []
        for _ in range(rng.choice((1, 1, 2, 3, 5))):
            at, end = rng.randrange(len(wires)), rng.randrange(2)
            op = _operation(rng, wires[at], end)
            burst.append((at, end, op))
            if op[0] in ("write", "stream_write") and op[1] > 1000 and rng.random() < 0.3:
                prefix = op[0].removesuffix("write")
                burst.append((at, end, (prefix + rng.choice(("close", "eof")),)))
            if rng.random() < 0.6:
                follow += [(at, *each) for each in _followed(rng, wires[at], end, op)]
        steps.append(burst)
    # Reactions that stand before the ends are connected see connection_made().
    early = []
    for at, wire in enumerate(wires):
        if rng.random() < 0.3:
            end, role = rng.choice([(0, wire[3]), (1, wire[4])])
            if role in ("protocol", "buffered"):
                operate = _datagram if wire[0] in ("datagram", "udp") else _transport
                reaction = [operate(rng, False, 1)] + [("raise",)] * (rng.random() < 0.3)
                early.append((at, end, ("react", "made", reaction)))
    return {"wires": wires, "body": (early, steps)}


def _followed(rng: random.Random, wire: Op, end: int, op: Op) -> list[tuple[int, Op]]:
    """What makes something happen after an operation, in the next step: [(end, operation), ...]."""
    kind, _, bulk, *roles = wire
    role = roles[1 - end]
    prefix = {"raw": "raw_", "streams": "stream_"}.get(role, "")
    send: tuple[int, Op]
    finish: tuple[int, Op]
    if kind in ("datagram", "udp"):
        send = (1 - end, ("raw_send", 10) if prefix else ("sendto", 10, 1))
        finish = send  # there is no end of the stream to react to
    else:
        send = (1 - end, (f"{prefix}{'send' if role == 'raw' else 'write'}", 10))
        finish = (1 - end, (rng.choice((f"{prefix}close", f"{prefix}{'shut' if role == 'raw' else 'eof'}")),))
    if op[0] == "react":
        answers: dict[str, list[tuple[int, Op]]]
        answers = {"data": [send], "datagram": [send], "eof": [finish], "lost": [(end, ("close",))]}
        return answers.get(op[1], [])
    if op[0] in ("raw_recv", "raw_recvfrom"):
        return [(end, ("raw_cancel",)), send] if rng.random() < 0.5 else [send]
    if op[0] in ("pause", "protocol"):
        return [send]
    return []


def _wire(rng: random.Random) -> Op:
    """(kind, how it is connected, whether it carries bulk, roles of both ends)"""
    kind = rng.choice(("unix", "unix", "unix", "tcp", "datagram", "udp", "pipe"))
    bulk = rng.random() < 0.4
    if kind in ("datagram", "udp"):
        bulk = bulk and kind == "datagram" and sys.version_info < (3, 13)  # 3.13.0 counts what waits wrongly
        return (kind, "pair", bulk, rng.choice(("protocol", "raw")), "protocol")
    if kind == "pipe":
        return (kind, "pair", bulk, *rng.choice((("protocol", "protocol"), ("raw", "protocol"), ("protocol", "raw"))))
    roles = [rng.choice(("protocol", "protocol", "buffered", "streams")) for _ in range(2)]
    if rng.random() < 0.4:
        roles[rng.randrange(2)] = "raw"
    return (kind, rng.choice(("pair", "pair", "accepted", "serve")), bulk, *roles)


def _size(rng: random.Random, bulk: bool) -> int:
    if bulk and rng.random() < 0.5:
        return rng.choice((2_000_000, 3_000_000))
    return rng.choice((0, 1, 10, 100, 700))


def _operation(rng: random.Random, wire: Op, end: int) -> Op:
    kind, _, bulk, *roles = wire
    role = roles[end]
    if kind in ("datagram", "udp"):
        return _raw_datagram(rng, bulk) if role == "raw" else _datagram(rng, bulk)
    if role == "raw":
        return _raw(rng, bulk)
    if role == "streams":
        return _stream(rng, bulk)
    return _transport(rng, bulk)


def _transport(rng: random.Random, bulk: bool, depth: int = 0) -> Op:
    name = rng.choice(TRANSPORT.split())
    if name == "write":
        return (name, _size(rng, bulk))
    if name == "writelines":
        return (name, [rng.choice((0, 1, 10, 100)) for _ in range(rng.randrange(4))])
    if name == "protocol":
        return (name, rng.choice(("protocol", "buffered")))
    if name == "limits":
        return (name, *rng.choice(((0, None), (None, None), (100, 50), (1, 2), (1 << 16, 0), (None, 10))))
    if name == "react":
        if depth:
            return ("write", _size(rng, False))
        # In bulk, how much has come when data_received() is called is no promise: only harmless reactions.
        event = rng.choice(EVENTS)
        if bulk and event == "data":
            return (name, event, [("write", 10)])
        reaction = [_transport(rng, bulk, 1) for _ in range(rng.randint(1, 2))]
        extra = rng.random()
        if extra < 0.3:
            reaction.append(("raise",))
        elif event == "eof" and extra < 0.8:
            reaction.append(("keep",))
        return (name, event, reaction)
    return (name,)


def _stream(rng: random.Random, bulk: bool) -> Op:
    name = rng.choice(STREAM.split())
    if name in ("write", "read", "exactly"):
        return (f"stream_{name}", rng.choice((-1, 5, 100)) if name == "read" else _size(rng, bulk and name == "write"))
    return (f"stream_{name}",)


def _raw(rng: random.Random, bulk: bool) -> Op:
    name = rng.choice(RAW.split())
    if name == "send":
        return ("raw_send", _size(rng, False))
    if name == "recv":
        return ("raw_recv", rng.choice((1, 50, 100_000)))
    if name == "sendall":
        return ("raw_sendall", _size(rng, bulk))
    if name == "thread":
        return ("raw_thread", rng.choice(("send", "send", "send", "drain", "shut", "close")), rng.choice((1, 100)))
    return (f"raw_{name}",)


def _datagram(rng: random.Random, bulk: bool, depth: int = 0) -> Op:
    name = rng.choice(DATAGRAM.split())
    if name == "sendto":
        return (name, rng.choice((0, 1, 10, 100)), rng.choice((1, 1, 2, 1500 if bulk else 5)))
    if name == "limits":
        return (name, *rng.choice(((0, None), (None, None), (100, 50))))
    if name == "react":
        if depth:
            return ("sendto", 1, 1)
        event = rng.choice(("datagram", "datagram", "error", "pause", "resume", "lost"))
        reaction = [_datagram(rng, False, 1)]
        # What error_received() raises comes out of asyncio's sendto(); goloop reports it.
        if event != "error" and rng.random() < 0.3:
            reaction.append(("raise",))
        return (name, event, reaction)
    return (name,)


def _raw_datagram(rng: random.Random, bulk: bool) -> Op:
    name = rng.choice(RAW_DATAGRAM.split())
    if name == "send":
        return ("raw_send", rng.choice((0, 1, 100)))
    if name == "recvfrom":
        return ("raw_recvfrom", 1000)
    if name == "thread":
        return ("raw_thread", rng.choice(("send", "send", "drain", "close")), rng.choice((1, 100)))
    return (f"raw_{name}",)
