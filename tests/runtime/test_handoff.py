"""Handoff: a blocking call in a callback parks the callback, and the loop goes on.

Most tests block a callback until another one does something: with any other loop they would never end.
"""

import asyncio
import contextvars
import socket
import sys
import threading
import time

import pytest

from tests.helpers.handoffs import on_main, run
from tests.helpers.waiting import SECONDS, async_until, polled


def test_a_blocked_task_does_not_stop_the_others():
    event = threading.Event()

    async def blocks():
        return event.wait(SECONDS)

    async def main():
        task = asyncio.create_task(blocks())
        await asyncio.sleep(0)  # blocks
        event.set()
        assert await task is True
        assert asyncio.get_running_loop()._stats()["handoffs"] == 1

    run(main())


def test_a_blocked_callback_does_not_stop_the_others():
    event = threading.Event()
    got = []

    async def main():
        loop = asyncio.get_running_loop()
        loop.call_soon(lambda: got.append(event.wait(SECONDS)))
        loop.call_soon(event.set)
        await async_until(lambda: got)

    run(main())
    assert got == [True]


@pytest.mark.parametrize("count", [2, 30])
def test_as_many_as_you_like_block_at_once(count):
    barrier = threading.Barrier(count)

    async def blocks():
        return barrier.wait(SECONDS)

    async def main():
        return await asyncio.gather(*(blocks() for _ in range(count)))

    assert sorted(run(main())) == list(range(count))


def test_the_loop_returns_to_its_home_thread():
    event = threading.Event()
    homes = []

    async def blocks():
        event.wait(SECONDS)

    async def main():
        task = asyncio.create_task(blocks())
        await asyncio.sleep(0)
        homes.append(on_main())
        event.set()
        await task
        await async_until(on_main)

    run(main())
    assert homes == [False]


def test_tasks_in_python_block_at_once_too():
    """Since Python 3.14 their current task stands in another place than that of tasks in C."""
    barrier = threading.Barrier(3)

    async def blocks(n):
        for _ in range(3):
            barrier.wait(SECONDS)
            await asyncio.sleep(0)
        return n

    async def main():
        loop = asyncio.get_running_loop()
        loop.set_task_factory(lambda loop, coro, **kwargs: asyncio.tasks._PyTask(coro, loop=loop, **kwargs))
        return await asyncio.gather(*(blocks(n) for n in range(3)))

    assert run(main()) == [0, 1, 2]
    assert not asyncio.tasks._current_tasks


def test_task_context_and_loop_are_right_on_both_sides():
    number = contextvars.ContextVar("number")
    barrier = threading.Barrier(5)
    firstiters = []

    async def generator():
        yield 1

    async def one(n):
        number.set(n)
        me, loop = asyncio.current_task(), asyncio.get_running_loop()
        hooks = sys.get_asyncgen_hooks()
        for _ in range(3):
            barrier.wait(SECONDS)
            assert asyncio.current_task() is me
            assert asyncio.get_running_loop() is loop
            assert number.get() == n
            assert sys.get_asyncgen_hooks() == hooks
            agen = generator()
            await anext(agen)
            firstiters.append(agen in loop._asyncgens)
            await agen.aclose()
            assert asyncio.current_task() is me
        return n

    async def main():
        return await asyncio.gather(*(one(n) for n in range(5)))

    assert run(main()) == list(range(5))
    assert firstiters == [True] * 15


def test_plain_callbacks_have_no_current_task_while_one_is_blocked():
    event = threading.Event()
    seen = []

    async def blocks():
        event.wait(SECONDS)

    def callback():
        seen.append(asyncio.current_task())
        event.set()

    async def main():
        task = asyncio.create_task(blocks())
        asyncio.get_running_loop().call_soon(callback)
        await task

    run(main())
    assert seen == [None]


def test_a_protocol_that_blocks_gets_its_calls_in_order():
    event = threading.Event()
    calls = []

    class Protocol(asyncio.Protocol):
        def connection_made(self, transport):
            calls.append("made")
            event.wait(SECONDS)
            calls.append("was made")

        def data_received(self, data):
            calls.append("data")
            time.sleep(0.02)
            calls.append("got data")

        def eof_received(self):
            calls.append("eof")

        def connection_lost(self, exc):
            calls.append("lost")

    async def main():
        loop = asyncio.get_running_loop()
        ours, theirs = socket.socketpair()
        with theirs:
            task = asyncio.create_task(loop.create_connection(Protocol, sock=ours))
            await async_until(lambda: calls)
            theirs.send(b"x")
            await polled()
            assert calls == ["made"]
            event.set()
            await task
            await async_until(lambda: "data" in calls)
            theirs.close()
            await async_until(lambda: "lost" in calls)

    run(main())
    assert calls == ["made", "was made", "data", "got data", "eof", "lost"]


def test_a_reader_that_blocks_is_not_called_meanwhile():
    event = threading.Event()
    calls = []
    ours, theirs = socket.socketpair()

    def readable():
        calls.append("called")
        event.wait(SECONDS)
        ours.recv(1)

    async def main():
        loop = asyncio.get_running_loop()

        async def parks_of_some_events():
            before = loop._stats()["parks"]
            for _ in range(3):
                await polled()
            return loop._stats()["parks"] - before

        usual = await parks_of_some_events()
        loop.add_reader(ours, readable)
        theirs.send(b"x")
        await async_until(lambda: calls)
        assert await parks_of_some_events() <= 3 * usual  # nor does it keep the loop busy
        assert calls == ["called"]
        event.set()
        theirs.send(b"y")
        await async_until(lambda: len(calls) == 2)
        loop.remove_reader(ours)

    with ours, theirs:
        run(main())


def test_a_callback_in_a_context_that_is_in_use_waits_for_it():
    event = threading.Event()
    order = []

    def blocks():
        order.append("begins")
        event.wait(SECONDS)
        order.append("ends")

    async def main():
        loop = asyncio.get_running_loop()
        context = contextvars.copy_context()
        loop.call_soon(blocks, context=context)
        loop.call_soon(order.append, "same context", context=context)
        loop.call_soon(order.append, "another")
        await async_until(lambda: "another" in order)
        event.set()
        await async_until(lambda: len(order) == 4)

    run(main())
    assert order == ["begins", "another", "ends", "same context"]


def test_an_iteration_is_one_iteration_whoever_runs_it():
    event = threading.Event()
    order = []

    async def main():
        loop = asyncio.get_running_loop()
        loop.call_soon(order.append, 1)
        loop.call_soon(event.wait, SECONDS)  # a C function without a Python frame: this one is not handed off,
        loop.call_soon(lambda: event.wait(SECONDS))  # this one is
        loop.call_soon(lambda: (order.append(2), loop.call_soon(order.append, 4)))
        loop.call_soon(order.append, 3)
        loop.call_soon(event.set)
        await async_until(lambda: 4 in order)

    event.set()
    run(main())
    event.clear()
    order.clear()

    async def second():
        loop = asyncio.get_running_loop()
        loop.call_soon(lambda: event.wait(SECONDS))
        loop.call_soon(lambda: (order.append(1), loop.call_soon(order.append, 3)))
        loop.call_soon(order.append, 2)
        loop.call_soon(event.set)
        await async_until(lambda: 3 in order)

    run(second())
    assert order == [1, 2, 3]


def test_call_soon_threadsafe_while_home_is_stuck():
    event = threading.Event()

    async def main():
        loop = asyncio.get_running_loop()
        threading.Timer(0.02, loop.call_soon_threadsafe, (event.set,)).start()
        assert event.wait(SECONDS)

    run(main())


def test_the_loop_of_another_thread():
    event = threading.Event()
    got = []

    async def main():
        asyncio.get_running_loop().call_soon(event.set)
        got.append(event.wait(SECONDS))

    thread = threading.Thread(target=run, args=(main(),))
    thread.start()
    thread.join()
    assert got == [True]


def test_two_loops_at_once():
    barrier = threading.Barrier(6)

    async def main():
        async def blocks():
            return barrier.wait(SECONDS)

        await asyncio.gather(*(blocks() for _ in range(3)))

    threads = [threading.Thread(target=lambda: run(main())) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not barrier.broken


def test_eager_tasks():
    if sys.version_info < (3, 12):
        pytest.skip("eager tasks are new in 3.12")
    event = threading.Event()

    async def blocks():
        me = asyncio.current_task()
        event.wait(SECONDS)
        assert asyncio.current_task() is me
        return 1

    async def main():
        loop = asyncio.get_running_loop()
        loop.set_task_factory(asyncio.eager_task_factory)
        me = asyncio.current_task()
        loop.call_soon(event.set)
        task = asyncio.create_task(blocks())
        assert asyncio.current_task() is me
        assert task.done()
        return await task

    assert run(main()) == 1
