"""The contexts of plain callbacks are what they are with asyncio, though no Context is made for most of them."""

import asyncio
import contextvars
import gc
import socket
import weakref

import pytest

import goloop

var = contextvars.ContextVar("var", default="unset")


@pytest.fixture(params=[asyncio.new_event_loop, goloop.new_event_loop], ids=["asyncio", "goloop"])
def loop(request):
    loop = request.param()
    yield loop
    loop.close()


def run_ready(loop):
    loop.call_soon(loop.stop)
    loop.run_forever()


def schedule(loop, how, callback):
    if how == "call_soon":
        return loop.call_soon(callback)
    if how == "call_later":
        return loop.call_later(0, callback)
    return loop.call_soon_threadsafe(callback)


WAYS = pytest.mark.parametrize("how", ["call_soon", "call_later", "call_soon_threadsafe"])


def run_until(loop, condition):
    async def wait():
        while not condition():
            await asyncio.sleep(0)

    loop.run_until_complete(wait())


@WAYS
def test_a_callback_sees_the_variables_of_the_moment_it_was_scheduled(loop, how):
    seen = []

    def scene():
        for value in "abc":
            var.set(value)
            schedule(loop, how, lambda: seen.append(var.get()))
        var.set("later")

    contextvars.Context().run(scene)
    run_until(loop, lambda: len(seen) == 3)
    assert seen == ["a", "b", "c"]


@WAYS
def test_what_a_callback_sets_stays_in_its_own_context(loop, how):
    seen = []

    def callback():
        seen.append(var.get())
        var.set("changed")

    def scene():
        var.set("before")
        handles.extend(schedule(loop, how, callback) for _ in range(3))
        assert var.get() == "before"

    handles = []
    contextvars.Context().run(scene)
    run_until(loop, lambda: len(seen) == 3)
    assert seen == ["before"] * 3
    assert [handle._context[var] for handle in handles] == ["changed"] * 3


@WAYS
def test_the_context_that_a_handle_tells_is_the_one_its_callback_runs_in(loop, how):
    told = []

    def callback():
        token = var.set("set by the callback")
        told.append(handle._context)
        tokens.append(token)

    tokens = []
    handle = schedule(loop, how, callback)
    before = handle._context
    assert before is handle._context
    run_until(loop, lambda: told)
    assert told == [before] and told[0] is handle._context
    assert before[var] == "set by the callback"
    before.run(var.reset, tokens[0])  # which only the context that it was made in can do
    assert before.get(var) is None


def test_a_context_that_is_asked_for_while_the_callback_runs_is_not_another_callbacks(loop):
    told = []

    def callback(i):
        told.append(handles[i]._context)
        var.set(i)

    handles = [loop.call_soon(callback, i) for i in range(5)]
    run_ready(loop)
    assert len({id(context) for context in told}) == 5
    assert [context[var] for context in told] == list(range(5))


def test_a_weak_reference_to_the_context_of_a_callback_is_not_of_another_callbacks(loop):
    weak, handles = [], []

    def callback():
        weak.append(weakref.ref(handles[0]._context))
        var.set("mine")

    handles.append(loop.call_soon(callback))
    run_ready(loop)
    loop.call_soon(var.set, "another's")
    run_ready(loop)
    assert weak[0]()[var] == "mine"
    handles.clear()
    gc.collect()
    assert weak[0]() is None


def test_a_token_can_be_reset_in_the_next_run_of_a_watcher(loop):
    tokens, seen = [], []
    ours, peer = socket.socketpair()

    def readable():
        ours.recv(1)
        seen.append(var.get())
        if tokens:
            var.reset(tokens.pop())
        else:
            tokens.append(var.set("from the run before"))

    with ours, peer:
        loop.add_reader(ours, readable)
        for n in range(1, 4):
            peer.send(b"x")
            run_until(loop, lambda n=n: len(seen) == n)
        loop.remove_reader(ours)
    assert seen == ["unset", "from the run before", "unset"]


def test_what_a_watcher_sets_is_there_in_its_next_run(loop):
    seen = []
    ours, peer = socket.socketpair()

    def readable():
        ours.recv(1)
        seen.append(var.get())
        var.set(len(seen))

    with ours, peer:
        loop.add_reader(ours, readable)
        for n in range(1, 4):
            peer.send(b"x")
            run_until(loop, lambda n=n: len(seen) == n)
        loop.remove_reader(ours)
    assert seen == ["unset", 1, 2]


def test_an_exception_of_a_callback_leaves_the_next_ones_variables_alone(loop):
    seen = []
    loop.set_exception_handler(lambda loop, details: seen.append(type(details["exception"])))

    def callback():
        var.set("of the one that fails")
        raise LookupError

    loop.call_soon(callback)
    loop.call_soon(lambda: seen.append(var.get()))
    run_ready(loop)
    assert seen == [LookupError, "unset"]


def test_a_value_is_let_go_of_with_the_last_callback_that_could_see_it(loop):
    class Value:
        pass

    def scene():
        value = Value()
        var.set(value)
        loop.call_soon(lambda: None)
        return weakref.ref(value)

    weak = contextvars.Context().run(scene)
    gc.collect()
    assert weak() is not None
    run_ready(loop)
    loop.run_until_complete(asyncio.sleep(0))
    gc.collect()
    assert weak() is None


def test_tasks_of_a_callback_inherit_what_it_has_set(loop):
    seen = []

    async def look():
        seen.append(var.get())

    def callback():
        var.set("for the task")
        task = loop.create_task(look())
        var.set("for what comes after it")
        task.add_done_callback(lambda task: seen.append(var.get()))

    loop.call_soon(callback)
    run_until(loop, lambda: len(seen) == 2)
    assert seen == ["for the task", "for what comes after it"]


def test_callbacks_may_run_the_loop_within_each_other_in_contexts_of_their_own():
    loop = goloop.new_event_loop()
    seen = []

    def inner():
        seen.append(var.get())
        var.set("inner")

    def outer():
        var.set("outer")
        loop.call_soon(inner)
        loop._run_once()
        seen.append(var.get())

    try:
        loop.call_soon(outer)
        run_ready(loop)
    finally:
        loop.close()
    assert seen == ["outer", "outer"]
