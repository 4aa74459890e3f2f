"""Channels and select: Go's semantics for goroutines, coroutines and threads, and what misuse is told."""

import asyncio
import gc
import signal
import threading
import time
from collections import Counter

import pytest

import goloop
from goloop import Chan, ChannelClosed, async_select, go, recv, select, send


def parked(g, reason):
    while g.state != reason:
        goloop.gosched()
    return g


async def aparked(g, reason):
    while g.state != reason:
        await asyncio.sleep(0.0005)
    return g


# ------------------------------------------------------------------ the channel
def test_a_buffer():
    chan = Chan(2)
    assert chan.cap == 2 and len(chan) == 0 and bool(chan)
    chan.send(1)
    chan.send(2)
    assert len(chan) == 2
    assert not chan.try_send(3)
    assert [chan.recv(), chan.recv()] == [1, 2]
    assert chan.try_recv() == (None, False)


def test_none_is_a_value():
    chan = Chan(1)
    chan.send(None)
    assert chan.try_recv() == (None, True)


def test_a_big_capacity_costs_nothing_until_it_is_used():
    chan = Chan(10**15)
    for i in range(1000):
        chan.send(i)
    assert [chan.recv() for _ in range(1000)] == list(range(1000))


def test_the_buffer_wraps_and_grows():
    chan, sent, got = Chan(100), 0, 0
    for n in (3, 7, 50, 90, 1, 100, 99):
        for _ in range(n):
            chan.send(sent)
            sent += 1
        for _ in range(n):
            assert chan.recv() == got
            got += 1


@pytest.mark.parametrize(("n", "error"), [(-1, ValueError), (1.5, TypeError), ("1", TypeError), (None, TypeError)])
def test_bad_capacities(n, error):
    with pytest.raises(error, match="capacity"):
        Chan(n)


def test_repr():
    chan = Chan(3)
    chan.send(1)
    assert repr(chan) == "<Chan 1 of 3, 0 receiving, 0 sending>"
    chan.close()
    assert repr(chan) == "<Chan closed, 1 of 3, 0 receiving, 0 sending>"
    assert Chan[int].__origin__ is Chan


def test_a_rendezvous():
    """An unbuffered send is over only when it has been received."""

    def main():
        chan, trace = Chan(), []

        def sender():
            chan.send("v")
            trace.append("sent")

        g = go(sender)
        parked(g, "chan send")
        assert trace == []
        assert chan.recv() == "v"
        g.join()
        return trace

    assert go(main).result(timeout=10) == ["sent"]


def test_nowait_on_an_unbuffered_channel():
    chan = Chan()
    assert not chan.try_send(1)
    assert chan.try_recv() == (None, False)
    g = parked(go(chan.recv), "chan receive")
    assert chan.try_send(1)
    assert g.result(timeout=10) == 1
    g = parked(go(chan.send, 2), "chan send")
    assert chan.try_recv() == (2, True)
    g.join(timeout=10)


def test_a_waiting_sender_fills_the_buffer():
    chan = Chan(1)
    chan.send(1)
    gs = []
    for i in (2, 3):
        gs.append(parked(go(chan.send, i), "chan send"))
    assert [chan.recv() for _ in range(3)] == [1, 2, 3]
    for g in gs:
        g.join(timeout=10)


def test_receivers_are_served_in_their_order():
    chan = Chan()
    gs = [parked(go(chan.recv), "chan receive") for _ in range(5)]
    for i in range(5):
        chan.send(i)
    assert [g.result(timeout=10) for g in gs] == list(range(5))


# ------------------------------------------------------------------------ close
def test_close_lets_the_buffer_drain():
    chan = Chan(2)
    chan.send(1)
    chan.close()
    assert chan.closed
    assert chan.recv() == 1
    with pytest.raises(ChannelClosed, match="receive from a closed channel"):
        chan.recv()
    with pytest.raises(ChannelClosed, match="receive from a closed channel"):
        chan.try_recv()


def test_sends_and_a_second_close_raise():
    chan = Chan(1)
    chan.close()
    with pytest.raises(ChannelClosed, match="send on a closed channel"):
        chan.send(1)
    with pytest.raises(ChannelClosed, match="send on a closed channel"):
        chan.try_send(1)
    with pytest.raises(ChannelClosed, match="close of a closed channel"):
        chan.close()


def test_close_wakes_everybody():
    receiving, sending = Chan(), Chan()

    async def areceiver():
        await receiving.async_recv()

    async def asender():
        await sending.async_send(1)

    gs = [go(receiving.recv), go(areceiver), go(sending.send, 1), go(asender)]
    gs.append(go(select, recv(receiving), send(Chan(), 1)))
    raised = []

    def thread(f, *args):
        try:
            f(*args)
        except ChannelClosed:
            raised.append(True)

    threads = [threading.Thread(target=thread, args=args) for args in ((receiving.recv,), (sending.send, 1))]
    for t in threads:
        t.start()
    while "4 receiving" not in repr(receiving) or "3 sending" not in repr(sending):
        goloop.gosched()
    receiving.close()
    sending.close()
    for g in gs[:4]:
        with pytest.raises(ChannelClosed):
            g.result(timeout=10)
    assert gs[4].result(timeout=10) == (0, None, False)
    for t in threads:
        t.join(10)
    assert raised == [True, True]


def test_iteration():
    chan = Chan(2)

    def produce(n):
        for i in range(n):
            chan.send(i)
        chan.close()

    go(produce, 5)
    assert list(chan) == [0, 1, 2, 3, 4]

    chan = Chan()

    async def main():
        go(produce, 5)
        return [v async for v in chan]

    assert goloop.run(main()) == [0, 1, 2, 3, 4]


# --------------------------------------------------------------------- timeouts
@pytest.mark.parametrize("timeout", [0, -1, 0.01])
def test_timeouts(timeout):
    chan = Chan()

    def all_of_them():
        with pytest.raises(TimeoutError, match="recv: timed out"):
            chan.recv(timeout=timeout)
        with pytest.raises(TimeoutError, match="send: timed out"):
            chan.send(1, timeout=timeout)
        with pytest.raises(TimeoutError, match="select: timed out"):
            select(recv(chan), send(chan, 1), timeout=timeout)

    async def async_ones():
        with pytest.raises(TimeoutError, match="recv: timed out"):
            await chan.async_recv(timeout=timeout)
        with pytest.raises(TimeoutError, match="send: timed out"):
            await chan.async_send(1, timeout=timeout)
        with pytest.raises(TimeoutError, match="select: timed out"):
            await async_select(recv(chan), send(chan, 1), timeout=timeout)

    all_of_them()
    go(all_of_them).join(timeout=10)
    goloop.run(async_ones())
    asyncio.run(async_ones())
    assert chan.try_recv() == (None, False) and "0 receiving, 0 sending" in repr(chan)


def test_a_timeout_that_is_not_needed():
    chan = Chan()
    g = go(chan.recv, 1000)
    parked(g, "chan receive")
    chan.send(1, timeout=1000)
    assert g.result(timeout=10) == 1


# ----------------------------------------------------------------------- select
def test_select_takes_what_is_ready():
    a, b = Chan(1), Chan(1)
    b.send("b")
    assert select(recv(a), recv(b)) == (1, "b", True)
    assert select(recv(a), send(b, "again")) == (1, None, True)
    assert b.recv() == "again"


def test_select_default():
    a = Chan()
    assert select(recv(a), send(a, 1), default=True) == (-1, None, False)
    assert select(default=True) == (-1, None, False)

    async def main():
        assert select(recv(a), default=True) == (-1, None, False)  # does not wait: also on a loop
        return await async_select(recv(a), default=True)

    assert goloop.run(main()) == (-1, None, False)


def test_a_disabled_case():
    a = Chan(1)
    assert select(None, send(a, 1)) == (1, None, True)
    assert select(None, None, default=True) == (-1, None, False)
    with pytest.raises(TimeoutError):
        select(None, timeout=0.01)


def test_select_of_nothing_waits_until_it_is_cancelled():
    g = parked(go(select), "select")
    g.cancel()
    with pytest.raises(asyncio.CancelledError):
        g.result(timeout=10)


def test_select_waits():
    a, b = Chan(), Chan()
    g = parked(go(select, recv(a), send(b, "to b")), "select")
    assert b.recv() == "to b"
    assert g.result(timeout=10) == (1, None, True)
    g = parked(go(select, recv(a), send(b, "to b")), "select")
    a.send("to a")
    assert g.result(timeout=10) == (0, "to a", True)
    assert "0 receiving" in repr(a) and "0 sending" in repr(b)


def test_select_never_meets_itself():
    a = Chan()
    with pytest.raises(TimeoutError):
        select(recv(a), send(a, 1), timeout=0.01)


def test_two_selects_meet():
    a, b = Chan(), Chan()
    g = parked(go(select, recv(a), recv(b)), "select")
    h = go(select, send(a, 1), send(b, 2))
    index, none, ok = h.result(timeout=10)
    assert none is None and ok
    assert g.result(timeout=10) == (index, index + 1, True)


def test_the_same_channel_twice():
    a = Chan()
    g = parked(go(select, recv(a), recv(a)), "select")
    a.send(1)
    index, value, ok = g.result(timeout=10)
    assert index in (0, 1) and (value, ok) == (1, True)
    assert "0 receiving" in repr(a)


def test_select_on_closed_channels():
    a = Chan(1)
    a.send(1)
    a.close()
    assert select(recv(a)) == (0, 1, True)
    assert select(recv(a)) == (0, None, False)
    with pytest.raises(ChannelClosed, match="send on a closed channel"):
        select(send(a, 1))
    b = Chan()
    g = parked(go(select, send(b, 1)), "select")
    b.close()
    with pytest.raises(ChannelClosed, match="send on a closed channel"):
        g.result(timeout=10)


def test_select_is_fair():
    chans = [Chan(1) for _ in range(4)]
    seen = Counter()
    for _ in range(4000):
        for chan in chans:
            chan.try_send(0)
        seen[select(*map(recv, chans))[0]] += 1
    assert min(seen.values()) > 500 and len(seen) == 4


@pytest.mark.parametrize("case", [1, "recv", Chan()])
def test_select_takes_cases(case):
    with pytest.raises(TypeError, match=r"takes recv\(chan\), send\(chan, value\) or None"):
        select(case, default=True)
    with pytest.raises(TypeError, match="a Chan is needed"):
        recv(1)
    with pytest.raises(TypeError, match="a Chan is needed"):
        send(None, 1)
    with pytest.raises(TypeError, match=r"made by goloop.recv\(chan\)"):
        type(recv(Chan()))()


# ----------------------------------------------------------------------- misuse
def test_blocking_forms_on_a_loop_name_the_async_ones():
    async def main():
        full, empty = Chan(1), Chan()
        full.try_send(1)
        for chan in (full, empty):  # whether or not they would have to wait
            with pytest.raises(RuntimeError, match=r"recv\(\) would block .*: use await Chan.async_recv\(\)"):
                chan.recv()
            with pytest.raises(RuntimeError, match=r"use await Chan.async_send\(\) here, or call it in a goroutine"):
                chan.send(1)
            with pytest.raises(RuntimeError, match=r"use await async_select\(\)"):
                select(recv(chan))
            with pytest.raises(RuntimeError, match=r"Chan\.async_recv"):
                next(iter(chan))

    goloop.run(main())
    asyncio.run(main())
    go(main).result(timeout=10)  # a coroutine on a worker's loop is one, too


def test_async_forms_need_a_loop():
    chan = Chan()
    coroutine = chan.async_recv()
    with pytest.raises(RuntimeError, match="no running event loop"):
        coroutine.send(None)


# ------------------------------------------------- cancellation loses no value
def test_a_cancelled_receiver_takes_nothing():
    chan = Chan()
    g = parked(go(chan.recv), "chan receive")
    g.cancel()
    with pytest.raises(asyncio.CancelledError):
        g.result(timeout=10)
    assert not chan.try_send(1)


def test_a_cancelled_sender_sends_nothing():
    chan = Chan()
    g = parked(go(chan.send, 1), "chan send")
    g.cancel()
    with pytest.raises(asyncio.CancelledError):
        g.result(timeout=10)
    assert chan.try_recv() == (None, False)


@pytest.mark.parametrize("run", [goloop.run, asyncio.run])
@pytest.mark.parametrize("how", ["async_recv", "async_select"])
def test_a_coroutine_cancelled_with_its_value_leaves_it_to_the_next(run, how):
    async def main():
        chan = Chan()
        receive = chan.async_recv if how == "async_recv" else lambda: async_select(recv(chan), recv(Chan()))
        first = asyncio.create_task(receive())
        await asyncio.sleep(0)
        assert chan.try_send("v")
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        assert len(chan) == 1
        return await chan.async_recv()

    assert run(main()) == "v"


def test_a_value_left_by_a_cancelled_one_goes_to_who_waits():
    async def main():
        chan = Chan()
        first, second = asyncio.create_task(chan.async_recv()), asyncio.create_task(chan.async_recv())
        await asyncio.sleep(0)
        g = go(chan.recv)
        await aparked(g, "chan receive")
        assert chan.try_send("v")
        first.cancel()
        await asyncio.wait([first])
        assert await second == "v"
        assert chan.try_send("w")
        return await g

    assert goloop.run(main()) == "w"


def test_order_is_kept_when_the_first_of_two_is_cancelled():
    async def main():
        chan = Chan()
        first, second = asyncio.create_task(chan.async_recv()), asyncio.create_task(chan.async_recv())
        await asyncio.sleep(0)
        assert chan.try_send(1) and chan.try_send(2)
        first.cancel()
        assert await second == 1
        return await chan.async_recv()

    assert goloop.run(main()) == 2


def test_an_irrevocable_receiver_gets_the_oldest_value():
    async def main():
        chan = Chan()
        first = asyncio.create_task(chan.async_recv())
        await asyncio.sleep(0)
        g = await aparked(go(chan.recv), "chan receive")
        assert chan.try_send(1) and chan.try_send(2)  # both on their way
        first.cancel()
        await asyncio.wait([first])
        assert await g == 1
        return await chan.async_recv()

    assert goloop.run(main()) == 2


def test_asyncio_timeout_and_a_value_at_the_same_moment():
    """The timeout wins, the value stays, and the task is not cancelled afterwards."""

    async def main():
        chan = Chan()

        async def receives():
            async with asyncio.timeout(10) as scope:
                asyncio.get_running_loop().call_soon(chan.try_send, "v")
                asyncio.get_running_loop().call_soon(scope._on_timeout)
                return await chan.async_recv()

        with pytest.raises(TimeoutError):
            await receives()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert asyncio.current_task().cancelling() == 0
        return await chan.async_recv()

    assert goloop.run(main()) == "v"


def test_a_close_waits_for_a_value_that_may_come_back():
    """Closed, but one value is on its way to a coroutine: a receiver must not be told "drained" yet."""

    async def main():
        chan = Chan()
        first = asyncio.create_task(chan.async_recv())
        await asyncio.sleep(0)
        chan.try_send("v")
        chan.close()
        assert chan.try_recv() == (None, False)
        second = asyncio.create_task(chan.async_recv())
        await asyncio.sleep(0)
        assert await first == "v"
        with pytest.raises(ChannelClosed):
            await second

        chan = Chan()
        first = asyncio.create_task(chan.async_recv())
        await asyncio.sleep(0)
        chan.try_send("v")
        chan.close()
        second = chan.async_recv()
        first.cancel()
        return await second

    assert goloop.run(main()) == "v"


def test_a_receiving_coroutine_that_is_destroyed_leaves_its_value():
    chan = Chan()
    loop = goloop.new_event_loop()

    async def receive():
        await chan.async_recv()

    task = loop.create_task(receive())
    task._log_destroy_pending = False
    loop.run_until_complete(asyncio.sleep(0))
    assert chan.try_send("v")
    loop.close()
    del task
    gc.collect()
    assert chan.try_recv() == ("v", True)


def test_a_receiver_whose_loop_has_closed_is_passed_over():
    chan = Chan()
    loop = asyncio.SelectorEventLoop()

    async def receive():
        await chan.async_recv()

    task = loop.create_task(receive())
    task._log_destroy_pending = False
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    g = parked(go(chan.recv), "chan receive")
    chan.send("v")
    assert g.result(timeout=10) == "v"


class Interrupt(Exception):
    pass


@pytest.mark.parametrize("how", ["recv", "select"])
def test_a_signal_in_a_waiting_thread_loses_no_value(how):
    """The handler sends the value that the interrupted recv() waits for, and raises."""
    chan = Chan()

    def handler(*_):
        assert chan.try_send("v")
        raise Interrupt

    before = signal.signal(signal.SIGALRM, handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.02)
        with pytest.raises(Interrupt):
            chan.recv() if how == "recv" else select(recv(chan), recv(Chan()))
        assert chan.try_recv() == ("v", True)
        assert chan.try_recv() == (None, False)
    finally:
        signal.signal(signal.SIGALRM, before)


def test_a_signal_in_a_thread_that_waits_takes_it_out_of_the_queue():
    def handler(*_):
        raise Interrupt

    before = signal.signal(signal.SIGALRM, handler)
    chan = Chan()
    g, hold = go(Chan(1).recv), None
    try:
        for wait in (chan.recv, lambda: chan.send(1), lambda: select(recv(chan)), g.result):
            signal.setitimer(signal.ITIMER_REAL, 0.02)
            with pytest.raises(Interrupt):
                wait()
        assert "0 receiving, 0 sending" in repr(chan) and hold is None
    finally:
        signal.signal(signal.SIGALRM, before)
        g.cancel()


# ---------------------------------------------------- all kinds at the same time
def test_goroutines_coroutines_and_threads_at_once():
    values, workers = 3000, 6
    chan, out = Chan(3), Chan(5)

    def passer():
        for v in chan:
            out.send(v)

    async def apasser():
        async for v in chan:
            await out.async_send(v)

    def sender(start):
        for v in range(start, values, 3):
            chan.send(v)

    async def asender(start):
        for v in range(start, values, 3):
            await chan.async_send(v)

    async def main():
        passers = [go(passer) for _ in range(workers)] + [go(apasser) for _ in range(workers)]
        threads = [threading.Thread(target=passer) for _ in range(2)] + [threading.Thread(target=sender, args=(2,))]
        for thread in threads:
            thread.start()
        tasks = [asyncio.create_task(apasser()) for _ in range(workers)]
        senders = [go(sender, 0), asyncio.ensure_future(asender(1))]
        got = [await out.async_recv() for _ in range(values)]
        await asyncio.gather(*senders)
        chan.close()
        await asyncio.gather(*passers, *tasks)
        for thread in threads:
            await asyncio.to_thread(thread.join)
        return got

    assert sorted(goloop.run(main())) == list(range(values))


def test_a_prime_sieve():
    """Go's classic: a chain of goroutines, each with a channel of its own."""

    def generate(chan):
        i = 2
        while True:
            chan.send(i)
            i += 1

    def filter_out(source, sink, prime):
        while True:
            if (i := source.recv()) % prime:
                sink.send(i)

    def primes(n):
        chan = Chan()
        gs = [go(generate, chan)]
        found = []
        for _ in range(n):
            prime = chan.recv()
            found.append(prime)
            sink = Chan()
            gs.append(go(filter_out, chan, sink, prime))
            chan = sink
        for g in gs:
            g.cancel()
        return found

    assert go(primes, 60).result(timeout=60)[-5:] == [263, 269, 271, 277, 281]


def test_ten_thousand_parked_on_one_channel():
    chan = Chan()
    gs = [go(chan.recv) for _ in range(10_000)]
    until = time.monotonic() + 60
    while "10000 receiving" not in repr(chan):
        assert time.monotonic() < until
        goloop.sleep(0.001)

    def feed():
        for i in range(10_000):
            chan.send(i)

    go(feed).join(timeout=60)
    assert sorted(g.result(timeout=60) for g in gs) == list(range(10_000))
