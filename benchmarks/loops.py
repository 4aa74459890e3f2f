"""The names of the contestants, and how the event loops among them are made.

A contestant is the name of a loop, which may be followed by variables of the environment (goloop+GOLOOP_IO=auto is one
of its own), or C, the minimal server. What imports this does not import the loops themselves.
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
from collections.abc import Iterable

CONTROL = "asyncio"  # it does not change: its spread is the noise of the machine
SUBJECT = "goloop"
RIVAL = "uvloop"  # the peer that every ratio is also taken to; of the others only to the best one
NATIVE = "C"  # native/server.c

# Module: what makes a loop in it.
PEERS = {
    RIVAL: "new_event_loop",
    "zuvloop": "new_event_loop",
    "rloop": "new_event_loop",
    "rsloop": "new_event_loop",
    "blazio": "new_event_loop",
    "veloxloop": "new_event_loop",
    "talyn": "Loop",
}
KNOWN = (CONTROL, SUBJECT, *PEERS, NATIVE)


def base(contestant: str) -> str:
    """The name without the variables of the environment."""
    return contestant.partition("+")[0]


def is_peer(contestant: str) -> bool:
    return base(contestant) in PEERS


def others(contestants: Iterable[str]) -> list[str]:
    """The peers apart from uvloop: the best of these is what goloop is compared with."""
    return [who for who in contestants if is_peer(who) and base(who) != RIVAL]


def installed(name: str) -> bool:
    return name == NATIVE or importlib.util.find_spec(name) is not None


def default_contestants() -> list[str]:
    """asyncio, goloop, every peer that is installed, and C."""
    here = [name for name in PEERS if installed(name)]
    return [CONTROL, *(name for name in here if name == RIVAL), SUBJECT, *others(here), NATIVE]


def new_event_loop(name: str) -> asyncio.AbstractEventLoop:
    if name == CONTROL:
        return asyncio.new_event_loop()
    loop: asyncio.AbstractEventLoop = getattr(importlib.import_module(name), PEERS.get(name, "new_event_loop"))()
    return loop
