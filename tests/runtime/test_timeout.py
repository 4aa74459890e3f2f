"""goloop.timeout(): it ends its own block, and only that, as asyncio.timeout() does in coroutines."""

import asyncio
import math
import os
import re
import socket
import threading
import time

import pytest

import goloop
from goloop import Chan, context, errgroup, go, net, sync, testing, timeout
from tests.helpers.actors import InThread
from tests.helpers.waiting import SECONDS, until

SOON = 0.01
NEVER = 1000


def run(body, *args):
    """What a body returns in a goroutine."""
    return go(body, *args).result(timeout=SECONDS)


def virtually(body):
    """The same in virtual time, for what would take some."""
    return testing.run(body)


def _read():
    one, other = socket.socketpair()
    with net.Conn(one) as conn, other:
        conn.read()


def _wait_for_group():
    with errgroup.Group() as group:
        group.go(Chan().recv)


def _cond():
    cond = sync.Cond(sync.Mutex())
    with cond.locker:
        cond.wait()


def _locked(lock):
    lock.lock()
    lock.lock()


PARKS = {
    "sleep": lambda: goloop.sleep(NEVER),
    "recv": lambda: Chan().recv(),
    "send": lambda: Chan().send(1),
    "select": lambda: goloop.select(goloop.recv(Chan()), goloop.recv(Chan())),
    "wait": lambda: goloop.wait(asyncio.sleep(NEVER)),
    "mutex": lambda: _locked(sync.Mutex()),
    "rwmutex": lambda: _locked(sync.RWMutex()),
    "read": _read,
    "group": _wait_for_group,
    "context": lambda: context.with_cancel(context.background())[0].done().recv(),
    "own timeout": lambda: Chan().recv(timeout=NEVER),
}


@pytest.mark.parametrize("park", PARKS.values(), ids=PARKS)
def test_it_ends_whatever_parks(park):
    def body():
        with pytest.raises(TimeoutError) as caught, timeout(SOON) as limit:
            park()
        assert isinstance(caught.value.__cause__, asyncio.CancelledError)
        assert limit.expired()
        goloop.sleep(0)  # nothing is left of the cancellation
        return Chan(1).try_send(1)

    assert run(body)


def test_it_ends_a_goroutine_that_yields_for_ever():
    def body():
        with timeout(SOON):
            while True:
                goloop.gosched()

    with pytest.raises(TimeoutError):
        run(body)


def test_a_block_that_ends_in_time_goes_on_undisturbed():
    def body():
        with timeout(NEVER) as limit:
            goloop.sleep(0)
            when = limit.when()
        assert not limit.expired()
        return when - time.monotonic()

    assert NEVER - SECONDS < run(body) < NEVER


def test_none_is_no_end():
    def body():
        with timeout(None) as limit:
            assert limit.when() is None
            goloop.sleep(SOON)
        return limit.expired()

    assert virtually(body) is False


@pytest.mark.parametrize("seconds", [0, -1, -math.inf])
def test_a_time_that_is_over_ends_the_first_park(seconds):
    def body():
        done = Chan(1)
        done.send(1)
        with pytest.raises(TimeoutError), timeout(seconds):  # noqa: PT012
            seen.append(done.recv())  # does not park
            Chan().recv()

    seen = []
    run(body)
    assert seen == [1]


def test_a_block_that_computes_past_its_time_ends_as_usual(one_worker):
    def body():
        with timeout(SOON) as limit:
            until(lambda: time.monotonic() > limit.when())
        assert not limit.expired()
        goloop.sleep(SOON)  # the next park is none of its
        return True

    assert run(body)


def test_a_timeout_that_came_while_the_goroutine_ran_is_gone_with_its_block():
    def body():
        with timeout(0) as limit:
            for _ in range(10_000):  # until its worker's loop had its turn
                try:
                    goloop.gosched()
                except asyncio.CancelledError:
                    break
        assert limit.expired()
        goloop.sleep(SOON)
        return True

    assert virtually(body)


def test_an_exception_of_the_block_goes_through():
    def body():
        with timeout(SOON) as limit:
            try:
                Chan().recv()
            finally:
                assert limit.expired()
                raise KeyError(1)

    with pytest.raises(KeyError):
        run(body)


# ------------------------------------------------------------------------ nesting
def test_the_outer_one_ends_the_outer_block_only():
    def body():
        with pytest.raises(TimeoutError), timeout(SOON) as outer:  # noqa: PT012
            with pytest.raises(asyncio.CancelledError), timeout(NEVER) as inner:
                Chan().recv()
            assert outer.expired() and not inner.expired()
            Chan().try_send(1)
            raise asyncio.CancelledError

    virtually(body)


def test_the_inner_one_ends_the_inner_block_only():
    def body():
        with timeout(NEVER) as outer:
            with pytest.raises(TimeoutError), timeout(SOON) as inner:
                Chan().recv()
            goloop.sleep(SOON)
            return outer.expired(), inner.expired()

    assert virtually(body) == (False, True)


def test_both_at_once_are_the_outer_ones():
    def body():
        with pytest.raises(TimeoutError), timeout(NEVER) as outer:  # noqa: PT012
            with pytest.raises(asyncio.CancelledError), timeout(NEVER) as inner:  # noqa: PT012
                inner.reschedule(0)
                outer.reschedule(0)
                Chan().recv()
            ended.append(1)
            raise asyncio.CancelledError
        goloop.sleep(SOON)
        return outer.expired() and inner.expired()

    ended = []
    assert virtually(body)
    assert ended == [1]


def test_an_inner_one_works_in_the_clean_up_of_an_outer_one():
    def body():
        with pytest.raises(TimeoutError), timeout(SOON):  # noqa: PT012
            try:
                Chan().recv()
            finally:
                with pytest.raises(TimeoutError), timeout(SOON):
                    Chan().recv()
                cleaned.append(1)

    cleaned = []
    virtually(body)
    assert cleaned == [1]


def test_nested_calls_get_one_block_each():
    def wait_in(depth):
        with timeout(NEVER):
            return wait_in(depth - 1) if depth else Chan().recv()

    def body():
        with pytest.raises(TimeoutError), timeout(SOON):
            wait_in(20)
        goloop.sleep(SOON)
        return True

    assert virtually(body)


# ------------------------------------------------------------------- rescheduling
def test_a_later_time_lets_the_block_go_on():
    def body():
        with timeout(SOON) as limit:
            limit.reschedule(time.monotonic() + NEVER)
            goloop.sleep(3 * SOON)
            limit.reschedule(None)
            goloop.sleep(SOON)
            return limit.when()

    assert virtually(body) is None


def test_an_earlier_time_from_another_goroutine_or_thread_ends_it():
    def body():
        with timeout(NEVER) as limit:
            limits.send(limit)
            Chan().recv()

    for actor in (go, lambda f: InThread(f, ())):
        limits = Chan()
        g = go(body)
        actor(lambda limits=limits: limits.recv().reschedule(time.monotonic())).join()
        with pytest.raises(TimeoutError):
            g.result(timeout=SECONDS)


def test_it_is_rescheduled_inside_of_its_block_only():
    limit = timeout(NEVER)
    with pytest.raises(RuntimeError, match="has not been entered"):
        limit.reschedule(None)

    def body():
        with pytest.raises(TimeoutError), limit:  # noqa: PT012
            try:
                limit.reschedule(0)
                Chan().recv()
            finally:
                with pytest.raises(RuntimeError, match="that is expiring"):
                    limit.reschedule(None)
        with pytest.raises(RuntimeError, match="that is expired"):
            limit.reschedule(None)
        with timeout(NEVER) as other:
            pass
        with pytest.raises(RuntimeError, match="that is finished"):
            other.reschedule(None)

    run(body)


# ------------------------------------------------------------ other cancellations
def test_a_cancellation_by_another_one_is_not_a_timeout():
    def body():
        with timeout(NEVER) as limit:
            limits.send(limit)
            Chan().recv()

    limits = Chan()
    g = go(body)
    limit = limits.recv(timeout=SECONDS)
    g.cancel()
    with pytest.raises(asyncio.CancelledError):
        g.result(timeout=SECONDS)
    assert g.cancelled() and not limit.expired()


def test_a_cancellation_beside_the_timeout_goes_through():
    def body():
        with timeout(SOON) as limit:
            try:
                Chan().recv()
            finally:
                assert limit.expired()
                goloop.current().cancel()

    g = go(body)
    with pytest.raises(asyncio.CancelledError):
        g.result(timeout=SECONDS)


def test_a_cancellation_that_was_swallowed_before_does_not_matter():
    def body():
        goloop.current().cancel()
        with pytest.raises(asyncio.CancelledError):
            goloop.sleep(NEVER)
        with pytest.raises(TimeoutError), timeout(SOON):
            Chan().recv()
        return True

    assert run(body)


def test_a_cancellation_that_came_while_it_ran_stays_for_the_next_park():
    def body():
        with timeout(0):
            goloop.current().cancel()
        with pytest.raises(asyncio.CancelledError):
            goloop.sleep(NEVER)
        return True

    assert run(body)


def test_goexit_goes_through():
    def body():
        with timeout(SOON):
            try:
                Chan().recv()
            finally:
                goloop.goexit()

    assert run(body) is None


def test_a_value_that_came_first_is_not_lost():
    def body():
        with timeout(NEVER) as limit:
            chan = Chan()
            go(chan.send, 1)
            limits.send(limit)
            value = chan.recv()
        return value

    limits = Chan(1)
    assert run(body) == 1


# --------------------------------------------------------------------- coroutines
@pytest.mark.parametrize("new_loop", [goloop.new_event_loop, asyncio.SelectorEventLoop])
def test_in_a_coroutine_it_is_asyncios(new_loop):
    async def main():
        loop = asyncio.get_running_loop()
        with pytest.raises(TimeoutError):
            async with timeout(SOON) as limit:
                await asyncio.sleep(NEVER)
        assert limit.expired()
        async with timeout(SOON) as limit:
            assert limit.when() < loop.time() + SECONDS
            limit.reschedule(loop.time() + NEVER)
            await asyncio.sleep(2 * SOON)
        assert not limit.expired()
        with pytest.raises(TimeoutError):  # noqa: PT012
            async with timeout(SOON):
                with pytest.raises(asyncio.CancelledError):
                    async with timeout(NEVER):
                        await asyncio.sleep(NEVER)
                raise asyncio.CancelledError

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(main())


def test_in_a_coroutine_that_is_a_goroutine():
    async def body():
        with pytest.raises(TimeoutError):
            async with timeout(SOON):
                await Chan().async_recv()
        return True

    assert run(body)


def test_around_a_loop_inside_of_a_goroutine():
    async def main():
        async with timeout(SOON):
            await asyncio.sleep(NEVER)

    def body():
        with timeout(NEVER), pytest.raises(TimeoutError):
            goloop.run(main())
        return True

    assert run(body)


# ------------------------------------------------------------------------- misuse
def test_with_is_for_goroutines():
    async def main():
        with pytest.raises(RuntimeError, match="async with timeout"):
            with timeout(1):
                pass

    goloop.run(main())
    run(main)
    with pytest.raises(RuntimeError, match=r"a plain thread does not: run this with go\(\)"):
        with timeout(1):
            pass


def test_one_object_is_for_one_block():
    def body():
        limit = timeout(NEVER)
        with limit:
            with pytest.raises(RuntimeError, match="has been entered before"):
                limit.__enter__()
        with pytest.raises(RuntimeError, match="has been entered before"):
            limit.__enter__()
        with pytest.raises(RuntimeError, match="is not entered"):
            limit.__exit__(None, None, None)

    async def main():
        limit = timeout(NEVER)
        async with limit:
            with pytest.raises(RuntimeError, match="has been entered before"):
                await limit.__aenter__()
            with pytest.raises(RuntimeError, match="has been entered before"):
                limit.__enter__()
        with pytest.raises(RuntimeError, match="is not entered"):
            await timeout(1).__aexit__(None, None, None)

    run(body)
    goloop.run(main())


@pytest.mark.parametrize(("seconds", "error"), [("1", TypeError), (math.nan, ValueError), ([], TypeError)])
def test_a_time_is_a_number(seconds, error):
    with pytest.raises(error):
        timeout(seconds)

    def body():
        with timeout(NEVER) as limit:
            with pytest.raises(error):
                limit.reschedule(seconds)
            goloop.sleep(0)

    run(body)


def test_the_repr_says_its_state():
    limit = timeout(NEVER)
    assert repr(limit) == "<timeout [created]>"

    def body():
        with limit:
            assert re.fullmatch(r"<timeout \[active\] when=[\d.]+>", repr(limit))

    run(body)
    assert repr(limit) == "<timeout [finished]>"


def test_a_child_that_forks_inside_leaves_the_block():
    def body():
        with timeout(NEVER):
            pid = os.fork()
        if pid == 0:
            os._exit(42)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    assert run(body) == 42


def test_thousands_of_goroutines_have_one_each():
    def body(n):
        with timeout(SOON if n % 2 else NEVER):
            if n % 2:
                gate.recv()
            else:
                goloop.sleep(2 * SOON)
        return n

    gate = Chan()
    members = [go(body, n) for n in range(2000)]
    for n, g in enumerate(members):
        if n % 2:
            with pytest.raises(TimeoutError):
                g.result(timeout=SECONDS)
        else:
            assert g.result(timeout=SECONDS) == n
    assert threading.active_count() < 100
