"""Timers with equal deadlines run in the order they were set, however many; asyncio leaves that order open."""

import random

import pytest

import goloop


@pytest.fixture
def loop():
    loop = goloop.new_event_loop()
    yield loop
    loop.close()


def turn(loop):
    loop.call_soon(loop.stop)
    loop.run_forever()


def test_equal_deadlines_run_in_order_of_scheduling(loop):
    seen, when = [], loop.time() - 1
    for n in range(1000):
        loop.call_at(when, seen.append, n)
    turn(loop)
    assert seen == list(range(1000))


def test_mixed_deadlines_run_as_a_stable_sort_would_order_them(loop):
    choose, past = random.Random(1), int(loop.time()) - 100
    seen = []
    for n in range(2000):
        when = past + choose.randrange(20)
        loop.call_at(when, seen.append, (when, n))
    turn(loop)
    assert len(seen) == 2000
    assert seen == sorted(seen)


def test_the_order_holds_with_some_cancelled(loop):
    seen, when = [], loop.time() - 1
    handles = [loop.call_at(when, seen.append, n) for n in range(1000)]
    for n, handle in enumerate(handles):
        if n % 4:
            handle.cancel()
    for n in range(1000, 1100):
        loop.call_at(when, seen.append, n)
    turn(loop)
    assert seen == [*range(0, 1000, 4), *range(1000, 1100)]
