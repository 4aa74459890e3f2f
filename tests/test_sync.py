"""Cond, WaitGroup and Once of goloop.sync, from goroutines, coroutines and plain threads."""

import asyncio
import contextlib
import gc
import random
import threading
import traceback

import pytest

import goloop
from goloop.sync import Cond, Mutex, Once, RWMutex, WaitGroup, async_once_func, async_once_value, once_func, once_value
from tests.helpers.actors import InAsyncioCoroutine, InCoroutine, InGoroutine, InThread
from tests.helpers.waiting import until

KINDS = [InGoroutine, InThread, InCoroutine, InAsyncioCoroutine]


# ---------------------------------------------------------------------------- Cond
@pytest.fixture(params=["Mutex", "RWMutex", "rlocker"])
def locker(request):
    return {"Mutex": Mutex, "RWMutex": RWMutex, "rlocker": lambda: RWMutex().rlocker()}[request.param]()


def cond_waits(cond, n):
    until(lambda: f" {n} waiting>" in repr(cond))


def waiters_of(cond, kinds, order):
    def plain(i):
        with cond:
            cond.wait()
            assert cond.locker.locked
            order.append(i)

    async def coroutine(i):
        async with cond:
            await cond.async_wait()
            assert cond.locker.locked
            order.append(i)

    actors = []
    for i, kind in enumerate(kinds):
        actors.append(kind(coroutine if issubclass(kind, InCoroutine) else plain, (i,)))
        cond_waits(cond, i + 1)
    return actors


def test_signal_wakes_one_at_a_time_in_order(locker):
    cond = Cond(locker)
    order = []
    actors = waiters_of(cond, KINDS, order)
    for i, actor in enumerate(actors):
        cond.signal()
        actor.join()
        assert order == list(range(i + 1))
    cond.signal()
    assert not locker.locked


def test_broadcast_wakes_all(locker):
    cond = Cond(locker)
    order = []
    actors = waiters_of(cond, KINDS, order)
    cond.broadcast()
    for actor in actors:
        actor.join()
    assert sorted(order) == [0, 1, 2, 3]
    assert not locker.locked


def test_a_cond_has_a_mutex_of_its_own():
    cond = Cond()
    assert isinstance(cond.locker, Mutex)
    with cond:
        assert cond.locker.locked


def test_misuse_of_a_cond(locker):
    cond = Cond(locker)
    with pytest.raises(RuntimeError, match="lock it first"):
        cond.wait()
    with pytest.raises(TypeError, match="a Cond's lock"):
        Cond(threading.Lock())

    async def main():
        with pytest.raises(RuntimeError, match="lock it first"):
            await cond.async_wait()
        async with cond:
            with pytest.raises(RuntimeError, match="would block the event loop"):
                cond.wait()

    goloop.run(main())
    assert not locker.locked
    cond_waits(cond, 0)


@pytest.mark.parametrize("kind", KINDS)
def test_a_cond_after_a_timeout_has_its_lock_again(locker, kind):
    cond = Cond(locker)

    def plain():
        with cond:
            with pytest.raises(TimeoutError):
                cond.wait(timeout=0.01)
            assert locker.locked

    async def coroutine():
        async with cond:
            with pytest.raises(TimeoutError):
                await cond.async_wait(timeout=0.01)
            assert locker.locked

    kind(coroutine if issubclass(kind, InCoroutine) else plain, ()).join()
    cond_waits(cond, 0)
    assert not locker.locked


@pytest.mark.parametrize("kind", [InGoroutine, InCoroutine, InAsyncioCoroutine])
def test_a_cond_waits_for_its_lock_whatever_comes(kind):
    cond = Cond()
    after = []

    def plain():
        with cond:
            try:
                cond.wait()
            finally:
                after.append(cond.locker.locked)

    async def coroutine():
        async with cond:
            try:
                await cond.async_wait()
            finally:
                after.append(cond.locker.locked)

    actor = kind(coroutine if issubclass(kind, InCoroutine) else plain, ())
    cond_waits(cond, 1)
    cond.locker.lock()
    actor.cancel()  # from its wait, it goes to wait for the lock
    until(lambda: "1 waiting" in repr(cond.locker))
    actor.cancel()  # and there it stays
    goloop.sleep(0.01)
    assert after == []
    cond.locker.unlock()
    with pytest.raises(asyncio.CancelledError):
        actor.join()
    assert after == [True]
    assert not cond.locker.locked


def test_a_signal_to_one_cancelled_at_that_moment_goes_to_the_next():
    async def main():
        cond = Cond()

        async def waits():
            async with cond:
                await cond.async_wait()

        first = asyncio.ensure_future(waits())
        second = asyncio.ensure_future(waits())
        await asyncio.sleep(0)
        cond.signal()
        first.cancel()
        await second
        with pytest.raises(asyncio.CancelledError):
            await first
        assert not cond.locker.locked

    goloop.run(main())


@pytest.mark.parametrize("where", ["waiting", "locking again"])
@pytest.mark.parametrize("style", ["async with cond", "async with lock", "finally"])
@pytest.mark.parametrize("kind", ["Mutex", "RWMutex", "rlocker"])
def test_a_coroutine_that_is_thrown_away_does_not_unlock_anothers_lock(kind, style, where):
    lock = Mutex() if kind == "Mutex" else RWMutex()
    locker = lock.rlocker() if kind == "rlocker" else lock
    cond = Cond(locker)

    async def waits():
        if style == "finally":
            await locker.async_lock()
            try:
                await cond.async_wait()
            finally:
                locker.unlock()
        else:
            async with cond if style == "async with cond" else locker:
                await cond.async_wait()

    async def main():
        coroutine = waits()
        coroutine.send(None)
        assert lock.try_lock()  # the writer, who keeps readers out, too
        if where == "locking again":
            cond.signal()
            coroutine.send(None)
        coroutine.close()
        assert lock.locked
        lock.unlock()
        coroutine = waits()  # one that can have it back
        coroutine.send(None)
        coroutine.close()
        assert not locker.locked
        with pytest.raises(RuntimeError, match="unlock"):
            locker.unlock()

    goloop.run(main())


@pytest.mark.parametrize("kind", ["Mutex", "RWMutex", "rlocker"])
def test_a_coroutine_that_is_thrown_away_and_unlocks_nothing_takes_no_unlock_from_others(kind):
    lock = Mutex() if kind == "Mutex" else RWMutex()
    locker = lock.rlocker() if kind == "rlocker" else lock
    cond = Cond(locker)

    async def forgets():
        await locker.async_lock()
        await cond.async_wait()

    async def holds():
        async with locker:
            await asyncio.sleep(0)

    async def main():
        coroutine = forgets()
        coroutine.send(None)
        assert lock.try_lock()
        coroutine.close()
        lock.unlock()
        coroutine = holds()
        coroutine.send(None)
        assert locker.locked
        coroutine.close()
        assert not locker.locked

    goloop.run(main())


@pytest.mark.parametrize("collected", [False, True])
def test_a_coroutine_that_is_thrown_away_in_a_helper_does_not_unlock_anothers_lock(collected):
    lock = Mutex()
    cond = Cond(lock)

    async def helper():
        await cond.async_wait()

    @contextlib.contextmanager
    def unlocking():
        try:
            yield
        finally:
            lock.unlock()

    async def waits():
        await lock.async_lock()
        with unlocking():
            await helper()

    async def main():
        coroutine = waits()
        coroutine.send(None)
        assert lock.try_lock()
        if collected:
            circle = [coroutine]
            circle.append(circle)
            del coroutine, circle
            gc.collect()
        else:
            coroutine.close()
        assert lock.locked
        lock.unlock()
        assert not lock.locked

    goloop.run(main())


def test_wait_for_a_predicate():
    cond = Cond()
    items = []

    def plain():
        with cond:
            return cond.wait_for(lambda: items and items.pop())

    async def coroutine():
        async with cond:
            return await cond.async_wait_for(lambda: items and items.pop())

    actors = [InGoroutine(plain, ()), InThread(plain, ()), InCoroutine(coroutine, ())]
    cond_waits(cond, 3)
    with cond:
        cond.broadcast()  # for nothing
    cond_waits(cond, 3)
    for i in (1, 2, 3):
        with cond:
            items.append(i)
            cond.signal()
    assert sorted(actor.join() for actor in actors) == [1, 2, 3]
    with cond:
        with pytest.raises(TimeoutError):
            cond.wait_for(lambda: False, timeout=0.01)
        assert cond.wait_for(lambda: "there", timeout=0) == "there"
        looks = iter([False, "at the last moment"])
        assert cond.wait_for(lambda: next(looks), timeout=0) == "at the last moment"


@pytest.mark.parametrize("seed", range(3))
def test_a_bounded_queue_of_conds(seed):
    """The textbook's producers and consumers, some cancelled: nothing is lost, and nobody sleeps for ever."""
    rng = random.Random(seed)
    lock = Mutex()
    not_empty, not_full = Cond(lock), Cond(lock)
    items, taken = [], []

    def produces(first):
        for i in range(first, first + 50):
            with lock:
                not_full.wait_for(lambda: len(items) < 3)
                items.append(i)
            not_empty.signal()

    def consumes():
        while True:
            with lock:
                not_empty.wait_for(lambda: items)
                item = items.pop(0)
                if item is not None:
                    taken.append(item)
            not_full.signal()
            if item is None:
                return

    async def consumes_async():
        while True:
            async with lock:
                await not_empty.async_wait_for(lambda: items)
                item = items.pop(0)
                if item is not None:
                    taken.append(item)
            not_full.signal()
            if item is None:
                return

    kinds = [InGoroutine, InThread, InCoroutine]
    consumers = [k(consumes_async if k is InCoroutine else consumes, ()) for k in kinds * 2]
    victims = [k(consumes_async if k is InCoroutine else consumes, ()) for k in (InGoroutine, InCoroutine) * 3]
    producers = [rng.choice([InGoroutine, InThread])(produces, (n * 50,)) for n in range(4)]
    for victim in victims:
        goloop.sleep(rng.random() * 0.003)
        victim.cancel()
    for actor in [*producers, *victims]:
        with contextlib.suppress(asyncio.CancelledError):
            actor.join()
    for _ in consumers:
        with lock:
            not_full.wait_for(lambda: len(items) < 3)
            items.append(None)
        not_empty.signal()
    for actor in consumers:
        actor.join()
    assert sorted(taken) == list(range(200))


# ---------------------------------------------------------------------- WaitGroup
def test_everybody_waits_until_all_are_done():
    group = WaitGroup()
    group.add(2)
    ended = []

    def plain():
        group.wait()
        ended.append(1)

    async def coroutine():
        await group.async_wait()
        ended.append(1)

    actors = [kind(coroutine if issubclass(kind, InCoroutine) else plain, ()) for kind in KINDS]
    until(lambda: "4 waiting" in repr(group))
    group.done()
    assert group.counter == 1 and not ended
    group.done()
    for actor in actors:
        actor.join()
    assert len(ended) == 4
    group.wait()  # at once


def test_go_counts_until_the_end_however_it_comes():
    group = WaitGroup()
    chan = goloop.Chan()

    def fails():
        chan.recv()
        raise ZeroDivisionError

    async def coroutine():
        await chan.async_recv()
        return 7

    gs = [group.go(chan.recv), group.go(fails), group.go(coroutine), group.go(chan.recv)]
    assert group.counter == 4
    with pytest.raises(TimeoutError):
        group.wait(timeout=0.01)
    gs[0].cancel()
    until(lambda: group.counter == 3)
    chan.close()
    group.wait()
    assert isinstance(gs[1].exception(), goloop.ChannelClosed)
    for g in gs[1:]:
        g.exception()


def test_go_of_one_that_never_starts():
    group = WaitGroup()

    def body():
        group.go(goloop.sleep, 0).cancel()  # it has not had a chance to start
        group.wait()

    goloop.go(body).join()
    with pytest.raises(TypeError, match="takes a function"):
        group.go(None)
    assert group.counter == 0


def test_a_negative_counter():
    group = WaitGroup()
    with pytest.raises(RuntimeError, match="negative WaitGroup counter"):
        group.done()
    group.add(2)
    with pytest.raises(RuntimeError, match="negative WaitGroup counter"):
        group.add(-3)
    assert group.counter == 2
    group.add(-2)
    with pytest.raises(TypeError):
        group.add(0.5)


def test_a_new_round_before_the_last_one_is_over():
    async def main():
        group = WaitGroup()
        group.add()
        waiter = asyncio.ensure_future(group.async_wait())
        await asyncio.sleep(0)
        group.done()
        with pytest.raises(RuntimeError, match="reused before"):
            group.add()  # the waiter has been woken, and has not returned
        await waiter
        group.add()
        group.done()

    goloop.run(main())


def test_waiters_that_went_away_do_not_stand_in_the_way_of_a_new_round():
    group = WaitGroup()

    async def main():
        group.add()
        waiter = asyncio.ensure_future(group.async_wait())
        await asyncio.sleep(0)
        group.done()
        waiter.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiter

    goloop.run(main())
    loop = asyncio.SelectorEventLoop()
    group.add()
    coroutine = group.async_wait()

    async def begin():
        coroutine.send(None)

    loop.run_until_complete(begin())
    loop.close()
    group.done()
    group.add()
    coroutine.close()
    group.done()
    group.add()
    group.done()
    assert repr(group) == "<WaitGroup of 0, 0 waiting>"


def test_wait_on_a_loops_thread():
    async def main():
        with pytest.raises(RuntimeError, match=r"use await WaitGroup\.async_wait"):
            WaitGroup().wait()

    goloop.run(main())


@pytest.mark.parametrize("seed", range(3))
def test_rounds_of_a_waitgroup(seed):
    rng = random.Random(seed)
    group = WaitGroup()
    count = []

    def member(pause):
        goloop.sleep(pause)
        count.append(1)

    def rounds():
        for i in range(30):
            for _ in range(rng.randrange(1, 8)):
                group.go(member, rng.choice([0, 0, 0.0005]))
            group.wait()
            assert group.counter == 0, i

    goloop.go(rounds).join()
    assert len(count) >= 30


# ---------------------------------------------------------------------------- Once
def test_once_runs_once_and_the_others_wait():
    once = Once()
    chan = goloop.Chan()
    runs, ends = [], []

    def function():
        runs.append(1)
        chan.recv()

    async def async_function():
        runs.append(1)
        await chan.async_recv()

    def plain():
        once.do(function)
        ends.append(1)

    async def coroutine():
        await once.async_do(async_function)
        ends.append(1)

    actors = [kind(coroutine if issubclass(kind, InCoroutine) else plain, ()) for kind in KINDS * 2]
    until(lambda: "running, 7 waiting" in repr(once))
    assert not ends and not once.done
    with pytest.raises(TimeoutError):
        once.do(function, timeout=0.01)
    chan.send(None)
    for actor in actors:
        actor.join()
    assert len(runs) == 1 and len(ends) == 8 and once.done
    once.do(function)
    assert len(runs) == 1


def test_a_function_that_raises_has_run():
    once = Once()
    with pytest.raises(ZeroDivisionError):
        once.do(lambda: 1 / 0)
    once.do(lambda: 1 / 0)
    assert repr(once) == "<Once done, 0 waiting>"


def test_a_once_that_asks_for_itself():
    once = Once()
    with pytest.raises(RuntimeError, match="wait for itself"):
        once.do(lambda: once.do(lambda: None))

    async def main():
        once = Once()

        async def recurses():
            await once.async_do(recurses)

        with pytest.raises(RuntimeError, match="wait for itself"):
            await once.async_do(recurses)

    goloop.run(main())
    once = Once()
    with pytest.raises(RuntimeError, match="wait for itself"):
        goloop.go(once.do, lambda: once.do(lambda: None)).join()


def test_misuse_of_a_once():
    async def coroutine():
        """Never runs."""

    with pytest.raises(TypeError, match=r"await Once\.async_do"):
        Once().do(coroutine)
    with pytest.raises(TypeError, match="takes a function"):
        Once().do(7)
    with pytest.raises(TypeError, match="async_once_value"):
        once_value(coroutine)
    with pytest.raises(TypeError, match="takes a function"):
        once_value(7)

    async def main():
        once = Once()
        with pytest.raises(RuntimeError, match=r"use await Once\.async_do"):
            once.do(lambda: None)
        await once.async_do(lambda: None)
        once.do(lambda: None)  # is done: nothing to wait for

    goloop.run(main())


def test_once_value_and_once_func():
    calls = []

    @once_value
    def value():
        calls.append(1)
        goloop.sleep(0.001)
        return object()

    gs = [goloop.go(value) for _ in range(20)]
    assert len({g.result() for g in gs}) == 1 and len(calls) == 1
    assert value.__name__ == "value"

    @once_func
    def function():
        calls.append(2)
        return 7

    assert function() is None and function() is None
    assert calls == [1, 2]


def test_once_value_of_a_function_that_raises():
    @once_value
    def value():
        raise ZeroDivisionError("only once")

    errors = []
    for _ in range(3):
        with pytest.raises(ZeroDivisionError) as caught:
            value()
        errors.append(caught.value)
        assert len(list(traceback.walk_tb(caught.value.__traceback__))) < 10  # it does not grow
    assert errors[0] is errors[1] is errors[2]


def test_once_value_of_a_function_that_was_cancelled():
    chan = goloop.Chan()
    value = once_value(chan.recv)
    g = goloop.go(value)
    until(lambda: g.state == "chan receive")
    g.cancel()
    with pytest.raises(asyncio.CancelledError):
        g.join()
    with pytest.raises(RuntimeError, match="CancelledError"):
        value()


def test_aonce_value_and_aonce_func():
    calls = []

    @async_once_value
    async def value():
        calls.append(1)
        await asyncio.sleep(0.001)
        return object()

    @async_once_func
    async def function():
        calls.append(2)
        raise ZeroDivisionError

    async def main():
        values = await asyncio.gather(*[value() for _ in range(10)])
        assert len(set(values)) == 1
        for _ in range(2):
            with pytest.raises(ZeroDivisionError):
                await function()

    goloop.run(main())
    assert calls == [1, 2]
