"""Threads, threading.local and imports, seen from goroutines."""

import asyncio
import concurrent.futures
import logging
import sys
import threading
import time

import pytest

from goloop import go
from tests.helpers.waiting import async_until, until


def test_sleep_parks(overlap):
    assert overlap(lambda i: time.sleep(0.02)) == [None] * 8


def test_sleep_0_lets_others_run():
    order, barrier = [], threading.Barrier(2)

    def body(name):
        barrier.wait()
        for _ in range(3):
            order.append(name)
            time.sleep(0)

    def both():
        for g in [go(body, "a"), go(body, "b")]:
            g.result()

    go(both).result(10)
    assert order != ["a"] * 3 + ["b"] * 3 and sorted(order) == ["a"] * 3 + ["b"] * 3


def test_a_join_lets_others_run_until_the_thread_ends_or_its_time_is_over(overlap):
    inside, all_inside = [], threading.Event()

    def body(i):
        thread = threading.Thread(target=all_inside.wait)
        thread.start()
        thread.join(0.001)
        early = thread.is_alive()
        inside.append(i)
        if len(inside) == 8:  # no thread ends before the last goroutine is here, however late that is started
            all_inside.set()
        thread.join()
        return early, thread.is_alive()

    assert overlap(body) == [(True, False)] * 8


def test_join_is_refused_as_ever():
    def refused():
        with pytest.raises(RuntimeError, match="before it is started"):
            threading.Thread().join()
        with pytest.raises(RuntimeError, match="cannot join current thread"):
            threading.current_thread().join()
        done = threading.Thread(target=int)
        done.start()
        done.join()
        return done.join(0)

    assert go(refused).result(10) is None


def test_a_cancelled_join():
    end = threading.Event()
    thread = threading.Thread(target=end.wait)
    thread.start()
    g = go(thread.join)
    until(lambda: g.state == "chan receive")
    g.cancel()
    with pytest.raises(asyncio.CancelledError):
        g.result(10)
    end.set()
    go(thread.join).result(10)


def test_values_of_a_threading_local_are_the_goroutines(overlap):
    class Local(threading.local):
        made = 0

        def __init__(self, start):
            Local.made += 1
            self.value = start

    local = Local(100)
    local.value = "the main thread's"

    def body(i):
        assert local.value == 100
        local.value = i
        time.sleep(0.01)
        return local.value

    assert overlap(body) == list(range(8))
    assert local.value == "the main thread's"
    assert Local.made == 9


def test_values_of_a_threading_local_end_with_the_goroutine():
    class Canary:
        def __del__(self):
            gone.append(True)

    local, gone = threading.local(), []
    g = go(lambda: setattr(local, "canary", Canary()))
    g.result(10)
    until(lambda: gone)
    assert gone == [True]


def test_the_running_loop_is_known():
    async def coroutine():
        return asyncio.get_running_loop()

    def body():
        before = asyncio._get_running_loop()
        time.sleep(0.001)
        return before, asyncio._get_running_loop()

    assert go(body).result(10) == (None, None)
    assert go(coroutine).result(10) is not None


def test_goroutines_run_loops_of_their_own_that_take_turns():
    """asyncio's selectors park in goroutines, in the middle of a run."""

    def body(n):
        async def main():
            me, loop = asyncio.current_task(), asyncio.get_running_loop()
            seen = []
            for _ in range(5):
                await asyncio.sleep(0.002)
                seen.append(await asyncio.to_thread(lambda: n))
                assert asyncio.current_task() is me and asyncio.get_running_loop() is loop
                time.sleep(0.001)
                assert asyncio.current_task() is me and asyncio.get_running_loop() is loop
            return seen

        before = asyncio._get_running_loop()
        return before, asyncio.run(main()), asyncio._get_running_loop()

    for _ in range(3):
        assert [go(body, n).result(30) for n in range(3)] == [(None, [n] * 5, None) for n in range(3)]
        gs = [go(body, n) for n in range(20)]
        assert [g.result(30) for g in gs] == [(None, [n] * 5, None) for n in range(20)]


def test_identity_of_threads():
    """A goroutine never changes its thread, and says which one that is."""

    def body():
        before = threading.get_ident(), threading.current_thread(), threading.get_native_id()
        time.sleep(0.001)
        assert before == (threading.get_ident(), threading.current_thread(), threading.get_native_id())
        return before[1]

    assert go(body).result(10).name.startswith("goloop-worker-")


def test_executors(overlap):
    with concurrent.futures.ThreadPoolExecutor(8) as executor:
        assert overlap(lambda i: executor.submit(lambda: time.sleep(0.02) or i).result()) == list(range(8))

    def own():
        with concurrent.futures.ThreadPoolExecutor(2) as executor:
            return list(executor.map(str, range(5)))

    assert go(own).result(10) == list("01234")


def test_logging_from_many_goroutines(overlap):
    class Slow(logging.Handler):
        def emit(self, record):
            inside.append(record.args)
            time.sleep(0.001)
            assert inside == [record.args]
            inside.clear()
            seen.append(record.args)

    inside, seen = [], []
    logger = logging.Logger("slow")
    logger.addHandler(Slow())
    for g in [go(logger.warning, "%d %s", i, "x") for i in range(20)]:
        g.result(10)
    assert sorted(seen) == [(i, "x") for i in range(20)]


def test_nobody_sees_half_a_module(tmp_path, monkeypatch, overlap):
    (tmp_path / "slow_module.py").write_text("import time\ntime.sleep(0.05)\nwhole = True\n")
    (tmp_path / "slow_one.py").write_text("import time\ntime.sleep(0.02)\nimport slow_two\nwhole = True\n")
    (tmp_path / "slow_two.py").write_text("import time\ntime.sleep(0.02)\nwhole = True\n")
    monkeypatch.syspath_prepend(tmp_path)

    def body(i):
        import slow_module

        if i % 2:
            import slow_one as mine
        else:
            import slow_two as mine
        return slow_module.whole and mine.whole

    assert overlap(body) == [True] * 8
    for name in ("slow_module", "slow_one", "slow_two"):
        del sys.modules[name]


def test_coroutines_and_their_loops_are_left_alone():
    """A coroutine that calls time.sleep() blocks its loop, as ever."""

    async def main():
        ticks = []

        async def tick():
            while True:
                ticks.append(time.monotonic())
                await asyncio.sleep(0)

        ticking = asyncio.create_task(tick())
        await async_until(lambda: ticks)
        before = len(ticks)
        time.sleep(0.02)
        threading.Lock().acquire()
        after = len(ticks)
        ticking.cancel()
        return before == after

    assert asyncio.run(main())
    assert go(main).result(10)
