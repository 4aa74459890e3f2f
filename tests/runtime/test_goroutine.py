"""go() and what its handle tells: results, exceptions, waiting from goroutines, coroutines and threads."""

import asyncio
import contextvars
import gc
import threading
import traceback
import weakref

import pytest

import goloop
from goloop import Chan, go


def held():
    """A goroutine that waits for a value, the channel to give it one, and the guarantee that it waits already."""
    chan, waits = Chan(), Chan(1)

    def body():
        waits.send(True)
        return chan.recv()

    g = go(body)
    waits.recv(timeout=10)
    while g.state != "chan receive":
        goloop.gosched()
    return g, chan


# ------------------------------------------------------------------ results
def test_a_result():
    assert go(divmod, 7, 2).result() == (3, 1)


def test_keyword_arguments():
    assert go(dict, a=1, function=2).result() == {"a": 1, "function": 2}


def test_a_coroutine_function_runs_as_a_task():
    async def double(x):
        await asyncio.sleep(0)
        assert asyncio.current_task() is not None
        assert goloop.current() is not None
        return 2 * x

    assert go(double, 21).result(timeout=10) == 42


def test_a_function_that_returns_a_coroutine():
    async def seven():
        return 7

    assert go(lambda: seven()).result(timeout=10) == 7


def test_a_generator_is_a_result():
    def numbers():
        yield 1
        yield 2

    assert list(go(numbers).result(timeout=10)) == [1, 2]


def test_await_from_a_loop():
    async def main():
        return await go(divmod, 7, 2)

    assert goloop.run(main()) == (3, 1)
    assert asyncio.run(main()) == (3, 1)


def test_await_many_from_a_loop():
    async def main():
        gs = [go(pow, i, 2) for i in range(2000)]
        return await asyncio.gather(*gs)

    assert goloop.run(main()) == [i * i for i in range(2000)]


def test_go_from_a_goroutine():
    def tree(depth):
        return 1 if depth == 0 else sum(g.result() for g in [go(tree, depth - 1), go(tree, depth - 1)])

    assert go(tree, 8).result(timeout=30) == 256


def test_go_from_a_coroutine_goroutine():
    async def outer():
        return await go(lambda: goloop.current().home)

    async def main():
        return await go(outer) is asyncio.get_running_loop()

    assert goloop.run(main())


def test_home_reaches_the_tasks_of_a_coroutine_goroutine():
    async def sub():
        return go(int).home

    async def outer():
        return await asyncio.create_task(sub())

    async def main():
        return await go(outer) is asyncio.get_running_loop()

    assert goloop.run(main())
    assert go(outer).result(timeout=10) is None


@pytest.mark.parametrize("wrong", [1, None, "f"])
def test_go_takes_a_function(wrong):
    with pytest.raises(TypeError, match="takes a function"):
        go(wrong)


def test_go_of_a_coroutine_says_how():
    async def f():
        pass

    with pytest.raises(TypeError, match=r"go\(f, x\), not go\(f\(x\)\)"):
        go(f())


def test_handles_are_made_by_go():
    with pytest.raises(TypeError, match=r"made by go\(\)"):
        goloop.Goroutine()
    assert goloop.Goroutine[int].__origin__ is goloop.Goroutine


def test_ids_and_names():
    g, chan = held()
    later = go(int)
    assert later.id > g.id
    g.name = "reader"
    assert "'reader'" in repr(g) and "body" in repr(g) and "[chan receive]" in repr(g)
    chan.send(1)
    g.join(timeout=10)
    assert "[done]" in repr(g)
    later.join(timeout=10)


def test_the_name_of_a_task():
    async def name():
        return asyncio.current_task().get_name()

    def starter():
        g = go(name)
        g.name = "named"
        return g.result()

    assert go(starter).result(timeout=10) == "named"


def test_states():
    g, chan = held()
    assert g.state == "chan receive" and not g.done()
    assert go(lambda: goloop.current().state).result() == "running"
    chan.send(None)
    g.join(timeout=10)
    assert g.state == "done" and g.done()


def test_num_goroutine():
    before = goloop.num_goroutine()
    g, chan = held()
    assert goloop.num_goroutine() == before + 1
    chan.send(None)
    g.join(timeout=10)
    assert goloop.num_goroutine() == before


def test_current():
    assert goloop.current() is None
    g = go(goloop.current)
    assert g.result(timeout=10) is g


# ---------------------------------------------------------------- exceptions
def test_an_exception_goes_to_whoever_asks():
    def bad():
        raise KeyError("x")

    g = go(bad)
    for ask in (g.result, g.join):
        with pytest.raises(KeyError):
            ask(10)
    assert isinstance(g.exception(), KeyError)
    assert not g.cancelled()


def test_the_same_exception_for_several_waiters_keeps_its_traceback():
    def bad():
        raise KeyError("x")

    g = go(bad)
    lengths = []
    for _ in range(5):
        try:
            g.result(timeout=10)
        except KeyError as exc:
            lengths.append(len(traceback.extract_tb(exc.__traceback__)))
    assert len(set(lengths)) == 1, lengths


@pytest.mark.parametrize("exception", [SystemExit(3), KeyboardInterrupt(), GeneratorExit(), StopIteration(5)])
def test_any_exception_is_delivered_and_others_go_on(exception):
    def bad():
        raise exception

    async def bad_async():
        raise exception

    g, chan = held()
    with pytest.raises(type(exception)):
        go(bad).result(timeout=10)
    with pytest.raises(RuntimeError if isinstance(exception, StopIteration) else type(exception)):
        go(bad_async).result(timeout=10)
    chan.send("alive")
    assert g.result(timeout=10) == "alive"
    assert go(int).result(timeout=10) == 0


def test_exception_before_the_end():
    g, chan = held()
    with pytest.raises(asyncio.InvalidStateError, match="not done"):
        g.exception()
    chan.send(1)
    g.join(timeout=10)
    assert g.exception() is None


def test_an_exception_through_await():
    def bad():
        raise ValueError("bad")

    async def main():
        with pytest.raises(ValueError, match="bad"):
            await go(bad)
        async with asyncio.timeout(10):
            results = await asyncio.gather(go(bad), go(int), return_exceptions=True)
        return results

    error, zero = goloop.run(main())
    assert isinstance(error, ValueError) and zero == 0


def test_a_done_goroutine_is_freed_with_its_arguments():
    class Thing:
        pass

    thing = Thing()
    ref = weakref.ref(thing)
    g = go(lambda x: None, thing)
    g.join(timeout=10)
    del thing
    gc.collect()
    assert ref() is None


# ------------------------------------------------------------------ waiting
def test_result_timeout():
    g, chan = held()
    with pytest.raises(TimeoutError):
        g.result(timeout=0.01)
    with pytest.raises(TimeoutError):
        g.join(timeout=0)
    with pytest.raises(TimeoutError):
        g.result(timeout=-1)
    assert not g.done()
    chan.send(3)
    assert g.result(timeout=10) == 3


@pytest.mark.parametrize("timeout", ["1", float("nan")])
def test_bad_timeouts(timeout):
    g, chan = held()
    with pytest.raises((TypeError, ValueError)):
        g.result(timeout=timeout)
    chan.send(None)
    g.join(timeout=10)


def test_result_timeout_in_a_goroutine():
    g, chan = held()

    def asks():
        with pytest.raises(TimeoutError):
            g.result(timeout=0.01)
        chan.send(4)
        return g.result(timeout=10)

    asker = go(asks)
    assert asker.result(timeout=10) == 4


def test_result_on_a_loop_says_await():
    async def main():
        chan = Chan()
        g = go(chan.recv)
        for method in (g.result, g.join):
            with pytest.raises(RuntimeError, match=r"would block the event loop: use await goroutine"):
                method()
        await chan.asend(1)
        return await g

    assert goloop.run(main()) == 1


def test_a_done_result_needs_no_waiting_on_a_loop():
    async def main():
        g = go(int)
        await g
        return g.result()

    assert goloop.run(main()) == 0


def test_waiting_for_oneself():
    async def itself():
        await goloop.current()

    for f in (lambda: goloop.current().result(), itself):
        with pytest.raises(RuntimeError, match="its own end"):
            go(f).result(timeout=10)


def test_many_waiters_of_all_kinds():
    g, chan = held()

    async def waits():
        return await g

    threads = []
    seen = []
    for _ in range(5):
        threads.append(threading.Thread(target=lambda: seen.append(g.result(timeout=10))))
        threads[-1].start()
    gs = [go(g.result) for _ in range(50)] + [go(waits) for _ in range(50)]

    async def main():
        tasks = [asyncio.create_task(waits()) for _ in range(50)]
        await asyncio.sleep(0)
        await chan.asend("v")
        return await asyncio.gather(*tasks, *gs)

    assert goloop.run(main()) == ["v"] * 150
    for thread in threads:
        thread.join()
    assert seen == ["v"] * 5


def test_cancelling_a_waiter_leaves_the_goroutine_alone():
    g, chan = held()

    async def main():
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await g
        await chan.asend(1)
        return await g

    assert goloop.run(main()) == 1


def test_a_cancellation_that_comes_with_the_end_is_not_put_off():
    """asyncio.timeout() that has expired just when the goroutine ends: the task must not be cancelled later."""
    g, chan = held()

    async def main():
        task = asyncio.create_task(g._join())
        await asyncio.sleep(0)
        chan.send_nowait(1)
        while not g.done():
            pass  # on this thread's loop the wake-up waits in the inbox
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return await g

    assert goloop.run(main()) == 1


# ------------------------------------------------------------------ callbacks
def test_done_callback_on_the_loop_that_added_it():
    async def main():
        loop = asyncio.get_running_loop()
        done = loop.create_future()
        g, chan = await go(held)

        def callback(goroutine):
            done.set_result((goroutine, threading.get_ident(), asyncio.get_running_loop()))

        g.add_done_callback(callback)
        await chan.asend(None)
        assert await done == (g, threading.get_ident(), loop)

    goloop.run(main())


def test_done_callback_without_a_loop():
    g, chan = held()
    seen = []
    g.add_done_callback(seen.append)
    g.add_done_callback(lambda g: seen.append(threading.current_thread().name))
    chan.send(1)
    g.join(timeout=10)
    while len(seen) < 2:
        goloop.gosched()
    assert seen[0] is g and seen[1].startswith("goloop-worker")
    g.add_done_callback(seen.append)
    assert seen[2] is g


def test_done_callback_runs_in_the_context_that_added_it():
    var = contextvars.ContextVar("var", default="outside")
    g, chan = held()
    seen = []

    def add():
        var.set("inside")
        g.add_done_callback(lambda g: seen.append(var.get()))

    contextvars.copy_context().run(add)
    chan.send(1)
    g.join(timeout=10)
    while not seen:
        goloop.gosched()
    assert seen == ["inside"]


def test_a_done_callback_cannot_wait():
    g, chan = held()
    seen = []

    def callback(g):
        try:
            Chan().recv()
        except RuntimeError as exc:
            seen.append(str(exc))

    g.add_done_callback(callback)
    chan.send(1)
    g.join(timeout=10)
    while not seen:
        goloop.gosched()
    assert g.done() and "would block the event loop" in seen[0]


def test_a_done_callback_is_callable():
    g = go(int)
    with pytest.raises(TypeError, match="callable"):
        g.add_done_callback(None)
    g.join(timeout=10)


# --------------------------------------------------------------- cancellation
def test_cancel_before_the_start():
    """It is done at once: it does not have to wait for a worker."""

    def main():
        ran = []
        g = go(ran.append, 1)  # this goroutine has the worker
        assert g.state == "not started"
        assert g.cancel()
        assert g.done() and g.cancelled() and not g.cancel()
        with pytest.raises(asyncio.CancelledError):
            g.result()
        goloop.gosched()
        return ran

    assert go(main).result(timeout=10) == []


def test_cancel_a_parked_one():
    cleaned = []
    chan = Chan()

    def body():
        try:
            chan.recv()
        finally:
            cleaned.append(True)

    g = go(body)
    while g.state != "chan receive":
        goloop.gosched()
    assert g.cancel()
    with pytest.raises(asyncio.CancelledError):
        g.result(timeout=10)
    assert cleaned == [True] and g.cancelled()
    with pytest.raises(asyncio.CancelledError):
        g.exception()
    assert not chan.send_nowait(1)


@pytest.mark.parametrize("park", [goloop.gosched, lambda: goloop.sleep(10), lambda: Chan().recv()])
def test_cancel_a_running_one_takes_effect_at_its_next_park(park):
    def body():
        goloop.current().cancel()
        ran.append(1)
        park()
        ran.append(2)

    ran = []
    g = go(body)
    with pytest.raises(asyncio.CancelledError):
        g.result(timeout=10)
    assert ran == [1]


def test_cancel_one_that_never_parks_again():
    def body():
        goloop.current().cancel()
        return "ended"

    assert go(body).result(timeout=10) == "ended"


def test_cancel_while_it_is_made_ready_gives_it_its_value_first():
    def main():
        seen = []

        def body():
            seen.append(chan.recv())
            chan.recv()

        chan = Chan()
        g = go(body)
        goloop.gosched()
        assert chan.send_nowait("v")  # claimed and runnable
        assert g.cancel()
        with pytest.raises(asyncio.CancelledError):
            g.result()
        return seen

    assert go(main).result(timeout=10) == ["v"]


def test_cancel_again_in_the_cleanup():
    def main():
        trace = []

        def body():
            try:
                Chan().recv()
            except asyncio.CancelledError:
                trace.append("first")
                try:
                    Chan().recv()
                except asyncio.CancelledError:
                    trace.append("second")
                    raise

        g = go(body)
        goloop.gosched()
        g.cancel()
        while trace != ["first"]:
            goloop.gosched()
        assert not g.done()
        g.cancel()
        with pytest.raises(asyncio.CancelledError):
            g.result()
        return trace

    assert go(main).result(timeout=10) == ["first", "second"]


def test_a_cancellation_that_is_swallowed():
    def main():
        def body():
            try:
                Chan().recv()
            except asyncio.CancelledError:
                return "no"

        g = go(body)
        goloop.gosched()
        g.cancel()
        return g.result()

    assert go(main).result(timeout=10) == "no"


@pytest.mark.parametrize("when", ["before", "running", "from outside"])
def test_cancel_a_coroutine(when):
    started, cleaned = [], []

    async def body():
        started.append(True)
        try:
            if when == "running":
                goloop.current().cancel()
            await asyncio.sleep(10)
        finally:
            cleaned.append(True)

    def main():
        g = go(body)
        if when == "from outside":
            while not started:
                goloop.gosched()
        if when != "running":
            g.cancel()
        with pytest.raises(asyncio.CancelledError):
            g.result()
        assert g.cancelled()

    go(main).join(timeout=10)
    assert cleaned == ([] if when == "before" else [True])


def test_cancel_from_another_thread_reaches_a_coroutine():
    async def body():
        started.send_nowait(1)
        await asyncio.sleep(100)

    started = Chan(1)
    g = go(body)
    started.recv(timeout=10)
    assert g.cancel()
    with pytest.raises(asyncio.CancelledError):
        g.result(timeout=10)
    assert not g.cancel()


# --------------------------------------------------------------------- goexit
def test_goexit():
    trace = []

    def deep():
        try:
            goloop.goexit()
        finally:
            trace.append("finally")

    def body():
        deep()
        trace.append("not reached")

    g = go(body)
    assert g.result(timeout=10) is None
    assert trace == ["finally"] and g.exception() is None and not g.cancelled()


def test_goexit_in_a_coroutine():
    async def body():
        await asyncio.sleep(0)
        goloop.goexit()

    assert go(body).result(timeout=10) is None


def test_goexit_outside():
    with pytest.raises(RuntimeError, match="this is none"):
        goloop.goexit()

    async def main():
        with pytest.raises(RuntimeError, match="this is none"):
            goloop.goexit()

    goloop.run(main())


# ------------------------------------------------------------ nested greenlets
def test_parking_and_goexit_in_a_nested_greenlet():
    greenlet = pytest.importorskip("greenlet")

    def main():
        chan = Chan()

        def inner():
            assert chan.recv() == 1
            goloop.goexit()

        def body():
            try:
                greenlet.greenlet(inner).switch()
            finally:
                trace.append("finally")

        trace = []
        g = go(body)
        goloop.gosched()
        chan.send(1)
        g.result()
        return trace

    assert go(main).result(timeout=10) == ["finally"]


def test_cancel_in_a_nested_greenlet():
    greenlet = pytest.importorskip("greenlet")

    def main():
        def body():
            greenlet.greenlet(Chan().recv).switch()

        g = go(body)
        goloop.gosched()
        g.cancel()
        with pytest.raises(asyncio.CancelledError):
            g.result()

    go(main).join(timeout=10)


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
        with pytest.raises(RuntimeError, match=r"await Chan\.arecv"):
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


# -------------------------------------------------------------------- creator
def test_creator():
    def here():
        return go(int)

    g = here()
    g.join(timeout=10)
    summary = g.creator()
    names = [frame.name for frame in summary]
    assert names[-2:] == ["test_creator", "here"]
    assert "return go(int)" in summary[-1].line
