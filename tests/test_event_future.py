"""Event, Future and Local of goloop.sync, from goroutines, coroutines and plain threads; and Chan as their queue."""

import asyncio
import gc
import logging
import math
import random
import sys
import threading
import weakref

import pytest

import goloop
from goloop import Chan, go, monkey, timeout
from goloop.sync import Event, Future, Local
from tests.helpers.actors import InAsyncioCoroutine, InCoroutine, InGoroutine, InThread
from tests.helpers.outcomes import logged
from tests.helpers.waiting import SECONDS, until

KINDS = [InGoroutine, InThread, InCoroutine, InAsyncioCoroutine]


def start(kind, plain, coroutine, *args):
    return kind(coroutine if issubclass(kind, InCoroutine) else plain, args)


def wait_for(event, kind, seconds=None):
    async def coroutine():
        await event.async_wait(seconds)
        return "went on"

    def plain():
        event.wait(seconds)
        return "went on"

    return start(kind, plain, coroutine)


# -------------------------------------------------------------------------- Event
@pytest.mark.parametrize("setter", KINDS)
def test_an_event_lets_all_of_them_go_on(setter):
    event = Event()
    actors = [wait_for(event, kind) for kind in KINDS * 3]
    until(lambda: repr(event) == "<Event not set, 12 waiting>")

    async def set_event():
        event.set()

    start(setter, event.set, set_event).join()
    assert [actor.result() for actor in actors] == ["went on"] * 12
    assert event.is_set() and repr(event) == "<Event set, 0 waiting>"
    assert [wait_for(event, kind).result() for kind in KINDS] == ["went on"] * 4


def test_an_event_that_is_cleared_at_once_lets_those_go_on_that_waited():
    event = Event()
    actors = [wait_for(event, kind) for kind in KINDS]
    until(lambda: " 4 waiting" in repr(event))
    event.set()
    event.clear()
    assert [actor.result() for actor in actors] == ["went on"] * 4
    assert not event.is_set()


@pytest.mark.parametrize("kind", KINDS)
def test_a_wait_for_an_event_times_out(kind):
    with pytest.raises(TimeoutError):
        wait_for(Event(), kind, 0.01).result()
    with pytest.raises(TimeoutError):
        wait_for(Event(), kind, 0).result()


@pytest.mark.parametrize("kind", [InGoroutine, InCoroutine, InAsyncioCoroutine])
def test_a_cancelled_wait_leaves_the_event(kind):
    event = Event()
    actor = wait_for(event, kind)
    until(lambda: " 1 waiting" in repr(event))
    actor.cancel()
    with pytest.raises(asyncio.CancelledError):
        actor.result()
    assert " 0 waiting" in repr(event)


def test_an_event_on_a_loops_thread_says_what_to_use():
    async def main():
        with pytest.raises(RuntimeError, match=r"await Event.async_wait\(\)"):
            Event().wait()

    goloop.run(main())


@pytest.mark.parametrize(("seconds", "error"), [("1", TypeError), (math.nan, ValueError)])
def test_a_bad_timeout_of_an_event(seconds, error):
    with pytest.raises(error):
        Event().wait(seconds)


# ------------------------------------------------------------------------- Future
def wait_for_result(future, kind):
    async def coroutine():
        return await future

    return start(kind, future.result, coroutine)


@pytest.mark.parametrize("setter", KINDS)
def test_a_future_gives_its_result_to_all(setter):
    future = Future()
    actors = [wait_for_result(future, kind) for kind in KINDS * 2]

    async def set_result():
        future.set_result(42)

    start(setter, lambda: future.set_result(42), set_result).join()
    assert [actor.result() for actor in actors] == [42] * 8
    assert [wait_for_result(future, kind).result() for kind in KINDS] == [42] * 4
    assert future.done() and future.exception() is None and repr(future) == "<Future result 42>"


@pytest.mark.parametrize("kind", KINDS)
def test_a_future_raises_its_exception_in_all(kind):
    future = Future()
    actors = [wait_for_result(future, kind) for _ in range(3)]
    future.set_exception(KeyError)
    for actor in (*actors, wait_for_result(future, kind)):
        with pytest.raises(KeyError):
            actor.result()
    assert isinstance(future.exception(), KeyError) and repr(future) == "<Future failed: KeyError()>"


def test_each_raise_of_a_future_begins_with_the_traceback_that_was_set():
    future = Future()
    future.set_exception(KeyError(1))
    depths = set()
    for _ in range(3):
        with pytest.raises(KeyError) as caught:
            future.result()
        depths.add(len(caught.traceback))
    assert len(depths) == 1


def test_a_wait_for_a_future_times_out_and_can_be_cancelled():
    future = Future()
    with pytest.raises(TimeoutError):
        future.result(0.01)

    def timed():
        with pytest.raises(TimeoutError), timeout(0.01):
            future.result()

    go(timed).result(SECONDS)

    async def main():
        task = asyncio.create_task(_await(future))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not future.done()
        asyncio.get_running_loop().call_soon(future.set_result, 1)
        return await asyncio.wait_for(future, SECONDS)

    assert goloop.run(main()) == 1


async def _await(future):
    return await future


def test_a_future_is_done_once():
    future = Future()
    with pytest.raises(asyncio.InvalidStateError, match="is not done"):
        future.exception()
    future.set_result(None)
    for again in (lambda: future.set_result(1), lambda: future.set_exception(KeyError)):
        with pytest.raises(asyncio.InvalidStateError, match="is done: <Future result None>"):
            again()
    assert future.result() is None


@pytest.mark.parametrize("bad", [1, "text", int, StopIteration, StopIteration()])
def test_what_is_no_exception_is_refused(bad):
    future = Future()
    with pytest.raises(TypeError):
        future.set_exception(bad)
    assert not future.done()


def test_an_exception_that_nobody_asks_for_is_logged():
    with logged(logging.ERROR) as lines:
        future = Future()
        future.set_exception(KeyError("lost"))
        del future
        gc.collect()
        for _ in range(2):
            future = Future()
            future.set_exception(KeyError("seen"))
            future.exception()
        with pytest.raises(KeyError):
            future.result()
        del future
        gc.collect()
    assert lines == [("ERROR", "Future exception was never retrieved")]


def test_a_future_on_a_loops_thread_says_what_to_use():
    async def main():
        with pytest.raises(RuntimeError, match="await future"):
            Future().result()

    goloop.run(main())


def test_many_waits_meet_many_results():
    rng = random.Random(5)
    futures = [Future() for _ in range(500)]
    waiting = [go(future.result) for future in futures for _ in range(3)]
    threads = [
        threading.Thread(target=lambda part=part: [f.set_result(id(f)) for f in part])
        for part in (futures[::2], futures[1::2])
    ]
    rng.shuffle(threads)
    for thread in threads:
        thread.start()
    assert [g.result(SECONDS) for g in waiting] == [id(future) for future in futures for _ in range(3)]
    for thread in threads:
        thread.join()


# -------------------------------------------------------------------------- Local
def test_each_actor_has_values_of_its_own():
    local = Local()
    local.name = "main"

    def body(n):
        assert not hasattr(local, "name")
        local.name = n
        goloop.sleep(0.001)
        assert local.name == n
        del local.name
        assert not hasattr(local, "name")

    async def coroutine(n):
        assert not hasattr(local, "name")
        local.name = n
        await asyncio.sleep(0.001)
        assert local.name == n

    async def main():
        await asyncio.gather(*(coroutine(n) for n in range(10)))

    goloop.join_all([go(body, n) for n in range(50)] + [go(coroutine, n) for n in range(10)])
    InThread(body, (1,)).join()
    goloop.run(main())
    with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
        runner.run(main())
    assert local.name == "main" and dir(local) == ["name"]


def test_values_go_with_their_owner():
    class Value:
        pass

    def body():
        local.value = Value()
        return weakref.ref(local.value)

    async def coroutine():
        return body()

    local = Local()
    references = [
        go(body).result(SECONDS),
        InThread(body, ()).join(),
        goloop.run(coroutine()),
        go(coroutine).result(SECONDS),
    ]
    gc.collect()
    until(lambda: [reference() for reference in references] == [None] * 4)


def test_what_is_not_set_is_an_attribute_error():
    local = Local()
    for use in (lambda: local.name, lambda: delattr(local, "name")):
        with pytest.raises(AttributeError, match="'name' is not set in this goroutine, task or thread"):
            use()
    with pytest.raises(TypeError):
        Local(1)
    assert not monkey.is_patched("threading")


# -------------------------------------------------------------------------- queue
def test_a_channel_of_the_greatest_capacity_is_a_queue_that_no_sender_waits_at():
    queue = Chan(sys.maxsize)
    for n in range(100_000):
        queue.send(n)
    queue.close()
    assert list(queue) == list(range(100_000))
