"""A look inside: the numbers, traces, and reports of callbacks that keep their loop from running others."""

from goloop._eventloop.stats import FunctionTime, Histogram, LoopStats
from goloop._eventloop.unhandled import on_unhandled, remove_unhandled
from goloop.debug._stats import Stats, stats
from goloop.debug._trace import Trace, is_tracing, span, start_trace, stop_trace, tracing
from goloop.runtime.watch import SlowCallback, on_slow, remove_slow

__all__ = [
    "FunctionTime",
    "Histogram",
    "LoopStats",
    "SlowCallback",
    "Stats",
    "Trace",
    "is_tracing",
    "on_slow",
    "on_unhandled",
    "remove_slow",
    "remove_unhandled",
    "span",
    "start_trace",
    "stats",
    "stop_trace",
    "tracing",
]
