"""goloop.blocking(): a region in which the loop may be run by another thread."""

import asyncio
import contextvars
import threading
import time

import pytest

import goloop
from tests.helpers.waiting import async_until

LONG = 60


@pytest.fixture(params=[False, True], ids=["plain", "handoff"])
def run(request):
    return lambda main: goloop.run(main, handoff=request.param)


def test_the_loop_goes_on_while_a_task_is_inside(run):
    event = threading.Event()

    async def main():
        asyncio.get_running_loop().call_soon(event.set)
        with goloop.blocking() as region:
            assert event.wait(LONG)
        assert isinstance(region, goloop.blocking)

    run(main())


def test_the_loop_goes_on_while_a_callback_is_inside(run):
    event = threading.Event()
    got = []

    def callback():
        with goloop.blocking():
            got.append(event.wait(LONG))

    async def main():
        loop = asyncio.get_running_loop()
        loop.call_soon(callback)
        loop.call_soon(event.set)
        await async_until(lambda: got)

    run(main())
    assert got == [True]


def test_leaving_waits_until_no_other_callback_runs(run):
    event = threading.Event()
    inside = []
    order = []

    async def blocks():
        with goloop.blocking():
            event.wait(LONG)
            order.append("returned")
        assert inside == []
        order.append("left")

    def other():
        inside.append(1)
        event.set()
        while "returned" not in order:
            pass
        for _ in range(20000):
            pass
        order.append("other")
        inside.clear()

    async def main():
        task = asyncio.create_task(blocks())
        await asyncio.sleep(0)
        asyncio.get_running_loop().call_soon(other)
        await task

    run(main())
    assert order == ["returned", "other", "left"]


def test_task_context_and_loop_are_right_after_it(run):
    number = contextvars.ContextVar("number")
    barrier = threading.Barrier(4)

    async def one(n):
        number.set(n)
        me, loop = asyncio.current_task(), asyncio.get_running_loop()
        for _ in range(3):
            with goloop.blocking():
                barrier.wait(LONG)
            assert asyncio.current_task() is me
            assert asyncio.get_running_loop() is loop
            assert number.get() == n

    async def main():
        await asyncio.gather(*(one(n) for n in range(4)))

    run(main())


def test_it_nests(run):
    event = threading.Event()

    async def main():
        asyncio.get_running_loop().call_soon(event.set)
        with goloop.blocking():
            with goloop.blocking():
                assert event.wait(LONG)
            again = threading.Event()
            asyncio.get_running_loop().call_soon_threadsafe(again.set)
            assert again.wait(LONG)  # still inside
        assert asyncio.current_task() is not None

    run(main())


def test_one_object_may_be_entered_twice(run):
    region = goloop.blocking()

    async def main():
        with region, region:
            time.sleep(0.01)
        with region:
            pass
        assert asyncio.current_task() is not None

    run(main())
    with pytest.raises(RuntimeError, match="not entered"):
        region.__exit__(None, None, None)


def test_exceptions_pass_through(run):
    event = threading.Event()

    async def main():
        asyncio.get_running_loop().call_soon(event.set)
        me = asyncio.current_task()

        def fails():
            with goloop.blocking():
                event.wait(LONG)
                raise LookupError

        with pytest.raises(LookupError):
            fails()
        assert asyncio.current_task() is me

    run(main())


def test_short_regions_do_not_give_the_loop_away(run):
    async def main():
        loop = asyncio.get_running_loop()
        ran = []
        loop.call_soon(ran.append, 1)
        for _ in range(1000):
            with goloop.blocking():
                pass
        return list(ran)

    assert run(main()) == []


def test_an_await_inside_is_reported(run):
    contexts = []

    async def main():
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda loop, context: contexts.append(context["message"]))
        with goloop.blocking():
            await asyncio.sleep(0.01)
        with goloop.blocking():
            time.sleep(0.01)
        assert asyncio.current_task() is not None

    run(main())
    assert len(contexts) == 1 and "do not await inside" in contexts[0]


def test_in_a_thread_without_a_loop():
    with goloop.blocking() as outer, goloop.blocking() as inner:
        assert isinstance(outer, goloop.blocking) and outer is not inner
    with pytest.raises(RuntimeError, match="not entered"):
        outer.__exit__(None, None, None)


def test_in_a_coroutine_goroutine():
    async def main():
        with goloop.blocking():
            time.sleep(0.01)
        return asyncio.current_task() is not None

    assert goloop.go(main).result(LONG) is True


def test_a_loop_inside_of_a_region(run):
    """asyncio.run() in another thread while this one is inside: the two have nothing to do with each other."""

    async def inner():
        with goloop.blocking():
            time.sleep(0.005)
        return 1

    async def main():
        got = []
        thread = threading.Thread(target=lambda: got.append(goloop.run(inner())))
        with goloop.blocking():
            thread.start()
            thread.join()
        return got

    assert run(main()) == [1]


def test_an_iteration_by_hand_after_a_run():
    async def main():
        with goloop.blocking():
            time.sleep(0.01)

    loop = goloop.Loop()
    loop.run_until_complete(main())
    ran = []
    loop.call_soon(ran.append, 1)
    loop._run_once()
    assert ran == [1]
    loop.close()


def test_many_regions_some_of_which_are_taken():
    contexts = []

    async def main():
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda loop, context: contexts.append(context))
        for _ in range(300000):
            with goloop.blocking():
                pass

    goloop.run(main())
    assert contexts == []
