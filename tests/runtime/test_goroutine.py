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
from goloop.testing import async_wait, run
from tests.helpers.scripts import run_script
from tests.helpers.waiting import async_until, parked


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


def waits(g):
    """Whether a goroutine is parked at a channel, or awaits an event."""
    return g.state == "chan receive" or [frame.name for frame in g.stack()][-1:] == ["wait"]


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
        return await go(lambda: goloop.current().origin_loop)

    async def main():
        return await go(outer) is asyncio.get_running_loop()

    assert goloop.run(main())


def test_home_reaches_the_tasks_of_a_coroutine_goroutine():
    async def sub():
        return go(int).origin_loop

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


def test_the_state_says_what_a_goroutine_does():
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
        await chan.async_send(1)
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
        await chan.async_send("v")
        return await asyncio.gather(*tasks, *gs)

    assert goloop.run(main()) == ["v"] * 150
    for thread in threads:
        thread.join()
    assert seen == ["v"] * 5


LOOPS = pytest.mark.parametrize("new_loop", [goloop.new_event_loop, asyncio.SelectorEventLoop])


def run_on(new_loop, main):
    with asyncio.Runner(loop_factory=new_loop) as runner:
        return runner.run(main())


@LOOPS
def test_cancelling_the_awaiting_task_cancels_the_goroutine_and_waits_for_its_end(new_loop):
    trace = []

    def body():
        try:
            Chan().recv()
        finally:
            goloop.sleep(0.01)
            trace.append("cleaned up")

    async def coroutine():
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.01)
            trace.append("cleaned up")

    async def main():
        for function in (body, coroutine):
            g = go(function)
            await async_until(lambda g=g: waits(g))
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(g, 0.01)
            assert g.cancelled() and trace == ["cleaned up"]
            trace.clear()
            g = go(function)
            task = await parked(g._join())
            await async_until(lambda g=g: waits(g))
            task.cancel("gone")
            with pytest.raises(asyncio.CancelledError, match="gone"):
                await task
            assert g.cancelled() and trace == ["cleaned up"]
            trace.clear()

    run_on(new_loop, main)


@LOOPS
def test_a_goroutine_s_answer_to_the_cancellation_is_the_outcome_as_with_a_task(new_loop):
    def returns():
        try:
            Chan().recv()
        except asyncio.CancelledError:
            return "kept"

    def raises():
        try:
            Chan().recv()
        except asyncio.CancelledError:
            raise KeyError("while ending") from None

    async def main():
        kept, ends = go(returns), go(raises)
        await async_until(lambda: waits(kept) and waits(ends))
        assert await asyncio.wait_for(kept, 0.01) == "kept"
        with pytest.raises(KeyError, match="while ending"):
            await asyncio.wait_for(ends, 0.01)

    run_on(new_loop, main)


def test_a_cancelled_coroutine_that_waits_for_a_goroutine_which_goes_on_says_so(caplog):
    async def main():
        go_on = Chan()

        def goes_on():
            while True:
                try:
                    return go_on.recv()
                except asyncio.CancelledError:
                    pass

        task = asyncio.create_task(go(goes_on)._join())
        await async_wait()
        task.cancel()
        await asyncio.sleep(0.99)
        assert not caplog.records
        await asyncio.sleep(0.02)
        assert len(caplog.records) == 1 and not task.done()
        await asyncio.sleep(100)
        assert len(caplog.records) == 1
        await go_on.async_send("kept")
        return await task

    assert run(main) == "kept"
    assert "a cancelled coroutine waits for a goroutine, which has not ended either" in caplog.text
    assert "in goes_on" in caplog.text


@LOOPS
def test_a_shielded_goroutine_goes_on_when_the_awaiting_task_is_cancelled(new_loop):
    g, chan = held()

    async def main():
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.shield(g), 0.02)
        assert not g.done()
        await chan.async_send(1)
        return await g

    assert run_on(new_loop, main) == 1


@LOOPS
def test_asyncio_s_functions_take_goroutines(new_loop):
    def fails():
        raise KeyError("bad")

    async def main():
        a, b = go(int, "1"), go(int, "2")
        done, pending = await asyncio.wait({a, b}, timeout=20)
        assert done == {a, b} and not pending
        assert await asyncio.gather(go(int, "3"), go(int, "4")) == [3, 4]
        assert {await each for each in asyncio.as_completed([go(int, "5"), go(int, "6")])} == {5, 6}
        assert await asyncio.ensure_future(go(int, "7")) == 7
        assert await asyncio.shield(go(int, "8")) == 8
        assert await asyncio.wait_for(go(int, "9"), 20) == 9
        held_one, chan = await go(held)
        failing = go(fails)
        done, pending = await asyncio.wait({held_one, failing}, return_when=asyncio.FIRST_EXCEPTION)
        assert done == {failing} and pending == {held_one}
        done, pending = await asyncio.wait({held_one}, timeout=0.01)
        assert not done and pending == {held_one} and not held_one.done()
        await chan.async_send(10)
        done, pending = await asyncio.wait({held_one, asyncio.create_task(asyncio.sleep(0))})
        assert len(done) == 2 and held_one.result() == 10

    run_on(new_loop, main)


def test_a_gather_that_is_cancelled_cancels_its_goroutines():
    async def main():
        gs = [go(Chan().recv) for _ in range(3)]
        task = asyncio.gather(*gs)
        while not all(g.state == "chan receive" for g in gs):
            await asyncio.sleep(0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        while not all(g.done() for g in gs):
            await asyncio.sleep(0.001)
        assert all(g.cancelled() for g in gs)

    goloop.run(main())


@pytest.mark.parametrize(
    ("waiting", "turns"),
    [
        (asyncio.gather, 0),
        (asyncio.ensure_future, 0),
        (lambda g: asyncio.wait_for(g, 10), 1),
        (lambda g: asyncio.wait_for(g, 0), 1),
        (lambda g: asyncio.wait_for(asyncio.gather(g), 0), 1),
    ],
    ids=["gather", "ensure_future", "wait_for", "wait_for 0", "wait_for gather"],
)
def test_a_wait_that_is_cancelled_before_it_has_begun_cancels_the_goroutine(waiting, turns):
    async def main():
        g = go(Chan().recv)
        while g.state != "chan receive":
            pass
        waits = asyncio.ensure_future(waiting(g))
        for _ in range(turns):
            await asyncio.sleep(0)
        waits.cancel()
        with pytest.raises((asyncio.CancelledError, TimeoutError)):
            await waits
        while not g.done():
            await asyncio.sleep(0.001)
        assert g.cancelled()

    goloop.run(asyncio.wait_for(main(), 20))


def test_a_shield_that_is_cancelled_at_once_keeps_the_goroutine():
    async def main():
        chan = Chan(1)
        g = go(chan.recv)
        shielded = asyncio.shield(g)
        shielded.cancel()
        with pytest.raises(asyncio.CancelledError):
            await shielded
        chan.try_send("kept")
        return await g

    assert goloop.run(main()) == "kept"


def test_done_callbacks_can_be_removed():
    g, chan = held()
    called = []
    for callback in (called.append, print, called.append):
        g.add_done_callback(callback)
    assert g.remove_done_callback(called.append) == 2
    assert g.remove_done_callback(called.append) == 0
    assert g.remove_done_callback(print) == 1
    chan.send(1)
    assert g.result(timeout=10) == 1
    assert called == [] and g.remove_done_callback(print) == 0


def test_a_stack_says_where_a_goroutine_is():
    async def inner():
        await asyncio.Event().wait()

    async def outer():
        await inner()

    def computes():
        started.try_send(1)
        while not stop:
            pass

    stop, started = [], Chan(1)
    parked, chan = held()
    assert [frame.name for frame in parked.stack()] == ["body"]
    waits = go(outer)
    while [frame.name for frame in waits.stack()] != ["outer", "inner", "wait"]:
        goloop.sleep(0.001)
    busy = go(computes)
    started.recv(timeout=10)
    assert "computes" in [frame.name for frame in busy.stack()]
    stop.append(1)
    busy.join(timeout=10)
    assert list(busy.stack()) == []
    waits.cancel()
    chan.send(1)
    parked.join(timeout=10)


def test_a_cancellation_that_comes_with_the_end_is_not_put_off():
    """asyncio.timeout() that has expired just when the goroutine ends: the task must not be cancelled later."""
    g, chan = held()

    async def main():
        task = asyncio.create_task(g._join())
        await asyncio.sleep(0)
        chan.try_send(1)
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
        await chan.async_send(None)
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


# -------------------------------------------------------------------- creator
def test_creator():
    def here():
        return go(int)

    g = here()
    g.join(timeout=10)
    summary = g.spawn_stack
    names = [frame.name for frame in summary]
    assert names[-2:] == ["test_creator", "here"]
    assert "return go(int)" in summary[-1].line


def test_what_a_signals_handler_raises_while_go_starts_a_thread_is_raised():
    status, out, err = run_script("""
        import goloop
        from goloop.core.sched import scheduler
        from goloop.runtime import workers

        def start_worker():
            workers.start_worker()
            while not scheduler.all_workers():
                pass
            raise KeyboardInterrupt

        scheduler.set_starter(start_worker)
        try:
            goloop.go(int)
        except KeyboardInterrupt:
            print("raised")
    """)
    assert (status, out) == (0, "raised\n"), err
