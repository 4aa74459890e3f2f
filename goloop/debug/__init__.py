"""A look inside: the numbers, and reports of callbacks that keep their loop from running others."""

from goloop._eventloop.stats import FunctionTime, Histogram, LoopStats
from goloop.debug._stats import Stats, stats
from goloop.runtime.watch import SlowCallback, on_slow, remove_slow

__all__ = [
    "FunctionTime",
    "Histogram",
    "LoopStats",
    "SlowCallback",
    "Stats",
    "on_slow",
    "remove_slow",
    "stats",
]
