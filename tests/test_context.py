"""goloop.context: what is cancelled with what, when, and why, from goroutines, coroutines and plain threads."""

import asyncio
import contextvars
import gc
import random
import time
import weakref

import pytest

import goloop
from goloop import context
from goloop.context import (
    Canceled,
    DeadlineExceeded,
    background,
    cause,
    todo,
    with_cancel,
    with_cancel_cause,
    with_deadline,
    with_timeout,
    with_value,
    without_cancel,
)
from goloop.core.sync import timer_thread
from tests.helpers.actors import InAsyncioCoroutine, InCoroutine, InGoroutine, InThread
from tests.helpers.waiting import SECONDS, until

KINDS = [InGoroutine, InThread, InCoroutine, InAsyncioCoroutine]
LATER = 3600.0


class Why(Exception):
    """A cause."""


def children(ctx):
    return len(ctx._scope.children)


def test_the_roots_are_never_cancelled():
    for root, name in ((background(), "background"), (todo(), "todo")):
        assert root.err() is None and root.deadline() is None and root.value("key") is None and cause(root) is None
        assert goloop.select(goloop.recv(root.done()), default=True)[0] == -1
        assert repr(root) == f"<Context {name}>"
    assert background() is background()


@pytest.mark.parametrize("kind", KINDS)
def test_cancel_wakes_whoever_waits_for_done(kind):
    ctx, cancel = with_cancel(background())
    waits = []

    def plain():
        waits.append(1)
        return goloop.select(goloop.recv(goloop.Chan()), goloop.recv(ctx.done()))

    async def coroutine():
        waits.append(1)
        return await goloop.async_select(goloop.recv(goloop.Chan()), goloop.recv(ctx.done()))

    actor = kind(coroutine if issubclass(kind, InCoroutine) else plain, ())
    until(lambda: waits)
    assert ctx.err() is None
    cancel()
    assert isinstance(ctx.err(), Canceled) and ctx.done().closed
    assert actor.join() == (1, None, False)
    cancel()  # again is harmless


def test_err_can_be_raised_any_number_of_times():
    ctx, cancel = with_cancel(background())
    cancel()
    for _ in range(2):
        with pytest.raises(Canceled, match="context canceled") as caught:
            raise ctx.err()
        assert len(caught.traceback) == 1


def test_children_are_cancelled_with_their_parent_and_not_the_other_way():
    parent, cancel = with_cancel(background())
    child, cancel_child = with_cancel(with_value(parent, "key", 1))
    grandchild, _ = with_timeout(child, LATER)
    sibling, _ = with_cancel(parent)
    cancel_child()
    assert child.err() and grandchild.err() and not parent.err() and not sibling.err()
    assert children(parent) == 1
    assert timer_thread.pending() == 0  # the grandchild's deadline is off, too
    cancel()
    assert isinstance(sibling.err(), Canceled)
    late, _ = with_cancel(parent)
    assert isinstance(late.err(), Canceled) and children(parent) == 0
    assert repr(late) == "<Context background.with_cancel.with_cancel [context canceled]>"


def test_a_parent_that_lives_on_keeps_no_finished_children():
    parent, cancel = with_cancel(background())
    for _ in range(100):
        with with_cancel(parent) as ctx:
            assert children(parent) == 1
        assert ctx.err()
        with_timeout(parent, 0)
        with_deadline(parent, 0)
        context.after_func(parent, print)()
        with_timeout(parent, LATER).cancel()
    assert children(parent) == 0 and timer_thread.pending() == 0
    child = with_cancel(parent)
    gone = weakref.ref(child.context)
    child.cancel()
    del child
    gc.collect()
    assert gone() is None
    cancel()


def test_a_child_whose_deadline_passes_leaves_its_parent():
    parent, cancel = with_cancel(background())
    child, _ = with_timeout(parent, 0.01)
    with pytest.raises(goloop.ChannelClosed):
        child.done().recv(SECONDS)
    until(lambda: children(parent) == 0)
    assert parent.err() is None
    cancel()


@pytest.mark.parametrize("kind", KINDS)
def test_a_deadline_set_from_anywhere(kind):
    start = time.monotonic()

    def plain():
        return with_timeout(background(), 0.01)

    async def coroutine():
        return with_timeout(background(), 0.01)

    # Whoever set it has gone by the time it passes, and so has a coroutine's loop.
    ctx, cancel = kind(coroutine if issubclass(kind, InCoroutine) else plain, ()).join()
    assert ctx.deadline() >= start + 0.01
    assert goloop.select(goloop.recv(ctx.done()), timeout=SECONDS) == (0, None, False)
    assert time.monotonic() >= ctx.deadline()
    assert isinstance(ctx.err(), DeadlineExceeded) and isinstance(ctx.err(), TimeoutError)
    cancel()
    assert isinstance(ctx.err(), DeadlineExceeded)  # the first one counts
    assert str(ctx.err()) == "context deadline exceeded"


def test_deadlines():
    with with_timeout(background(), LATER) as ctx:
        assert timer_thread.pending() == 1
        with with_timeout(ctx, 2 * LATER) as later:
            assert later.deadline() == ctx.deadline() and timer_thread.pending() == 1
        with with_deadline(with_value(ctx, "key", 1), time.monotonic() + 60) as earlier:
            assert earlier.deadline() < ctx.deadline() and timer_thread.pending() == 2
        assert timer_thread.pending() == 1 and ctx.err() is None
    assert timer_thread.pending() == 0
    assert isinstance(with_timeout(background(), 0).context.err(), DeadlineExceeded)
    assert isinstance(with_timeout(background(), -1).context.err(), DeadlineExceeded)
    ctx, cancel = with_cancel(background())
    cancel()
    assert isinstance(with_timeout(ctx, LATER).context.err(), Canceled) and timer_thread.pending() == 0
    forever, cancel = with_timeout(background(), float("inf"))
    assert forever.err() is None
    with cancel:
        pass
    assert isinstance(forever.err(), Canceled)


def test_the_first_cause_is_that_of_all_below():
    why = Why()
    ctx, cancel = with_cancel_cause(background())
    child, _ = with_cancel(ctx)
    assert cause(child) is None
    cancel(why)
    cancel(Why("too late"))
    assert cause(ctx) is why and cause(child) is why
    assert isinstance(child.err(), Canceled) and child.err().__cause__ is why
    ctx, _ = with_timeout(background(), 0, cause=why)
    assert cause(ctx) is why and isinstance(ctx.err(), DeadlineExceeded)
    ctx, _ = with_timeout(background(), 0.001, cause=why)
    goloop.select(goloop.recv(ctx.done()), timeout=SECONDS)
    assert cause(with_value(ctx, "key", 1)) is why
    with with_cancel_cause(background()) as ctx:
        pass
    assert isinstance(cause(ctx), Canceled)
    with pytest.raises(TypeError, match="a cause is an exception"):
        cancel("because")
    with pytest.raises(TypeError, match="a cause is an exception"):
        with_timeout(background(), 1, cause="because")


def test_the_innermost_value_counts_also_when_detached_from_the_parent():
    ctx = with_value(background(), "a", 1)
    inner = with_value(with_value(ctx, "b", 2), "a", 3)
    assert (ctx.value("a"), inner.value("a"), inner.value("b"), inner.value("c")) == (1, 3, 2, None)
    child, cancel = with_cancel(inner)
    assert child.value("a") == 3 and with_value(child, "d", None).value("d") is None
    detached = without_cancel(child)
    cancel()
    assert detached.value("b") == 2 and detached.err() is None and child.err()
    assert not without_cancel(with_timeout(background(), 0).context).done().closed
    assert without_cancel(with_timeout(background(), 0).context).deadline() is None


def test_bad_arguments():
    for make in (with_cancel, with_cancel_cause, without_cancel, cause):
        with pytest.raises(TypeError, match=r"the outermost one is background\(\)"):
            make(None)
    with pytest.raises(TypeError, match="cannot be None"):
        with_value(background(), None, 1)
    with pytest.raises(ValueError, match="NaN"):
        with_timeout(background(), float("nan"))
    with pytest.raises(ValueError, match="NaN"):
        with_deadline(background(), float("nan"))
    with pytest.raises(TypeError):
        with_timeout(background(), None)
    with pytest.raises(TypeError, match="takes a function"):
        context.after_func(background(), None)
    ctx, cancel = with_cancel(background())
    for misuse in (ctx.done().close, lambda: ctx.done().send(None), lambda: ctx.done().try_send(None)):
        with pytest.raises(RuntimeError, match="context's done"):
            misuse()
    cancel()


def test_after_func():
    variable = contextvars.ContextVar("variable", default="")
    variable.set("the caller's")
    chan = goloop.Chan()
    ctx, cancel = with_cancel(background())
    stop = context.after_func(ctx, lambda *args: chan.send((args, variable.get(), goloop.current() is not None)), 1, 2)
    given_up = context.after_func(ctx, chan.send, "never")
    assert children(ctx) == 2
    assert given_up() is True and given_up() is False and children(ctx) == 1
    variable.set("changed")
    cancel()
    assert chan.recv(SECONDS) == ((1, 2), "the caller's", True)
    assert stop() is False
    context.after_func(ctx, chan.send, "at once")
    assert chan.recv(SECONDS) == "at once"
    assert goloop.select(goloop.recv(chan), default=True)[0] == -1
    assert context.after_func(background(), print)() is True


def test_a_deep_tree():
    root, cancel = with_cancel(background())
    ctx = root
    for i in range(20000):
        ctx = with_value(with_cancel(ctx).context, i, i)
    assert ctx.value(0) == 0 and ctx.value("no") is None
    cancel()
    assert isinstance(ctx.err(), Canceled)


@pytest.mark.parametrize("seed", range(4))
def test_no_context_below_a_cancelled_one_is_forgotten_or_kept(seed):
    """Trees that grow while they are cancelled: nobody below a cancelled context is forgotten, or kept."""
    procs = goloop.gomaxprocs(4)
    root, cancel_root = with_cancel(background())
    made = []
    started = []
    expected = []

    def grows(seed, in_coroutine=False):
        rng = random.Random(seed)
        mine = [root]
        for i in range(80):
            parent = rng.choice(mine)
            choice = rng.random()
            if choice < 0.4:
                pair = with_cancel(parent)
            elif choice < 0.7:
                pair = with_timeout(parent, rng.choice([0, 0.0005, LATER]))
            elif choice < 0.8:
                if in_coroutine:
                    continue  # the goroutine would be the loop's, and cancelled when that closes
                expected.append(1)
                context.after_func(parent, started.append, 1)
                continue
            else:
                mine.append(with_value(parent, i, i))
                continue
            mine.append(pair.context)
            made.append((parent, pair.context))
            if rng.random() < 0.3:
                pair.cancel()
                assert pair.context.err()

    async def grows_async(seed):
        grows(seed, True)
        await asyncio.sleep(0)

    try:
        actors = [
            kind(grows_async if issubclass(kind, InCoroutine) else grows, (f"{seed} {i}",))
            for i, kind in enumerate(KINDS * 3)
        ]
        time.sleep(random.Random(seed).random() * 0.01)
        cancel_root()
        for actor in actors:
            actor.join()
    finally:
        goloop.gomaxprocs(procs)
    assert all(ctx.err() and ctx.done().closed and children(ctx) == 0 for _, ctx in made)
    assert children(root) == 0 and timer_thread.pending() == 0
    until(lambda: len(started) == len(expected))
