"""A look inside: reports of callbacks that keep their loop from running others."""

from goloop.runtime.watch import SlowCallback, on_slow, remove_slow

__all__ = ["SlowCallback", "on_slow", "remove_slow"]
