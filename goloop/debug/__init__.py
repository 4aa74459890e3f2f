"""A look inside: what the process does now, its numbers, traces, ways in for others, and reports of callbacks that keep
others waiting."""

from goloop._eventloop.stats import FunctionTime, Histogram, LoopStats
from goloop._eventloop.unhandled import on_unhandled, remove_unhandled
from goloop.debug._collect import snapshot
from goloop.debug._dump import dump
from goloop.debug._serve import Door, serve
from goloop.debug._signal import dump_on_signal, no_dump_on_signal
from goloop.debug._snapshot import Snapshot
from goloop.debug._stats import Stats, stats
from goloop.debug._trace import Trace, is_tracing, span, start_trace, stop_trace, tracing
from goloop.runtime.watch import SlowCallback, on_slow, remove_slow

__all__ = [
    "Door",
    "FunctionTime",
    "Histogram",
    "LoopStats",
    "SlowCallback",
    "Snapshot",
    "Stats",
    "Trace",
    "dump",
    "dump_on_signal",
    "is_tracing",
    "no_dump_on_signal",
    "on_slow",
    "on_unhandled",
    "remove_slow",
    "remove_unhandled",
    "serve",
    "snapshot",
    "span",
    "start_trace",
    "stats",
    "stop_trace",
    "tracing",
]
