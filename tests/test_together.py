"""map(), map_unordered(), first(), join_all(), and the same for coroutines."""

import asyncio
import itertools
import threading

import pytest

import goloop
from goloop import Chan, context, go, timeout
from tests.helpers.waiting import SECONDS, until


@pytest.fixture(params=["goroutine", "thread", "coroutine", "asyncio"])
def call(request):
    """call("map", …): the function, or its async form, from each kind of caller."""

    def call(name, *args, **kwargs):
        def plainly():
            result = getattr(goloop, name)(*args, **kwargs)
            return list(result) if name == "map_unordered" else result

        if request.param == "goroutine":
            return go(plainly).result(SECONDS)
        if request.param == "thread":
            return plainly()

        async def main():
            result = getattr(goloop, f"async_{name}")(*args, **kwargs)
            if name == "map_unordered":
                return [value async for value in result]
            return await result

        loop = goloop.new_event_loop if request.param == "coroutine" else asyncio.SelectorEventLoop
        with asyncio.Runner(loop_factory=loop) as runner:
            return runner.run(main())

    return call


def square(n):
    goloop.sleep(0.001)
    return n * n


async def async_square(n):
    await asyncio.sleep(0.001)
    return n * n


class Gauge:
    """How many calls were inside at once."""

    def __init__(self):
        self.inside = self.most = 0
        self.lock = threading.Lock()

    def __call__(self, n):
        with self.lock:
            self.inside += 1
            self.most = max(self.most, self.inside)
        goloop.sleep(0.001)
        with self.lock:
            self.inside -= 1
        return n


# ----------------------------------------------------------------------------- map
@pytest.mark.parametrize("function", [square, async_square, lambda n: async_square(n)])
@pytest.mark.parametrize("limit", [None, 1, 7])
def test_map_returns_the_results_in_the_order_of_the_items(call, function, limit):
    assert call("map", function, range(50), limit=limit) == [n * n for n in range(50)]
    assert call("map", function, [], limit=limit) == []


@pytest.mark.parametrize("name", ["map", "map_unordered"])
def test_the_limit_is_how_many_run_at_a_time(call, name):
    gauge = Gauge()
    assert sorted(call(name, gauge, range(60), limit=5)) == list(range(60))
    assert 1 < gauge.most <= 6  # one whose result was taken may not have ended


def test_without_a_limit_all_run_at_once(call):
    gate = [Chan() for _ in range(20)]

    def meet(n):
        if n:
            gate[n].recv()
        else:
            for chan in gate[1:]:
                chan.send(1)
        return n

    assert call("map", meet, range(20)) == list(range(20))


@pytest.mark.parametrize("name", ["map", "map_unordered"])
def test_the_first_exception_cancels_the_others_and_is_raised_when_they_have_ended(call, name):
    def work(n):
        if n == 5:
            until(lambda: len(started) == 5)
            raise KeyError(n)
        started.append(n)
        try:
            Chan().recv()
        finally:
            goloop.sleep(0.001)
            ended.append(n)

    started, ended = [], []
    with pytest.raises(KeyError):
        call(name, work, range(6), limit=6)
    assert sorted(ended) == [0, 1, 2, 3, 4]


def test_no_call_starts_after_an_exception(call):
    def work(n):
        started.append(n)
        raise KeyError(n)

    started = []
    with pytest.raises(KeyError):
        call("map", work, itertools.count(), limit=2)
    assert len(started) <= 3


def test_an_exception_of_the_items_goes_through(call):
    def items():
        yield 1
        raise LookupError("items")

    with pytest.raises(LookupError, match="items"):
        call("map", square, items())


@pytest.mark.parametrize("end", [goloop.goexit, lambda: goloop.current().cancel() and goloop.sleep(1)])
def test_a_call_that_is_ended_from_elsewhere_is_an_error(call, end):
    with pytest.raises(RuntimeError, match=r"the call was ended by (GoExit|CancelledError)"):
        call("map", lambda n: end(), [1])


def test_a_cancelled_map_cancels_its_calls():
    def work(n):
        try:
            started.send(n)
            Chan().recv()
        finally:
            ended.append(n)

    started, ended = Chan(), []
    g = go(goloop.map, work, range(5))
    for _ in range(5):
        started.recv()
    g.cancel()
    with pytest.raises(asyncio.CancelledError):
        g.result(SECONDS)
    assert sorted(ended) == list(range(5))

    def timed():
        with pytest.raises(TimeoutError), timeout(0.01):
            goloop.map(lambda n: Chan().recv(), range(5))

    go(timed).result(SECONDS)

    async def main():
        with pytest.raises(TimeoutError):
            async with timeout(0.01):
                await goloop.async_map(lambda n: Chan().recv(), range(5))

    goloop.run(main())


# ----------------------------------------------------------------------- unordered
def test_map_unordered_gives_what_comes_first(call):
    late = Chan()

    def work(n):
        return late.recv() if n == 0 else n

    def body():
        results = goloop.map_unordered(work, range(4))
        seen = [next(results) for _ in range(3)]
        late.send(0)
        return seen, list(results)

    seen, rest = go(body).result(SECONDS)
    assert sorted(seen) == [1, 2, 3] and rest == [0]
    assert sorted(call("map_unordered", square, range(30), limit=3)) == [n * n for n in range(30)]


def test_an_endless_iterable_is_read_as_far_as_asked():
    counter = itertools.count()

    def body():
        results = goloop.map_unordered(square, counter, limit=4)
        return [value for value, _ in zip(results, range(20), strict=False)]

    assert len(go(body).result(SECONDS)) == 20
    assert next(counter) <= 30


def test_an_iteration_that_is_left_early_cancels_the_calls():
    def work(n):
        if n == 3:
            until(lambda: len(started) == 3)
            return
        started.append(n)
        try:
            Chan().recv()
        finally:
            ended.append(n)

    def body():
        for _ in goloop.map_unordered(work, range(4)):
            break

    async def main():
        results = goloop.async_map_unordered(work, range(4))
        async for _ in results:
            break
        await results.aclose()

    for leave in (lambda: go(body).result(SECONDS), lambda: goloop.run(main())):
        started, ended = [], []
        leave()
        until(lambda ended=ended: sorted(ended) == [0, 1, 2])


def test_results_that_are_not_taken_hold_up_their_calls():
    started = []
    results = goloop.map_unordered(started.append, itertools.count(), limit=3)
    next(results)
    go(goloop.gosched).join()
    assert len(started) <= 4
    results.close()


# --------------------------------------------------------------------------- first
def test_first_returns_the_first_result_and_ends_the_others(call):
    def slow():
        try:
            Chan().recv()
        finally:
            ended.append(1)

    async def async_slow():
        try:
            await Chan().async_recv()
        finally:
            ended.append(1)

    def fails():
        raise KeyError

    ended = []
    assert call("first", [slow, fails, async_slow, lambda: square(3)]) == 9
    assert ended == [1, 1]


def test_first_raises_all_exceptions_if_none_returns(call):
    def fail(error):
        raise error

    with pytest.raises(ExceptionGroup, match="none of 2 functions returned") as caught:
        call("first", [lambda: fail(KeyError(1)), lambda: fail(ValueError(2))])
    assert {type(exc) for exc in caught.value.exceptions} == {KeyError, ValueError}


def test_a_cancelled_first_cancels_its_calls():
    def work():
        try:
            started.send(1)
            Chan().recv()
        finally:
            ended.append(1)

    started, ended = Chan(), []
    g = go(goloop.first, [work, work])
    started.recv()
    started.recv()
    g.cancel()
    with pytest.raises(asyncio.CancelledError):
        g.result(SECONDS)
    assert ended == [1, 1]


# ------------------------------------------------------------------------ join_all
def test_join_all_waits_for_the_end_of_all(call):
    done = []
    assert call("join_all", [go(lambda n=n: done.append(square(n))) for n in range(20)]) is None
    assert len(done) == 20
    assert call("join_all", []) is None
    assert call("join_all", iter([go(int)])) is None


def test_join_all_raises_the_first_of_the_exceptions_when_all_have_ended(call):
    def fail(error):
        goloop.sleep(0.001)
        raise error

    goroutines = [go(int), go(fail, KeyError(1)), go(fail, ValueError(2)), go(square, 3)]
    with pytest.raises(KeyError):
        call("join_all", goroutines)
    assert all(g.done() for g in goroutines)
    cancelled = go(Chan().recv)
    cancelled.cancel()
    with pytest.raises(context.Canceled):
        call("join_all", [cancelled])


def test_join_all_with_a_timeout_leaves_them_running(call):
    chan = Chan()
    g = go(chan.recv)
    with pytest.raises(TimeoutError):
        call("join_all", [g, go(int)], timeout=0.01)
    assert not g.done()
    chan.send(5)
    assert g.result(SECONDS) == 5


def test_join_all_does_not_cancel_when_it_is_cancelled():
    chan = Chan()
    g = go(chan.recv)
    waiting = go(goloop.join_all, [g])
    until(lambda: waiting.state not in ("not started", "running", "runnable"))
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        waiting.result(SECONDS)
    assert not g.done()
    chan.send(1)
    g.join(SECONDS)


# -------------------------------------------------------------------------- misuse
@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: goloop.map(1, []), TypeError, r"map\(\) takes a function, got 1"),
        (lambda: goloop.map(square, 1), TypeError, "not iterable"),
        (lambda: goloop.map(square, [], limit=0), ValueError, r"map\(\) takes a limit of at least 1"),
        (lambda: goloop.map(square, [], limit="3"), TypeError, "a limit that is an int or None, got '3'"),
        (lambda: goloop.map(square, [], limit=True), TypeError, "a limit that is an int or None, got True"),
        (lambda: goloop.map_unordered(1, []), TypeError, r"map_unordered\(\) takes a function"),
        (lambda: goloop.async_map_unordered(square, [], limit=0), ValueError, r"async_map_unordered\(\) takes a limit"),
        (lambda: goloop.first([]), ValueError, "needs at least one function"),
        (lambda: goloop.first([1]), TypeError, "functions without arguments, got 1"),
        (lambda: goloop.join_all([1]), TypeError, "takes goroutines, got 1"),
        (lambda: goloop.join_all([], timeout="1"), TypeError, "a number of seconds"),
    ],
)
def test_an_error_at_the_call(make, error, message):
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize("name", ["map", "map_unordered", "first", "join_all"])
def test_on_a_loops_thread_the_async_form_is_the_way(name):
    args = {"first": ([square],), "join_all": ([],)}.get(name, (square, []))

    async def main():
        with pytest.raises(RuntimeError, match=f"async_{name}"):
            getattr(goloop, name)(*args)

    goloop.run(main())
