"""What a goroutine finds around itself: context variables, the current task, the running loop."""

import asyncio
import contextvars
import sys
import time

import pytest

import goloop
from goloop import Chan, go


# -------------------------------------------------------------------- context
def test_a_goroutine_runs_in_a_copy_of_the_callers_context():
    var = contextvars.ContextVar("var", default=0)
    var.set(1)

    def body():
        seen = var.get()
        var.set(2)
        return seen

    assert go(body).result(timeout=10) == 1
    assert var.get() == 1
    assert go(asyncio.sleep, 0, var).result(timeout=10).get() == 1


def test_contexts_do_not_mix_over_switches():
    """Several goroutines and coroutines on one worker, each with its own value, switching at every step."""
    var = contextvars.ContextVar("var")

    def body(n):
        var.set(n)
        for i in range(50):
            assert var.get() == (n if i == 0 else (n, i - 1))
            var.set((n, i))
            contextvars.copy_context().run(inner, n, i)
            goloop.gosched()
            if i % 7 == 0:
                goloop.sleep(0.0001)

    def inner(n, i):
        assert var.get() == (n, i)
        var.set("inner")
        goloop.gosched()
        assert var.get() == "inner"

    async def abody(n):
        var.set(n)
        for _ in range(50):
            assert var.get() == n
            await asyncio.sleep(0)

    async def main():
        await asyncio.gather(*[go(body if n % 2 else abody, n) for n in range(100)])

    goloop.run(main())


def test_current_task_and_running_loop_after_switches():
    async def task():
        for _ in range(20):
            me = asyncio.current_task()
            await asyncio.sleep(0)
            assert asyncio.current_task() is me and goloop.current() is None

    def body():
        for _ in range(20):
            assert asyncio._get_running_loop() is None
            assert goloop.current().state == "running"
            goloop.wait(task())
        with pytest.raises(RuntimeError, match="no running event loop"):
            asyncio.get_running_loop()
        return asyncio._get_running_loop()

    assert {g.result(timeout=20) for g in [go(body) for _ in range(20)]} == {None}


@pytest.mark.skipif(not hasattr(asyncio, "eager_task_factory"), reason="eager tasks came with Python 3.12")
def test_an_eager_coroutine_is_no_goroutine():
    """It starts inside of wait(), on the goroutine's stack, and must not park that in the middle of a task's step."""

    async def tries():
        with pytest.raises(RuntimeError, match=r"await Chan\.async_recv"):
            Chan().recv()
        return goloop.current()

    async def here():
        return asyncio.get_running_loop()

    def body():
        loop = goloop.wait(here())
        loop.set_task_factory(asyncio.eager_task_factory)
        try:
            assert goloop.wait(tries()) is None
            assert goloop.wait(here()) is loop
            assert goloop.current() is not None and asyncio._get_running_loop() is None
            assert go(here).result() is loop
        finally:
            loop.set_task_factory(None)

    go(body).join(timeout=10)


# ------------------------------------------------------------ loops in goroutines
RUNS = pytest.mark.parametrize("run", [asyncio.run, goloop.run], ids=["asyncio.run", "goloop.run"])


@RUNS
def test_a_goroutine_runs_a_loop_as_a_plain_thread_does(run):
    async def numbers():
        for i in range(3):
            await asyncio.sleep(0)
            yield i

    async def main():
        before = asyncio.current_task(), asyncio.get_running_loop()
        got = [i async for i in numbers()], await go(lambda: 7), await asyncio.to_thread(lambda: 8)
        assert (asyncio.current_task(), asyncio.get_running_loop()) == before
        return got

    def body():
        return run(main()), asyncio._get_running_loop(), goloop.wait(main())

    assert go(body).result(timeout=20) == (([0, 1, 2], 7, 8), None, ([0, 1, 2], 7, 8))


@RUNS
def test_loops_of_goroutines_that_park_in_callbacks_do_not_mix(one_worker, run):
    """While the goroutine is parked its loop is not the thread's running loop, and it is again when that goes on."""

    async def main(n):
        seen = []
        me, loop = asyncio.current_task(), asyncio.get_running_loop()
        for _ in range(5):
            seen.append(go(asyncio._get_running_loop).result())
            goloop.sleep(0.001)
            seen.append(goloop.wait(asyncio.sleep(0.001)))
            await asyncio.sleep(0)
            seen.append((asyncio.current_task() is me, asyncio.get_running_loop() is loop))
        return n, set(seen)

    gs = [go(run, main(n)) for n in range(10)]
    assert [g.result(timeout=30) for g in gs] == [(n, {None, (True, True)}) for n in range(10)]

    async def here():
        return asyncio.get_running_loop(), sys.get_asyncgen_hooks().firstiter

    loop, hook = go(here).result(timeout=10)
    assert hook == loop._asyncgen_firstiter_hook


def test_hooks_that_a_goroutine_has_set_are_its_own(one_worker):
    def hook(generator):
        pass

    def body():
        before = sys.get_asyncgen_hooks()
        sys.set_asyncgen_hooks(firstiter=hook)
        goloop.gosched()
        other = go(sys.get_asyncgen_hooks).result()
        return sys.get_asyncgen_hooks().firstiter is hook, other == before

    assert go(body).result(timeout=10) == (True, True)
    assert go(sys.get_asyncgen_hooks).result(timeout=10).firstiter is not hook


def test_a_loop_in_a_goroutine_is_never_handed_off(one_worker):
    """A goroutine does not leave its thread."""

    async def main():
        time.sleep(0.1)
        return asyncio.get_running_loop()._stats()["handoffs"]

    assert go(goloop.run, main(), handoff=True).result(timeout=20) == 0


def test_wait_calls_a_function_with_the_loop_running():
    async def value(n):
        await asyncio.sleep(0)
        return n

    async def here():
        return asyncio.get_running_loop()

    def gathers():
        return asyncio.gather(value(1), value(2)), asyncio.get_running_loop(), goloop.current()

    def body():
        kept = []
        got = goloop.wait(lambda: kept.extend(gathers()) or kept[0])
        return got, kept[1] is goloop.wait(here), kept[2]

    assert go(body).result(timeout=10) == ([1, 2], True, None)


def test_wait_of_a_function_that_returns_no_awaitable_says_so():
    def body():
        with pytest.raises(TypeError, match="awaitable"):
            goloop.wait(lambda: 1)
        return asyncio._get_running_loop(), goloop.current() is not None

    assert go(body).result(timeout=10) == (None, True)


def test_a_function_that_wait_calls_must_not_wait_itself():
    def body():
        with pytest.raises(RuntimeError, match="would block the event loop"):
            goloop.wait(lambda: goloop.sleep(1))
        with pytest.raises(RuntimeError, match="would block the event loop"):
            goloop.wait(Chan().recv)

    go(body).join(timeout=10)


@RUNS
def test_wait_takes_a_future_of_another_loop(run):
    async def main():
        loop = asyncio.get_running_loop()
        result, error, given_up = loop.create_future(), loop.create_future(), loop.create_future()
        gs = [go(goloop.wait, future) for future in (result, error)]
        late = go(goloop.wait, given_up, 0.01)
        loop.call_later(0.01, result.set_result, "value")
        loop.call_later(0.01, error.set_exception, KeyError("error"))
        got = await asyncio.gather(*gs, late, return_exceptions=True)
        assert await go(goloop.wait, result) == "value"
        return [*map(repr, got[:2]), type(got[2]), given_up.cancelled()]

    assert run(main()) == ["'value'", "KeyError('error')", TimeoutError, True]


def test_a_goroutine_wakes_a_coroutine_of_its_own_worker(one_worker):
    chan = Chan()

    async def receives():
        return await chan.async_recv(), asyncio.current_task() is not None

    async def outer():
        waiting = asyncio.ensure_future(receives())
        await asyncio.sleep(0)
        await go(chan.send, 5)
        return await waiting

    assert go(outer).result(timeout=10) == (5, True)
