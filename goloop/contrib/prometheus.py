"""goloop.debug.stats() for Prometheus: a collector for prometheus_client. `pip install goloop[prometheus]`.

    from goloop.contrib import prometheus
    prometheus.register()

Nothing is counted that is not counted anyway: a scrape reads the numbers, and costs nothing in between.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import REGISTRY, Collector, CollectorRegistry

from goloop.debug import Histogram, LoopStats, Stats, stats

# name: what it says, and the attribute of Stats or LoopStats. Counters get the ending "_total".
_PROCESS_COUNTERS = {
    "goloop_goroutines_started": ("Goroutines that have been started.", "started"),
    "goloop_net_received_bytes": ("Bytes that connections of goloop.net have read.", "received"),
    "goloop_net_written_bytes": ("Bytes that connections of goloop.net have written.", "written"),
    "goloop_net_accepts": ("Connections that listeners of goloop.net have accepted.", "accepts"),
}
_PROCESS_GAUGES = {
    "goloop_backlog": ("Goroutines that no worker has started.", "backlog"),
    "goloop_backlog_age_seconds": ("How long the oldest of them has waited.", "backlog_age"),
    "goloop_workers": ("Threads that run goroutines.", "workers"),
    "goloop_workers_limit": ("How many of them there may be (GOLOOP_MAXTHREADS).", "max_workers"),
    "goloop_gomaxprocs": ("How many of them may compute at once.", "gomaxprocs"),
}
_LOOP_COUNTERS = {
    "goloop_loop_iterations": ("Iterations of the loop.", "iterations"),
    "goloop_loop_callbacks": ("Callbacks and turns of goroutines that the loop has begun.", "callbacks"),
    "goloop_loop_sleeps": ("How often the loop found nothing to do.", "sleeps"),
    "goloop_loop_busy_seconds": ("Time in which the loop ran callbacks.", "busy"),
    "goloop_loop_asleep_seconds": ("Time in which the loop had nothing to do.", "asleep"),
    "goloop_loop_received_bytes": ("Bytes that transports have read.", "received"),
    "goloop_loop_written_bytes": ("Bytes that were written to transports.", "written"),
    "goloop_loop_accepts": ("Connections that servers have accepted.", "accepts"),
    "goloop_loop_handoffs": ("How often another thread took over the loop from one that was stuck.", "handoffs"),
}
_LOOP_GAUGES = {
    "goloop_loop_ready": ("Callbacks that wait to run.", "ready"),
    "goloop_loop_timers": ("Timers that are pending.", "timers"),
    "goloop_loop_descriptors": ("Descriptors that the loop watches.", "descriptors"),
    "goloop_loop_behind_seconds": ("For how long the loop has not looked at timers and descriptors.", "behind"),
    "goloop_loop_away": ("Threads that are stuck in a callback of the loop.", "away"),
    "goloop_loop_offloaded": ("Connections for which the netpoller receives and sends.", "offloaded"),
}
_LOOP_HISTOGRAMS = {
    "goloop_loop_lag_seconds": ("From one look at timers and descriptors to the next.", "lag"),
    "goloop_loop_timer_lag_seconds": ("How late timers ran.", "timer_lag"),
    "goloop_loop_callback_seconds": ("How long callbacks took; one of every 251 is timed.", "callback_time"),
}


class GoloopCollector(Collector):
    """What prometheus_client asks for the numbers at each scrape.

    functions: whether to say how much time each function took: a series for each, some hundreds in a large program. A
    scrape may come in any thread, goroutine or coroutine.
    """

    def __init__(self, *, functions: bool = True) -> None:
        self._functions = functions

    def collect(self) -> Iterator[Metric]:
        """Give the numbers of now. From any thread."""
        now = stats()
        yield from _of_process(now)
        for name, (text, attribute) in _LOOP_COUNTERS.items():
            yield _by_loop(CounterMetricFamily(name, text, labels=["loop", "thread"]), now.loops, attribute)
        for name, (text, attribute) in _LOOP_GAUGES.items():
            yield _by_loop(GaugeMetricFamily(name, text, labels=["loop", "thread"]), now.loops, attribute)
        for name, (text, attribute) in _LOOP_HISTOGRAMS.items():
            family = HistogramMetricFamily(name, text, labels=["loop", "thread"])
            for loop in now.loops:
                histogram: Histogram = getattr(loop, attribute)
                family.add_metric(_labels(loop), _buckets(histogram), histogram.total)
            yield family
        if self._functions:
            yield from _of_functions(now)

    def describe(self) -> Iterable[Metric]:
        """Give nothing: registering it then asks for no numbers. From any thread."""
        return []


def register(registry: CollectorRegistry = REGISTRY, *, functions: bool = True) -> GoloopCollector:
    """Add a GoloopCollector to a registry, and return it; registry.unregister() takes it out.

    registry: a prometheus_client.CollectorRegistry. functions: as GoloopCollector takes it. From any thread.
    """
    collector = GoloopCollector(functions=functions)
    registry.register(collector)
    return collector


def _of_process(now: Stats) -> Iterator[Metric]:
    for name, (text, attribute) in _PROCESS_COUNTERS.items():
        yield CounterMetricFamily(name, text, value=getattr(now, attribute))
    for name, (text, attribute) in _PROCESS_GAUGES.items():
        yield GaugeMetricFamily(name, text, value=getattr(now, attribute))
    goroutines = GaugeMetricFamily("goloop_goroutines", "Goroutines, by what they do or wait for.", labels=["state"])
    for state, count in now.goroutines.items():
        goroutines.add_metric([state], count)
    yield goroutines


def _labels(loop: LoopStats) -> list[str]:
    return [str(loop.number), loop.thread or ""]


def _by_loop(family: CounterMetricFamily | GaugeMetricFamily, loops: Iterable[LoopStats], attribute: str) -> Metric:
    for loop in loops:
        family.add_metric(_labels(loop), getattr(loop, attribute))
    return family


def _buckets(histogram: Histogram) -> list[tuple[str, float]]:
    """The buckets as Prometheus has them: each counts those below it as well."""
    names = [*(f"{bound:g}" for bound in histogram.bounds), "+Inf"]
    seen = 0
    buckets: list[tuple[str, float]] = []
    for name, count in zip(names, histogram.counts, strict=True):
        seen += count
        buckets.append((name, seen))
    return buckets


def _of_functions(now: Stats) -> Iterator[Metric]:
    labels = ["function", "kind", "file"]
    seconds = CounterMetricFamily("goloop_function_seconds", "Time of loops by function, sampled.", labels=labels)
    calls = CounterMetricFamily("goloop_function_calls", "How often functions ran, sampled.", labels=labels)
    sums: dict[tuple[str, str, str], list[float]] = {}
    for loop in now.loops:
        for function in loop.functions:
            place = f"{function.file}:{function.line}" if function.file else ""
            entry = sums.setdefault((function.name, function.kind, place), [0.0, 0.0])
            entry[0] += function.seconds
            entry[1] += function.calls
    for key, (took, count) in sums.items():
        seconds.add_metric(key, took)
        calls.add_metric(key, count)
    yield seconds
    yield calls
