"""What a goroutine finds around itself: context variables, the current task, the running loop."""

import asyncio
import contextvars

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
        loop = asyncio.get_running_loop()
        for _ in range(20):
            assert asyncio.current_task() is None
            assert goloop.current().state == "running"
            goloop.wait(task())
            assert asyncio.get_running_loop() is loop
        return loop

    loops = {g.result(timeout=20) for g in [go(body) for _ in range(20)]}
    assert len(loops) >= 1


@pytest.mark.skipif(not hasattr(asyncio, "eager_task_factory"), reason="eager tasks came with Python 3.12")
def test_an_eager_coroutine_is_no_goroutine():
    """It starts inside of wait(), on the goroutine's stack, and must not park that in the middle of a task's step."""

    async def tries():
        with pytest.raises(RuntimeError, match=r"await Chan\.async_recv"):
            Chan().recv()
        return goloop.current()

    def body():
        loop = asyncio.get_running_loop()
        loop.set_task_factory(asyncio.eager_task_factory)
        try:
            assert goloop.wait(tries()) is None
            assert goloop.current() is not None
        finally:
            loop.set_task_factory(None)

    go(body).join(timeout=10)
