"""goloop.contrib.otel against OpenTelemetry's SDK: its readers and exporters in memory."""

import asyncio
import threading
import time

import pytest

import goloop
from goloop import debug
from tests.helpers.waiting import async_until, until

pytest.importorskip("opentelemetry.sdk", reason="the SDK of the extra goloop[otel] is not installed")

from opentelemetry import trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from goloop.contrib import otel


class Setup:
    def __init__(self):
        self.reader = InMemoryMetricReader()
        self.meters = MeterProvider([self.reader])
        self.exporter = InMemorySpanExporter()
        self.traces = TracerProvider()
        self.traces.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.tracer = self.traces.get_tracer("test")
        self.instrumentation = otel.instrument(tracer_provider=self.traces, meter_provider=self.meters)

    def metrics(self):
        """Every point: (name, attributes) -> value."""
        data = self.reader.get_metrics_data()
        found = {}
        for resource in data.resource_metrics if data else ():
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    for point in metric.data.data_points:
                        found[metric.name, tuple(sorted(point.attributes.items()))] = point.value
        return found

    def spans(self, prefix):
        return [span for span in self.exporter.get_finished_spans() if span.name.startswith(prefix)]


@pytest.fixture
def setup():
    made = Setup()
    yield made
    made.instrumentation.remove()
    made.meters.shutdown()
    made.traces.shutdown()


def test_metrics_are_the_numbers_of_stats(setup):
    async def main():
        for _ in range(300):
            await asyncio.sleep(0)
        await asyncio.sleep(0.01)
        return debug.stats(), setup.metrics()

    now, got = goloop.run(main())
    (loop,) = (s for s in now.loops if s.thread == "MainThread")
    labels = (("loop", str(loop.number)), ("thread.name", "MainThread"))
    assert got["goloop.loop.iterations", labels] == loop.iterations
    assert got["goloop.loop.descriptors", labels] == loop.descriptors
    assert got["goloop.loop.busy", labels] >= 0
    assert got["goloop.loop.lag", (labels[0], ("quantile", "0.99"), labels[1])] <= loop.lag.longest
    functions = {dict(attributes)["code.function.name"] for name, attributes in got if name == "goloop.function.time"}
    assert any(name.endswith("test_metrics_are_the_numbers_of_stats.<locals>.main") for name in functions)


def test_goroutines_are_counted_by_state(setup):
    channel = goloop.Chan()
    g = goloop.go(channel.recv)
    until(lambda: g.state == "chan receive")
    got = setup.metrics()
    channel.send(1)
    g.join()
    assert got["goloop.goroutines", (("state", "chan receive"),)] == 1
    assert got["goloop.workers", ()] >= 1


def test_a_quantile_is_of_what_came_since_the_last_collection(setup):
    async def main():
        time.sleep(0.05)
        await asyncio.sleep(0.1)  # a collection reads the numbers every 50 ms at most
        first = setup.metrics()
        await asyncio.sleep(0.1)
        return first, setup.metrics(), asyncio.get_running_loop().stats().number

    first, second, number = goloop.run(main())
    key = "goloop.loop.lag", (("loop", str(number)), ("quantile", "1.0"), ("thread.name", "MainThread"))
    assert first[key] >= 0.05
    assert second[key] < 0.05


def test_a_slow_callback_is_a_span_with_its_stack(setup):
    def block_for_a_while():
        time.sleep(0.15)

    async def handler():
        block_for_a_while()

    async def main():
        asyncio.get_running_loop().slow_callback_duration = 0.03
        await asyncio.create_task(handler(), name="request 1")

    goloop.run(main(), watch=True)
    until(lambda: setup.spans("slow "))
    (span,) = setup.spans("slow ")
    assert span.name.endswith("<locals>.handler")
    assert span.attributes["goloop.task"] == "request 1"
    assert span.attributes["goloop.blocking"]
    assert "block_for_a_while" in span.attributes["code.stacktrace"]
    assert span.end_time - span.start_time >= 0.1e9
    assert span.parent is None


def test_an_unhandled_exception_is_a_span_below_the_one_in_which_it_was_raised(setup):
    def fails():
        raise ZeroDivisionError("no way")

    async def main():
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda *_: None)
        with setup.tracer.start_as_current_span("request") as request:
            loop.call_soon(fails)
            context = request.get_span_context()
        await async_until(lambda: setup.spans("unhandled "))
        return context

    request = goloop.run(main())
    (span,) = setup.spans("unhandled ZeroDivisionError")
    assert span.parent.span_id == request.span_id
    assert span.status.status_code is StatusCode.ERROR
    assert span.events[0].attributes["exception.message"] == "no way"
    assert "fails" in span.attributes["goloop.message"]


def test_the_context_is_carried_into_goroutines_tasks_and_threads(setup):
    def current():
        return trace.get_current_span().get_span_context().span_id

    async def async_current():
        return current()

    def nested():
        goloop.sleep(0.001)  # parks in between
        return goloop.go(current).result()

    async def main():
        with setup.tracer.start_as_current_span("request") as span:
            wanted = span.get_span_context().span_id
            started = [goloop.go(current), goloop.go(async_current), goloop.go(nested)]
            task = asyncio.create_task(async_current())
        got = [await g for g in started] + [await task]
        with trace.use_span(span):
            got.append(await asyncio.to_thread(current))
        assert current() == 0
        return wanted, got

    wanted, got = goloop.run(main())
    assert got == [wanted] * 5


def test_what_is_removed_reports_nothing_more(setup):
    setup.instrumentation.remove()
    setup.instrumentation.remove()
    assert not setup.instrumentation.on

    async def main():
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda *_: None)
        loop.call_exception_handler({"message": "lost", "exception": ValueError()})
        return setup.metrics()

    assert goloop.run(main()) == {}
    assert not setup.spans("unhandled")


def test_a_hook_for_unhandled_exceptions_that_fails_is_logged_and_the_handler_still_called(caplog):
    handled = []
    threads = []

    @debug.on_unhandled
    def hook(loop, context):
        threads.append(threading.current_thread())
        raise RuntimeError("the hook's own")

    async def main():
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda loop, context: handled.append(context["message"]))
        loop.call_exception_handler({"message": "lost"})

    try:
        goloop.run(main())
    finally:
        assert debug.remove_unhandled(hook)
    assert handled == ["lost"] and threads == [threading.main_thread()]
    assert "a hook of on_unhandled() failed" in caplog.text
    assert not debug.remove_unhandled(hook)
    with pytest.raises(TypeError, match=r"a callable object was expected by on_unhandled\(\), got 3"):
        debug.on_unhandled(3)
