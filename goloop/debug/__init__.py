"""A look inside: what the process does now, and reports of callbacks that keep their loop from running others."""

from goloop.debug._collect import snapshot
from goloop.debug._dump import dump
from goloop.debug._snapshot import Snapshot
from goloop.runtime.watch import SlowCallback, on_slow, remove_slow

__all__ = ["SlowCallback", "Snapshot", "dump", "on_slow", "remove_slow", "snapshot"]
