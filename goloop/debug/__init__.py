"""A look inside: what the process does now, and reports of callbacks that keep their loop from running others."""

from goloop.debug._collect import snapshot
from goloop.debug._dump import dump
from goloop.debug._signal import dump_on_signal, no_dump_on_signal
from goloop.debug._snapshot import Snapshot
from goloop.runtime.watch import SlowCallback, on_slow, remove_slow

__all__ = [
    "SlowCallback",
    "Snapshot",
    "dump",
    "dump_on_signal",
    "no_dump_on_signal",
    "on_slow",
    "remove_slow",
    "snapshot",
]
