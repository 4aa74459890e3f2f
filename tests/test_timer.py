"""goloop.timer: what comes from a timer's channel, and what does not, from goroutines, coroutines and threads."""

import asyncio
import contextvars
import gc
import itertools
import os
import random
import threading
import time
import weakref

import pytest

import goloop
from goloop.core.sync import timer_thread
from goloop.runtime import shutdown
from goloop.testing import bubble
from goloop.timer import FuncTimer, Ticker, Timer, after, after_func
from tests.helpers.actors import InAsyncioCoroutine, InCoroutine, InGoroutine, InThread
from tests.helpers.waiting import SECONDS, until

KINDS = [InGoroutine, InThread, InCoroutine, InAsyncioCoroutine]
LATER = 3600.0


def ring_what_is_due():
    """Return when everything that is due now has rung."""
    after(0).recv(SECONDS)


@pytest.mark.parametrize("kind", KINDS)
def test_after_sends_the_time_once_it_has_come(kind):
    start = time.monotonic()

    async def coroutine():
        return await after(0.01).async_recv()

    def plain():
        return after(0.01).recv()

    when = kind(coroutine if issubclass(kind, InCoroutine) else plain, ()).join()
    assert start + 0.01 <= when <= time.monotonic()


def test_after_delivers_once():
    chan = after(0)
    assert chan.recv(SECONDS)
    ring_what_is_due()
    assert chan.try_recv() == (None, False)
    assert after(-1).recv(SECONDS)


def test_select_with_a_timeout_channel():
    chan = goloop.Chan()
    assert goloop.select(goloop.recv(chan), goloop.recv(after(0.001)))[0] == 1

    async def main():
        return await goloop.async_select(goloop.recv(chan), goloop.recv(after(0.001)))

    assert goloop.run(main())[0] == 1


def test_timers_ring_in_order():
    chan = goloop.Chan(100)
    base = time.monotonic() + 0.05
    delays = [i / 1000 for i in range(50)]
    random.Random(1).shuffle(delays)
    timers = [after_func(base + d - time.monotonic(), lambda: None) for d in delays]
    for timer in timers:
        assert timer.stop()
    # What rings on the clock's thread does so in the order of the times: seen through calls that it makes itself.
    rung = []
    calls = [timer_thread.CallbackTimer(lambda d=d: (rung.append(d), chan.try_send(d))) for d in delays]
    for call, d in zip(calls, delays, strict=True):
        call.set(base + d)
    for _ in delays:
        chan.recv(SECONDS)
    assert rung == sorted(delays)


def test_an_earlier_timer_wakes_the_clock():
    late, early = Timer(LATER), Timer(0.001)
    assert goloop.select(goloop.recv(late.chan), goloop.recv(early.chan), timeout=SECONDS)[0] == 1
    assert timer_thread.pending() == 1
    assert late.stop()
    assert timer_thread.pending() == 0


def test_stop():
    timer = Timer(LATER)
    assert timer.stop() is True
    assert timer.stop() is False
    timer = Timer(0)
    timer.chan.recv(SECONDS)
    assert timer.stop() is False


def test_no_stale_value_after_stop_or_reset():
    timer = Timer(0)
    until(lambda: len(timer.chan) == 1)
    assert timer.stop() is True  # the value was not received, and will not be
    assert timer.chan.try_recv() == (None, False)
    timer.reset(0)
    until(lambda: len(timer.chan) == 1)
    before = time.monotonic()
    assert timer.reset(0.001) is True
    assert timer.chan.recv(SECONDS) >= before + 0.001
    assert timer.reset(LATER) is False
    assert timer.reset(LATER) is True
    assert timer.stop() is True


@pytest.mark.parametrize("seed", range(3))
def test_no_stale_value_whoever_stops_and_resets_when(seed):
    rng = random.Random(seed)
    timer = Timer(LATER)
    for _ in range(300):
        delay = rng.choice([0, 0, 0.0002])
        timer.reset(delay)
        time.sleep(rng.choice([0, 0.0001, 0.0002]))
        before = time.monotonic()
        if rng.random() < 0.5:
            timer.stop()
            ring_what_is_due()
            assert timer.chan.try_recv() == (None, False)
        else:
            timer.reset(0.0001)
            assert timer.chan.recv(SECONDS) >= before


def test_a_ticker():
    with bubble():
        with Ticker(5) as ticker:
            assert [ticker.chan.recv() for _ in range(5)] == [6, 11, 16, 21, 26]
        assert ticker.chan.try_recv() == (None, False)
        goloop.sleep(100)
        assert ticker.chan.try_recv() == (None, False)
        assert not ticker.chan.closed
        ticker.reset(1)
        assert ticker.chan.recv() == 127
        ticker.stop()


def test_a_ticker_on_the_clock_s_thread():
    with Ticker(0.001) as ticker:
        ticks = [ticker.chan.recv(SECONDS) for _ in range(5)]
    assert all(b > a for a, b in itertools.pairwise(ticks))
    ring_what_is_due()
    assert ticker.chan.try_recv() == (None, False)


def test_a_ticker_drops_ticks_for_a_slow_receiver():
    with bubble(), Ticker(1) as ticker:
        goloop.sleep(20.5)
        assert ticker.chan.recv() == 2  # the oldest
        assert len(ticker.chan) == 0
        assert ticker.chan.recv() == 22


def test_a_ticker_for_coroutines():
    async def main():
        seen = 0
        with Ticker(0.001) as ticker:
            async for _ in ticker.chan:
                seen += 1
                if seen == 3:
                    return seen

    assert goloop.run(main()) == 3


def test_a_period_too_short_for_anything_leaves_the_rest_alone():
    with Ticker(1e-300) as ticker:
        ticker.chan.recv(SECONDS)
        assert after(0.001).recv(SECONDS)


def test_after_func_runs_in_a_goroutine_of_its_own():
    chan = goloop.Chan()
    variable = contextvars.ContextVar("variable", default=None)
    variable.set("the caller's")

    def body(*args, **kwargs):
        goloop.sleep(0.001)
        chan.send((args, kwargs, variable.get(), goloop.current() is not None))

    timer = after_func(0, body, 1, b=2)
    variable.set("changed")
    assert chan.recv(SECONDS) == ((1,), {"b": 2}, "the caller's", True)
    assert timer.stop() is False
    assert timer.reset(0) is False
    assert chan.recv(SECONDS)

    async def coroutine():
        await chan.async_send("from a coroutine")

    after_func(0.001, coroutine)
    assert chan.recv(SECONDS) == "from a coroutine"


def test_after_func_stopped():
    ran = []
    timer = after_func(LATER, ran.append, 1)
    assert isinstance(timer, FuncTimer)
    assert timer.stop() is True and timer.stop() is False
    assert timer.reset(0) is False
    until(lambda: ran)
    assert ran == [1]


def test_an_exception_in_an_after_func_is_reported_with_the_stack_that_set_it():
    reported = goloop.Chan(1)

    def fails():
        raise ZeroDivisionError

    async def main():
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda loop, context: reported.try_send(context))
        after_func(0, fails)
        context = await reported.async_recv(SECONDS)
        assert isinstance(context["exception"], ZeroDivisionError)
        assert context["source_traceback"][-1].name == "main"

    goloop.run(main())


def test_bad_arguments():
    for make in (Timer, Ticker, after, lambda s: after_func(s, print)):
        with pytest.raises(ValueError, match=r"NaN|positive"):
            make(float("nan"))
        with pytest.raises(TypeError):
            make(None)
        with pytest.raises(TypeError):
            make("1")
    for period in (0, -1, float("inf")):
        with pytest.raises(ValueError, match="positive"):
            Ticker(period)
    with pytest.raises(TypeError, match="takes a function"):
        after_func(1, None)
    with pytest.raises(TypeError, match="after_func"):
        FuncTimer()
    timer = Timer(float("inf"))
    with pytest.raises(RuntimeError, match="reset"):
        timer.__init__(1)
    assert "due in" in repr(timer)
    timer.stop()
    assert repr(timer) == "<Timer not set>"
    assert timer_thread.pending() == 0


def test_a_timer_that_nobody_refers_to_is_collected():
    gc.disable()  # by counting references alone
    try:
        for make in (lambda: Timer(LATER), lambda: Ticker(LATER), lambda: after(LATER)):
            made = make()
            assert timer_thread.pending() == 1
            gone = weakref.ref(made)
            del made
            assert gone() is None and timer_thread.pending() == 0
        chan = Timer(LATER).chan
        assert timer_thread.pending() == 1  # a channel is enough to be told
        del chan
        assert timer_thread.pending() == 0
    finally:
        gc.enable()
    timer = after_func(LATER, print)
    del timer
    assert timer_thread.pending() == 1  # but this is to happen


def test_timers_do_not_wait_for_a_worker_that_is_stuck():
    procs = goloop.gomaxprocs(1)
    try:
        stop = threading.Event()
        g = goloop.go(stop.wait)  # blocks its worker's thread
        until(lambda: g.state == "running")
        assert after(0.001).recv(SECONDS)
        stop.set()
        g.join()
    finally:
        goloop.gomaxprocs(procs)


def test_a_timer_outlives_the_loop_that_set_it():
    async def main():
        return after(0.01)

    assert goloop.run(main()).recv(SECONDS)


@pytest.mark.parametrize("seed", range(3))
def test_under_stress_each_time_comes_once_or_its_timer_was_stopped(seed):
    """Timers set, stopped and received by everybody at once: each time comes once, or the timer was stopped."""
    procs = goloop.gomaxprocs(4)
    results = goloop.Chan(10000)

    def plain(seed):
        rng = random.Random(seed)
        for _ in range(60):
            timer = Timer(rng.choice([0, 0.0001, 0.001]))
            chan = timer.chan
            if rng.random() < 0.5:
                goloop.sleep(rng.choice([0, 0.0001]))
                stopped = timer.stop()
                results.try_send(stopped != chan.try_recv()[1])
            else:
                results.try_send(chan.recv(SECONDS) > 0)

    async def coroutine(seed):
        rng = random.Random(seed)
        for _ in range(60):
            chan = after(rng.choice([0, 0.0001, 0.001]))
            if rng.random() < 0.3:
                try:
                    await chan.async_recv(timeout=0.0001)
                except TimeoutError:
                    pass
            else:
                results.try_send(await chan.async_recv(SECONDS) > 0)

    try:
        actors = [
            kind(coroutine if issubclass(kind, InCoroutine) else plain, (f"{seed} {i}",))
            for i, kind in enumerate(KINDS * 3)
        ]
        for actor in actors:
            actor.join()
    finally:
        goloop.gomaxprocs(procs)
    results.close()
    outcomes = list(results)
    assert len(outcomes) > 360 and all(outcomes)
    assert timer_thread.pending() == 0


def test_a_fork_leaves_the_timers_to_the_parent():
    ran = []
    timer = after_func(LATER, ran.append, 1)
    ring_what_is_due()
    pid = os.fork()
    if pid == 0:
        try:
            ok = timer_thread.pending() == 0 and after(0.001).recv(SECONDS) > 0
        finally:
            os._exit(0 if ok else 1)
    assert os.waitpid(pid, 0)[1] == 0
    assert timer_thread.pending() == 1
    assert timer.stop()


def test_shutdown_drops_timers_and_ends_the_thread():
    ran = []
    after_func(LATER, ran.append, 1)
    assert any(t.name == "goloop-clock" for t in threading.enumerate())
    shutdown.shutdown()
    assert timer_thread.pending() == 0
    assert not any(t.name == "goloop-clock" for t in threading.enumerate())
    assert after(0).recv(SECONDS)  # and it comes back


def test_an_exception_on_the_timer_thread_is_told_and_the_next_timer_fires(monkeypatch):
    told, fired = [], goloop.Chan(1)
    monkeypatch.setattr(threading, "excepthook", told.append)
    calls = [timer_thread.CallbackTimer(lambda: 1 / 0), timer_thread.CallbackTimer(lambda: fired.try_send("next"))]
    for call in calls:
        call.set(time.monotonic())
    assert fired.recv(SECONDS) == "next"
    assert [type(args.exc_value) for args in told] == [ZeroDivisionError]
