"""How goroutines end before their time: cancel(), goexit(), also from a greenlet inside of one."""

import asyncio

import pytest

import goloop
from goloop import Chan, go


# --------------------------------------------------------------- cancellation
def test_cancel_before_the_start(one_worker):
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
    assert not chan.try_send(1)


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
        assert chan.try_send("v")  # claimed and runnable
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
        started.try_send(1)
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
