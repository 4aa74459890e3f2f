"""goloop for OpenTelemetry: metrics, and spans for slow callbacks and unhandled exceptions. `pip install goloop[otel]`.

    from goloop.contrib import otel
    otel.instrument()

The context of OpenTelemetry is a contextvar, so go(), tasks and executors of goloop carry it along by themselves.
"""

from __future__ import annotations

import importlib.metadata
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextvars import Context
from typing import Any

from opentelemetry import context as otel_context
from opentelemetry import metrics, trace
from opentelemetry.metrics import CallbackOptions, Meter, MeterProvider, Observation
from opentelemetry.trace import SpanKind, Status, StatusCode, TracerProvider

from goloop.debug import (
    Histogram,
    LoopStats,
    SlowCallback,
    Stats,
    on_slow,
    on_unhandled,
    remove_slow,
    remove_unhandled,
    stats,
)

_Value = Callable[[LoopStats], float]

# name: unit, description, what it is
_LOOP_COUNTERS: dict[str, tuple[str, str, _Value]] = {
    "goloop.loop.iterations": ("{iteration}", "Iterations of the loop.", lambda s: s.iterations),
    "goloop.loop.callbacks": ("{callback}", "Callbacks and turns of goroutines.", lambda s: s.callbacks),
    "goloop.loop.busy": ("s", "Time in which the loop ran callbacks.", lambda s: s.busy),
    "goloop.loop.asleep": ("s", "Time in which the loop had nothing to do.", lambda s: s.asleep),
    "goloop.loop.received": ("By", "Bytes that transports have read.", lambda s: s.received),
    "goloop.loop.written": ("By", "Bytes that were written to transports.", lambda s: s.written),
    "goloop.loop.accepts": ("{connection}", "Connections that servers have accepted.", lambda s: s.accepts),
    "goloop.loop.handoffs": ("{handoff}", "How often a loop was taken over from a stuck thread.", lambda s: s.handoffs),
}
_LOOP_GAUGES: dict[str, tuple[str, str, _Value]] = {
    "goloop.loop.ready": ("{callback}", "Callbacks that wait to run.", lambda s: s.ready),
    "goloop.loop.timers": ("{timer}", "Timers that are pending.", lambda s: s.timers),
    "goloop.loop.descriptors": ("{descriptor}", "Descriptors that the loop watches.", lambda s: s.descriptors),
    "goloop.loop.behind": ("s", "How long the loop has not looked at timers and descriptors.", lambda s: s.behind),
}
_LOOP_HISTOGRAMS: dict[str, tuple[str, Callable[[LoopStats], Histogram]]] = {
    "goloop.loop.lag": ("From one look at timers and descriptors to the next.", lambda s: s.lag),
    "goloop.loop.timer_lag": ("How late timers ran.", lambda s: s.timer_lag),
    "goloop.loop.callback_time": ("How long callbacks took, sampled.", lambda s: s.callback_time),
}
_PROCESS: dict[str, tuple[str, str, bool, Callable[[Stats], float]]] = {  # the bool: it only grows
    "goloop.goroutines.started": ("{goroutine}", "Goroutines that have been started.", True, lambda s: s.started),
    "goloop.backlog": ("{goroutine}", "Goroutines that no worker has started.", False, lambda s: s.backlog),
    "goloop.backlog.age": ("s", "How long the oldest of them has waited.", False, lambda s: s.backlog_age),
    "goloop.workers": ("{thread}", "Threads that run goroutines.", False, lambda s: s.workers),
    "goloop.net.received": ("By", "Bytes that connections of goloop.net have read.", True, lambda s: s.received),
    "goloop.net.written": ("By", "Bytes that connections of goloop.net have written.", True, lambda s: s.written),
}
QUANTILES = (0.5, 0.99, 1.0)  # of histograms, as OpenTelemetry has none that is read


class Instrumentation:
    """What instrument() has set up; made by instrument(). From any thread."""

    def __init__(self, tracer: trace.Tracer, meter: Meter) -> None:
        self._tracer = tracer
        self._on = True
        on_slow(self._slow)
        on_unhandled(self._unhandled)
        _Metrics(meter, self)

    def remove(self) -> None:
        """Make no more spans, and report no more numbers. Twice is harmless. From any thread."""
        if self._on:
            self._on = False
            remove_slow(self._slow)
            remove_unhandled(self._unhandled)

    @property
    def on(self) -> bool:
        """Whether remove() has not been called."""
        return self._on

    def _slow(self, report: SlowCallback) -> None:
        """In the watch's thread, when the callback is over: it began so many seconds ago."""
        if report.phase != "ended":
            return
        end = time.time_ns()
        attributes: dict[str, Any] = {
            "thread.name": report.thread,
            "goloop.blocking": report.blocking,
            "goloop.handed_off": report.handed_off,
            "code.stacktrace": "".join(report.stack.format()),
            "code.function.name": report.coroutine or report.callback,
        }
        if report.task is not None:
            attributes["goloop.task"] = report.task
        if report.goroutine is not None:
            attributes["goloop.goroutine"] = report.goroutine
        span = self._tracer.start_span(
            f"slow {report.coroutine or report.callback}",
            context=otel_context.Context(),  # not that of the thread which reports
            kind=SpanKind.INTERNAL,
            attributes=attributes,
            start_time=end - int(report.seconds * 1e9),
        )
        span.end(end)

    def _unhandled(self, loop: Any, context: dict[str, Any]) -> None:
        exception = context.get("exception")
        if exception is None:
            return
        span = self._tracer.start_span(
            f"unhandled {type(exception).__qualname__}",
            context=_otel_context(context),
            kind=SpanKind.INTERNAL,
            attributes={"goloop.message": str(context.get("message", ""))},
        )
        span.record_exception(exception)
        span.set_status(Status(StatusCode.ERROR, str(context.get("message", ""))))
        span.end()


def _otel_context(context: dict[str, Any]) -> otel_context.Context | None:
    """The context in which the callback or task ran whose exception nobody handled; None: that of the caller."""
    for name in ("handle", "task", "future"):
        where = getattr(context.get(name), "get_context", None)
        if where is not None:
            inner: Context = where()
            return inner.copy().run(otel_context.get_current)  # the copy, since it may be entered elsewhere
    return None


class _Metrics:
    """The observable instruments; each asks for the numbers of now, which are read once for all in a collection."""

    def __init__(self, meter: Meter, owner: Instrumentation) -> None:
        self._owner = owner
        self._lock = threading.Lock()
        self._read: tuple[float, Stats] | None = None
        self._before: dict[tuple[str, int], Histogram] = {}
        for name, (unit, text, value) in _LOOP_COUNTERS.items():
            meter.create_observable_counter(name, [self._by_loop(value)], unit, text)
        for name, (unit, text, value) in _LOOP_GAUGES.items():
            meter.create_observable_gauge(name, [self._by_loop(value)], unit, text)
        for name, (text, histogram) in _LOOP_HISTOGRAMS.items():
            meter.create_observable_gauge(name, [self._quantiles(name, histogram)], "s", text)
        for name, (unit, text, grows, of_process) in _PROCESS.items():
            create = meter.create_observable_counter if grows else meter.create_observable_gauge
            create(name, [self._of_process(of_process)], unit, text)
        meter.create_observable_gauge("goloop.goroutines", [self._goroutines], "{goroutine}", "Goroutines, by state.")
        meter.create_observable_counter("goloop.function.time", [self._functions], "s", "Time by function, sampled.")

    def _now(self) -> Stats | None:
        """The numbers, read at most every 50 ms: a collection asks for each metric."""
        if not self._owner.on:
            return None
        with self._lock:
            now = time.monotonic()
            if self._read is None or now - self._read[0] > 0.05:
                self._read = now, stats()
            return self._read[1]

    def _by_loop(self, value: _Value) -> Callable[[CallbackOptions], Iterable[Observation]]:
        def observe(options: CallbackOptions) -> Iterator[Observation]:
            now = self._now()
            for loop in now.loops if now else ():
                yield Observation(value(loop), _labels(loop))

        return observe

    def _of_process(self, value: Callable[[Stats], float]) -> Callable[[CallbackOptions], Iterable[Observation]]:
        def observe(options: CallbackOptions) -> Iterator[Observation]:
            now = self._now()
            if now is not None:
                yield Observation(value(now))

        return observe

    def _quantiles(
        self, name: str, histogram: Callable[[LoopStats], Histogram]
    ) -> Callable[[CallbackOptions], Iterable[Observation]]:
        """Quantiles of what has come since the last collection."""

        def observe(options: CallbackOptions) -> Iterator[Observation]:
            now = self._now()
            for loop in now.loops if now else ():
                whole = histogram(loop)
                before = self._before.get((name, loop.number))
                self._before[name, loop.number] = whole
                recent = whole if before is None else whole - before
                for q in QUANTILES:
                    yield Observation(recent.quantile(q), {**_labels(loop), "quantile": str(q)})

        return observe

    def _goroutines(self, options: CallbackOptions) -> Iterator[Observation]:
        now = self._now()
        for state, count in (now.goroutines if now else {}).items():
            yield Observation(count, {"state": state})

    def _functions(self, options: CallbackOptions) -> Iterator[Observation]:
        now = self._now()
        sums: dict[tuple[str, str, str], float] = {}
        for loop in now.loops if now else ():
            for function in loop.functions:
                key = function.name, function.kind, f"{function.file}:{function.line}" if function.file else ""
                sums[key] = sums.get(key, 0.0) + function.seconds
        for (function_name, kind, file), seconds in sums.items():
            yield Observation(seconds, {"code.function.name": function_name, "goloop.kind": kind, "code.file": file})


def _labels(loop: LoopStats) -> dict[str, str]:
    return {"loop": str(loop.number), "thread.name": loop.thread or ""}


def instrument(
    *, tracer_provider: TracerProvider | None = None, meter_provider: MeterProvider | None = None
) -> Instrumentation:
    """Report the numbers of goloop.debug.stats() as metrics; make spans for slow callbacks and unhandled exceptions.

    tracer_provider, meter_provider: of OpenTelemetry; None: the global ones. Returns an Instrumentation, whose remove()
    ends it. A slow callback is one that the watch reports (Loop(watch=True), GOLOOP_WATCH=1): its span has its stack.
    An unhandled exception is what goes to a loop's exception handler: its span has the parent that was current where it
    was raised, as far as that is known. From any thread.
    """
    version = importlib.metadata.version("goloop")
    return Instrumentation(
        trace.get_tracer("goloop", version, tracer_provider), metrics.get_meter("goloop", version, meter_provider)
    )
