"""goloop.contrib.prometheus, scraped by prometheus_client and read by its own parser."""

import asyncio

import pytest

import goloop
from goloop import debug

pytest.importorskip("prometheus_client", reason="the extra goloop[prometheus] is not installed")

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse

from goloop.contrib import prometheus


@pytest.fixture
def registry():
    return CollectorRegistry()


async def scrape(registry):
    """Scrape while a loop runs."""
    for _ in range(300):
        await asyncio.sleep(0)
    await asyncio.sleep(0.01)
    return generate_latest(registry).decode(), generate_openmetrics(registry).decode(), debug.stats()


def samples(families):
    return {(s.name, tuple(sorted(s.labels.items()))): s.value for family in families for s in family.samples}


def test_a_scrape_has_the_numbers_of_stats(registry):
    prometheus.register(registry)
    text, openmetrics, now = goloop.run(scrape(registry))
    for got in (samples(parse(text)), samples(parse_openmetrics(openmetrics))):
        (loop,) = (s for s in now.loops if s.thread == "MainThread")
        labels = (("loop", str(loop.number)), ("thread", "MainThread"))
        assert got["goloop_loop_iterations_total", labels] == loop.iterations
        assert got["goloop_loop_sleeps_total", labels] == loop.sleeps >= 1
        assert got["goloop_loop_timers", labels] == loop.timers
        assert got["goloop_workers_limit", ()] == now.max_workers
        assert got["goloop_gomaxprocs", ()] == now.gomaxprocs


def test_histograms_have_buckets_that_add_up(registry):
    prometheus.register(registry)
    text, _, now = goloop.run(scrape(registry))
    (loop,) = (s for s in now.loops if s.thread == "MainThread")
    got = samples(parse(text))
    labels = (("loop", str(loop.number)), ("thread", "MainThread"))
    buckets = [
        (float(dict(key[1])["le"]), value)
        for key, value in got.items()
        if key[0] == "goloop_loop_lag_seconds_bucket" and dict(key[1])["loop"] == str(loop.number)
    ]
    assert len(buckets) == len(loop.lag.counts)
    assert [value for _, value in sorted(buckets)] == sorted(value for _, value in buckets)
    assert got["goloop_loop_lag_seconds_count", labels] == loop.lag.count == max(value for _, value in buckets)
    assert got["goloop_loop_lag_seconds_sum", labels] == pytest.approx(loop.lag.total)


def test_functions_and_goroutines_are_series_of_their_own(registry):
    prometheus.register(registry)
    channel = goloop.Chan()
    g = goloop.go(channel.recv)

    async def main():
        while g.state != "chan receive":
            await asyncio.sleep(0.001)
        return await scrape(registry)

    text, _, _ = goloop.run(main())
    channel.send(1)
    g.join()
    got = samples(parse(text))
    assert got["goloop_goroutines", (("state", "chan receive"),)] == 1
    functions = [dict(labels) for name, labels in got if name == "goloop_function_seconds_total"]
    (found,) = (f for f in functions if f["function"].endswith("are_series_of_their_own.<locals>.main"))
    assert found["kind"] == "coroutine" and found["file"].startswith(f"{__file__}:")


def test_functions_can_be_left_out_and_a_collector_taken_out(registry):
    collector = prometheus.register(registry, functions=False)
    assert "goloop_function_seconds" not in goloop.run(scrape(registry))[0]
    registry.unregister(collector)
    assert "goloop_" not in generate_latest(registry).decode()
