"""goloop.singleflight: callers that want the same share one call."""

import asyncio

import pytest

import goloop
from goloop import Chan, go
from goloop.singleflight import Group
from goloop.sync import Event
from tests.helpers.actors import InAsyncioCoroutine, InCoroutine, InGoroutine, InThread
from tests.helpers.waiting import SECONDS, until

KINDS = [InGoroutine, InThread, InCoroutine, InAsyncioCoroutine]


class Work:
    """A function that counts its calls, and waits until it may end."""

    def __init__(self, outcome):
        self.outcome = outcome
        self.calls = 0
        self.may_end = Event()

    def finish(self):
        if isinstance(self.outcome, BaseException):
            raise self.outcome
        return self.outcome

    def __call__(self):
        self.calls += 1
        self.may_end.wait()
        return self.finish()

    async def coroutine(self):
        self.calls += 1
        await self.may_end.async_wait()
        return self.finish()


def start(kind, group, key, work):
    async def coroutine():
        return await group.async_do(key, work.coroutine)

    return kind(
        coroutine if issubclass(kind, InCoroutine) else group.do, () if issubclass(kind, InCoroutine) else (key, work)
    )


@pytest.mark.parametrize("first", KINDS)
def test_those_that_come_meanwhile_get_the_result_of_the_first(first):
    group, work = Group(), Work(["the same"])
    actors = [start(first, group, "key", work)]
    until(lambda: work.calls == 1)
    actors += [start(kind, group, "key", work) for kind in KINDS * 2]
    other = start(InGoroutine, group, "other", Work(2))
    until(lambda: "2 calls under way" in repr(group))
    work.may_end.set()
    assert [actor.result() for actor in actors] == [["the same"]] * 9
    other.cancel()
    with pytest.raises(asyncio.CancelledError):
        other.result()
    assert repr(group) == "<Group: 0 calls under way>"


def test_many_goroutines_make_one_call():
    group, work = Group(), Work(7)
    goroutines = [go(group.do, "key", work) for _ in range(100)]
    until(lambda: sum(g.state not in ("not started", "running", "runnable") for g in goroutines) == 100)
    work.may_end.set()
    assert [g.result(SECONDS) for g in goroutines] == [7] * 100
    assert work.calls == 1
    assert group.do("key", work) == 7 and work.calls == 2  # nothing is kept


@pytest.mark.parametrize("kind", KINDS)
def test_an_exception_is_raised_in_all(kind):
    group, work = Group(), Work(KeyError(1))
    actors = [start(kind, group, "key", work)]
    until(lambda: work.calls == 1)
    actors.append(start(kind, group, "key", work))
    work.may_end.set()
    for actor in actors:
        with pytest.raises(KeyError):
            actor.result()


def test_a_cancelled_call_is_an_error_for_the_others_alone():
    group, work = Group(), Work(1)
    first = go(group.do, "key", work)
    until(lambda: work.calls == 1)
    second = go(group.do, "key", work)
    until(lambda: second.state not in ("not started", "running", "runnable"))
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        first.result(SECONDS)
    with pytest.raises(RuntimeError, match="the call for 'key' was ended by CancelledError"):
        second.result(SECONDS)
    work.may_end.set()
    assert group.do("key", work) == 1


def test_a_cancelled_waiter_leaves_the_call():
    group, work = Group(), Work(1)
    first = go(group.do, "key", work)
    until(lambda: work.calls == 1)
    second = go(group.do, "key", work)
    until(lambda: second.state not in ("not started", "running", "runnable"))
    second.cancel()
    with pytest.raises(asyncio.CancelledError):
        second.result(SECONDS)
    work.may_end.set()
    assert first.result(SECONDS) == 1


def test_forget_lets_the_next_caller_call_anew():
    group, old, new = Group(), Work("old"), Work("new")
    first = go(group.do, "key", old)
    until(lambda: old.calls == 1)
    group.forget("key")
    group.forget("unknown")
    second = go(group.do, "key", new)
    until(lambda: new.calls == 1)
    old.may_end.set()
    assert first.result(SECONDS) == "old"
    third = go(group.do, "key", new)  # the end of the old one does not forget the new one
    until(lambda: third.state not in ("not started", "running", "runnable"))
    new.may_end.set()
    assert second.result(SECONDS) == third.result(SECONDS) == "new" and new.calls == 1


def test_a_call_that_waits_for_itself_is_an_error():
    group = Group()

    def recursive():
        return group.do("key", recursive)

    async def async_recursive():
        return await group.async_do("key", async_recursive)

    for call in (
        lambda: group.do("key", recursive),
        lambda: go(group.do, "key", recursive).result(SECONDS),
        lambda: goloop.run(async_recursive()),
    ):
        with pytest.raises(RuntimeError, match="the call for 'key' waits for itself"):
            call()
    assert group.do("key", lambda: group.do("other", lambda: 3)) == 3


def test_misuse():
    group = Group()
    with pytest.raises(TypeError, match="a function is needed, got 1"):
        group.do("key", 1)
    with pytest.raises(TypeError, match="unhashable"):
        group.do([], int)

    async def main():
        with pytest.raises(TypeError, match="a function is needed, got 1"):
            await group.async_do("key", 1)
        with pytest.raises(RuntimeError, match="async_do"):
            group.do("key", Chan)

    goloop.run(main())
