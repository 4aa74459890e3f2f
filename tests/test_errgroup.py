"""goloop.errgroup: the first error, and what happens to the others, from goroutines, coroutines and plain threads."""

import asyncio
import gc
import signal
import threading

import pytest

import goloop
from goloop import context, errgroup, testing
from goloop.errgroup import Group
from tests.helpers.actors import InAsyncioCoroutine, InCoroutine, InGoroutine, InThread
from tests.helpers.waiting import SECONDS, async_until, settle, until

KINDS = [InGoroutine, InThread, InCoroutine, InAsyncioCoroutine]


class Failed(Exception):
    """What members raise."""


def fails(*args):
    raise Failed(*args)


def waits_in(kind, group):
    async def coroutine():
        await group.async_wait()

    return kind(coroutine if issubclass(kind, InCoroutine) else group.wait, ())


@pytest.mark.parametrize("kind", KINDS)
def test_wait(kind):
    group = Group()
    chan = goloop.Chan()

    async def coroutine():
        return await chan.async_recv()

    gs = [group.go(chan.recv), group.go(coroutine)]
    actor = waits_in(kind, group)
    chan.send(1)
    chan.send(2)
    actor.join()
    assert sorted(g.result() for g in gs) == [1, 2]
    assert group.errors() == ()
    group.wait()  # nothing runs


@pytest.mark.parametrize("kind", KINDS)
def test_the_first_error_is_raised_after_all_have_ended(kind):
    group = Group()
    chan = goloop.Chan()
    first = group.go(fails, "first")
    until(first.done)
    slow = group.go(chan.recv)
    actor = waits_in(kind, group)
    with pytest.raises(TimeoutError):
        group.wait(timeout=0.01)
    chan.close()
    with pytest.raises(Failed, match="first"):
        actor.join()
    assert slow.done()
    assert [type(e) for e in group.errors()] == [Failed, goloop.ChannelClosed]
    with pytest.raises(Failed):
        group.wait()


def test_the_first_error_cancels_the_context():
    group, ctx = errgroup.with_context(context.background())
    seen = []

    def member():
        goloop.select(goloop.recv(ctx.done()))
        seen.append(context.cause(ctx))
        raise ctx.err()

    async def async_member():
        await goloop.async_select(goloop.recv(ctx.done()))
        seen.append(context.cause(ctx))

    group.go(member)
    group.go(async_member)
    group.go(fails, 1)
    with pytest.raises(Failed) as caught:
        group.wait()
    assert seen == [caught.value] * 2
    assert [type(e) for e in group.errors()] == [Failed, context.Canceled]


def test_wait_cancels_the_context_in_any_case():
    parent, cancel = context.with_cancel(context.background())
    group, ctx = errgroup.with_context(parent)
    group.go(goloop.sleep, 0)
    group.wait()
    assert isinstance(ctx.err(), context.Canceled) and parent.err() is None
    group, ctx = errgroup.with_context(parent)
    cancel()
    assert isinstance(ctx.err(), context.Canceled)


def test_a_member_that_is_cancelled():
    group, ctx = errgroup.with_context(context.background())
    g = group.go(goloop.sleep, 3600)
    until(lambda: g.state == "sleep")
    g.cancel()
    with pytest.raises(context.Canceled, match="was cancelled") as caught:
        group.wait()
    assert isinstance(caught.value.__cause__, asyncio.CancelledError)
    assert ctx.done().closed


def test_a_waiter_that_is_cancelled_leaves_the_group_alone():
    group, ctx = errgroup.with_context(context.background())
    chan = goloop.Chan()
    group.go(chan.recv)
    for kind in (InGoroutine, InCoroutine):
        actor = waits_in(kind, group)
        until(lambda: "1 waiting" in repr(group._running))
        actor.cancel()
        with pytest.raises(asyncio.CancelledError):
            actor.join()
        assert ctx.err() is None
    chan.send(1)
    group.wait()


def test_errors_that_nobody_waits_for_are_reported():
    reported = []

    async def main():
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda loop, info: reported.append(info["exception"]))
        before = goloop.num_goroutine()
        group = Group()
        group.go(fails, 1)
        group.go(fails, 2)
        await async_until(lambda: goloop.num_goroutine() == before)
        del group
        gc.collect()
        await async_until(lambda: len(reported) == 2)

    goloop.run(main())
    assert sorted(e.args for e in reported) == [(1,), (2,)]


def test_errors_of_a_group_that_was_waited_for_are_not_reported():
    reported = []

    async def main():
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda loop, info: reported.append(info))
        group = Group()
        for i in range(10):
            group.go(fails, i)
        with pytest.raises(Failed):
            await group.async_wait()
        del group
        gc.collect()
        await settle()

    goloop.run(main())
    assert reported == []


@pytest.mark.parametrize("kind", KINDS)
def test_a_limit(kind):
    group = Group()
    group.set_limit(3)
    lock = threading.Lock()
    running, most = 0, 0

    def member():
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        goloop.sleep(0.0005)
        with lock:
            running -= 1

    def plain():
        for _ in range(30):
            group.go(member)
        group.wait()

    async def coroutine():
        for _ in range(30):
            await group.async_go(member)
        await group.async_wait()

    kind(coroutine if issubclass(kind, InCoroutine) else plain, ()).join()
    assert running == 0 and most == 3


def test_try_go_and_misuse():
    group = Group()
    group.set_limit(1)
    chan = goloop.Chan()
    assert group.try_go(chan.recv) is True
    assert group.try_go(chan.recv) is False
    assert repr(group) == "<Group: 1 running of at most 1, 0 failed>"
    with pytest.raises(RuntimeError, match="before its goroutines start"):
        group.set_limit(2)
    chan.send(1)
    group.wait()
    with pytest.raises(TypeError, match="takes a function"):
        group.go(None)
    assert group.try_go(goloop.sleep, 0) is True  # the misuse took no place
    group.wait()
    with pytest.raises(ValueError, match="at least 1"):
        group.set_limit(0)
    group.set_limit(None)

    async def main():
        with pytest.raises(RuntimeError, match="async_wait"):
            group.wait()
        group.go(goloop.sleep, 0)  # no limit, no waiting
        await group.async_wait()
        group.set_limit(1)
        with pytest.raises(RuntimeError, match="would block"):
            group.go(goloop.sleep, 0)

    goloop.run(main())


def test_many_members_on_many_workers():
    procs = goloop.gomaxprocs(4)
    try:
        group, ctx = errgroup.with_context(context.background())
        group.set_limit(20)
        done = []

        def member(i):
            goloop.sleep(0)
            if i % 100 == 99:
                raise Failed(i)
            done.append(i)

        for i in range(1000):
            group.go(member, i)
        with pytest.raises(Failed) as caught:
            group.wait(SECONDS)
        assert len(done) == 990 and len(group.errors()) == 10
        assert group.errors()[0] is caught.value is context.cause(ctx)
    finally:
        goloop.gomaxprocs(procs)


def test_submodules_are_there_on_demand():
    assert goloop.sync.Mutex and goloop.timer.after and goloop.context.background and goloop.errgroup.Group is Group
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = goloop.no_such_name


# ------------------------------------------------------------------------ with
def with_group(kind, group, body):
    """Run body(group) inside of `with group` or `async with group`."""

    def plain():
        with group as entered:
            assert entered is group
            return body(group)

    async def coroutine():
        async with group as entered:
            assert entered is group
            return body(group)

    return kind(coroutine if issubclass(kind, InCoroutine) else plain, ())


@pytest.mark.parametrize("kind", KINDS)
def test_with_waits_at_the_end_and_raises_the_first_error(kind):
    group = Group()
    chan = goloop.Chan()
    actor = with_group(kind, group, lambda group: [group.go(chan.recv), group.go(chan.recv)])
    chan.send(1)
    chan.send(2)
    assert sorted(g.result() for g in actor.join()) == [1, 2]
    failed = with_group(kind, group, lambda group: group.go(fails, "member"))
    with pytest.raises(Failed, match="member"):
        failed.join()


@pytest.mark.parametrize("kind", KINDS)
def test_an_exception_in_the_body_ends_the_goroutines_first(kind):
    group, ctx = errgroup.with_context(context.background())
    trace, error = [], KeyError("body")

    def member(extra):
        try:
            goloop.Chan().recv()
        finally:
            trace.append(context.cause(ctx))
            if extra:
                late.append(group.go(trace.append, "never runs"))

    late = []

    def body(group):
        members = [group.go(member, i == 0) for i in range(3)]
        until(lambda: all(g.state == "chan receive" for g in members))
        raise error

    with pytest.raises(KeyError, match="body"):
        with_group(kind, group, body).join()
    assert trace == [error] * 3
    assert late[0].cancelled() and group.try_go(trace.append, "again")
    with pytest.raises(context.Canceled):
        group.wait()
    assert trace[3:] == ["again"]
    assert len(group.errors()) == 4


def test_with_in_a_coroutine_says_async_with():
    async def main():
        with pytest.raises(RuntimeError, match="with Group would block the event loop: use async with"):
            with Group():
                pass

    goloop.run(main())


def test_a_cancelled_coroutine_ends_its_group():
    async def main():
        group = Group()
        members = []

        async def body():
            async with group:
                members.extend(group.go(goloop.Chan().recv) for _ in range(3))
                await asyncio.sleep(SECONDS)

        task = asyncio.create_task(body())
        while not all(g.state == "chan receive" for g in members) or not members:
            await asyncio.sleep(0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert all(g.cancelled() for g in members)

    goloop.run(main())


def async_body(group, end):
    """A coroutine that starts members which wait for ever, and leaves them to the end of its `async with`."""

    async def body():
        async with group:
            for _ in range(3):
                group.go(goloop.Chan().recv)
        end.append("the group has ended")

    return body()


def all_wait(group):
    return len(group._members) == 3 and all(g.state == "chan receive" for g in group._members)


@pytest.mark.parametrize("loop", [goloop.new_event_loop, asyncio.SelectorEventLoop])
def test_a_timeout_at_the_end_of_async_with_ends_the_goroutines_first(loop):
    group, ctx = errgroup.with_context(context.background())
    end = []

    async def main():
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(async_body(group, end), 0.05)
        assert not group._members and end == []
        assert isinstance(context.cause(ctx), asyncio.CancelledError)

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(main())


@pytest.mark.parametrize("kind", [InGoroutine, InCoroutine])
def test_a_cancellation_at_the_end_of_with_ends_the_goroutines_first(kind):
    group = Group()
    members = []

    def start(group):
        members.extend(group.go(goloop.Chan().recv) for _ in range(3))

    actor = with_group(kind, group, start)
    until(lambda: all_wait(group) and "1 waiting" in repr(group._running))
    actor.cancel()
    with pytest.raises(asyncio.CancelledError):
        actor.join()
    assert [g.cancelled() for g in members] == [True] * 3
    assert group.try_go(int)  # it may be used again
    until(lambda: not group._members)


def test_ctrl_c_at_the_end_of_with_ends_the_goroutines_first():
    group = Group()

    def interrupt():
        until(lambda: all_wait(group) and "1 waiting" in repr(group._running))
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    def body():
        with group:
            members.extend(group.go(goloop.Chan().recv) for _ in range(3))
            thread.start()

    members = []
    thread = threading.Thread(target=interrupt)
    with pytest.raises(KeyboardInterrupt):
        body()
    thread.join()
    assert [g.cancelled() for g in members] == [True] * 3


def test_another_cancellation_while_the_goroutines_end_is_for_them_too():
    group = Group()
    caught = goloop.Chan(10)

    def stubborn():
        try:
            goloop.Chan().recv()
        except asyncio.CancelledError:
            caught.send(1)
            goloop.Chan().recv()

    async def main():
        async def body():
            async with group:
                group.go(stubborn)

        task = asyncio.create_task(body())
        while not group._members or next(iter(group._members)).state != "chan receive":
            await asyncio.sleep(0.001)
        task.cancel()
        await caught.async_recv()
        assert not task.done()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not group._members

    goloop.run(main())


def test_a_cancellation_while_the_body_s_exception_ends_the_goroutines_does_not_leave_them():
    group = Group()
    cleans, go_on = goloop.Chan(1), goloop.Chan(1)

    def member():
        try:
            goloop.Chan().recv()
        except asyncio.CancelledError:
            cleans.send(1)
            try:
                go_on.recv()
            except asyncio.CancelledError:
                go_on.recv()
            raise

    async def main():
        async def body():
            async with group:
                g = group.go(member)
                while g.state != "chan receive":
                    await asyncio.sleep(0.001)
                raise Failed("body")

        task = asyncio.create_task(body())
        await cleans.async_recv()
        task.cancel()
        await settle()
        assert not task.done()
        await go_on.async_send(1)
        with pytest.raises(asyncio.CancelledError) as caught:
            await task
        assert isinstance(caught.value.__context__, Failed)

    goloop.run(main())


def test_the_first_exception_is_the_first_that_was_raised():
    """Also where a goroutine fails before the go() that started it has returned, and another one fails meanwhile."""

    def program():
        group, failed = errgroup.Group(), []

        def fail(n):
            failed.append(n)
            raise KeyError(n)

        for n in range(3):
            group.go(fail, n)
        with pytest.raises(KeyError) as caught:
            group.wait()
        assert caught.value.args == (failed[0],)
        assert [error.args[0] for error in group.errors()] == failed

    testing.explore(program, seeds=300)


def test_a_goroutine_that_ends_within_its_go_is_no_member_any_more():
    def program():
        group = errgroup.Group()
        for _ in range(3):
            group.go(int)
        group.wait()
        assert not group._members

    testing.explore(program, seeds=100)
