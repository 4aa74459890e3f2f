"""goloop.rate: tokens that come in at a rate, reserved, waited for, given back."""

import asyncio
import math
import time

import pytest

import goloop
from goloop import context, go, rate, timeout
from goloop.rate import Limiter
from tests.helpers.waiting import SECONDS, until

BACKGROUND = context.background()


class Clock:
    def __init__(self):
        self.now = 1000.0

    def monotonic(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    """The time that limiters see."""
    clock = Clock()
    monkeypatch.setattr(rate, "monotonic", clock.monotonic)
    return clock


def test_a_burst_may_happen_at_once_and_tokens_come_in_at_the_rate(clock):
    limiter = Limiter(8, 3)
    assert [limiter.allow() for _ in range(4)] == [True, True, True, False]
    clock.now += 1 / 16
    assert not limiter.allow()
    clock.now += 1 / 16
    assert limiter.allow() and not limiter.allow()
    clock.now += 100
    assert limiter.tokens() == 3 and repr(limiter) == "<Limiter 8 a second, burst 3, 3 tokens>"
    assert limiter.allow(3) and not limiter.allow(1) and limiter.allow(0)


def test_without_a_limit_everything_is_allowed(clock):
    limiter = Limiter(math.inf, 0)
    assert all(limiter.allow(100) for _ in range(100)) and limiter.reserve(5).delay() == 0
    limiter.wait(1000)


def test_with_a_limit_of_zero_there_is_the_burst_and_no_more(clock):
    limiter = Limiter(0, 2)
    assert limiter.allow(2) and not limiter.allow()
    clock.now += 1e6
    assert not limiter.allow() and not limiter.reserve().ok
    with pytest.raises(ValueError, match="no token comes any more"):
        limiter.wait()


def test_reservations_line_up(clock):
    limiter = Limiter(10, 1)
    reservations = [limiter.reserve() for _ in range(4)]
    assert [r.delay() for r in reservations] == pytest.approx([0, 0.1, 0.2, 0.3])
    assert all(r.ok for r in reservations) and limiter.tokens() == pytest.approx(-3)
    clock.now += 0.15
    assert [r.delay() for r in reservations] == pytest.approx([0, 0, 0.05, 0.15])
    none = limiter.reserve(2)
    assert not none.ok and none.delay() == math.inf and repr(none) == "<Reservation of none>"
    none.cancel()


def test_a_cancelled_reservation_gives_back_what_others_do_not_count_on(clock):
    limiter = Limiter(10, 5)
    limiter.allow(5)
    first, second = limiter.reserve(2), limiter.reserve(3)
    assert (first.delay(), second.delay()) == pytest.approx((0.2, 0.5))
    second.cancel()
    assert limiter.tokens() == pytest.approx(-2)
    second.cancel()  # once only
    assert limiter.tokens() == pytest.approx(-2)
    first.cancel()
    assert limiter.tokens() == pytest.approx(0)
    early, late = limiter.reserve(2), limiter.reserve(1)
    early.cancel()  # the later one keeps its time: one token of the two is its
    assert limiter.tokens() == pytest.approx(-2) and late.delay() == pytest.approx(0.3)
    past = limiter.reserve(1)
    clock.now += 10
    past.cancel()
    assert limiter.tokens() == 5


def test_rate_and_burst_can_change(clock):
    limiter = Limiter(1, 1)
    limiter.allow()
    limiter.set_limit(10)
    limiter.set_burst(4)
    assert (limiter.limit, limiter.burst) == (10, 4)
    clock.now += 1
    assert limiter.tokens() == 4


# ------------------------------------------------------------------------- waiting
def test_waits_take_as_long_as_the_rate_says():
    limiter = Limiter(200, 1)
    start = time.monotonic()
    for _ in range(5):
        go(limiter.wait).result(SECONDS)
    limiter.wait(ctx=BACKGROUND)

    async def main():
        for _ in range(5):
            await limiter.async_wait()
        await limiter.async_wait(ctx=BACKGROUND)

    goloop.run(main())
    assert time.monotonic() - start > 11 * 0.005 - 0.001


def test_a_hundred_goroutines_share_a_limiter():
    limiter = Limiter(5000, 10)
    start = time.monotonic()
    goloop.map(lambda n: limiter.wait(), range(110))
    assert time.monotonic() - start > 100 / 5000 - 0.001


def test_a_wait_that_would_take_too_long_fails_at_once():
    limiter = Limiter(0.001, 1)
    limiter.allow()
    with pytest.raises(TimeoutError, match="would come after the timeout"):
        limiter.wait(timeout=0.5)
    with context.with_timeout(BACKGROUND, 0.5) as ctx:
        for timeout_ in (None, 100):
            with pytest.raises(context.DeadlineExceeded, match="after the context's deadline"):
                limiter.wait(1, timeout_, ctx=ctx)
    assert limiter.tokens() == pytest.approx(0, abs=0.01)
    with pytest.raises(ValueError, match="more than the burst of 1"):
        limiter.wait(2)


def test_a_wait_that_is_ended_gives_its_tokens_back():
    limiter = Limiter(0.001, 1)
    limiter.allow()

    def whole():
        return limiter.tokens() == pytest.approx(0, abs=0.01)

    ctx, cancel = context.with_cancel(BACKGROUND)
    waiting = go(limiter.wait, ctx=ctx)
    until(lambda: not whole())
    cancel()
    with pytest.raises(context.Canceled):
        waiting.result(SECONDS)
    assert whole()
    waiting = go(limiter.wait)
    until(lambda: not whole())
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        waiting.result(SECONDS)
    assert whole()

    async def main():
        with pytest.raises(TimeoutError):
            async with timeout(0.01):
                await limiter.async_wait()
        assert whole()
        ctx, cancel = context.with_cancel(BACKGROUND)
        asyncio.get_running_loop().call_later(0.01, cancel)
        with pytest.raises(context.Canceled):
            await limiter.async_wait(ctx=ctx)

    goloop.run(main())
    with pytest.raises(context.Canceled):
        limiter.wait(ctx=ctx)
    assert whole()


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda: Limiter("1"), TypeError),
        (lambda: Limiter(-1), ValueError),
        (lambda: Limiter(math.nan), ValueError),
        (lambda: Limiter(1, 1.5), TypeError),
        (lambda: Limiter(1, -1), ValueError),
        (lambda: Limiter(1).allow("1"), TypeError),
        (lambda: Limiter(1).allow(-1), ValueError),
        (lambda: Limiter(1).reserve(True), TypeError),
        (lambda: Limiter(1).wait(timeout="1"), TypeError),
        (lambda: Limiter(1).wait(timeout=math.nan), ValueError),
        (lambda: Limiter(1).wait(ctx=1), TypeError),
        (lambda: Limiter(1).set_limit(None), TypeError),
        (lambda: Limiter(1).set_burst(None), TypeError),
    ],
)
def test_misuse(make, error):
    with pytest.raises(error):
        make()


def test_on_a_loops_thread_the_async_form_is_the_way():
    async def main():
        with pytest.raises(RuntimeError, match="async_wait"):
            Limiter(1).wait()

    goloop.run(main())
