"""Random programs on channels, held to what a queue promises.

A program is a few actors - goroutines on several workers, coroutines on two loops, plain threads - that send, receive
and select, with timeouts, while others close the channels or cancel the actors. Every value is sent once, so that each
history can be checked against a sequential queue without a search (Henzinger, Sezgin, Vafeiadis, "Aspect-oriented
linearizability proofs", name the patterns that exclude one): a value that was never sent or came twice; one received
before its send began; two that overtook each other; a channel said to be drained while a value was in it. What a
cancelled or timed out operation may have done is known from its outcome.
"""

import asyncio
import itertools
import os
import random
import threading

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import goloop
from goloop import Chan, ChannelClosed, async_select, go, recv, select, send, testing

SEEDS = int(os.environ.get("TESTS_SEEDS", "300"))  # CI takes more
KINDS = ("goroutine", "coroutine goroutine", "coroutine", "other loop", "thread")


class History:
    """What happened, with a place in time for each beginning and end."""

    def __init__(self):
        self.clock = itertools.count()
        self.sends = {}  # value: [channel, begun, ended or None, certain]
        self.recvs = {}  # value: (channel, begun, ended)
        self.drained = []  # (channel, begun, ended): "closed and drained" was said
        self.doubled = []

    def send_begins(self, chan, value):
        self.sends[value] = [chan, next(self.clock), None, False]

    def send_ends(self, value):
        self.sends[value][2:] = next(self.clock), True

    def send_failed(self, value):
        del self.sends[value]

    def received(self, chan, begun, value):
        if value in self.recvs:
            self.doubled.append(value)
        self.recvs[value] = chan, begun, next(self.clock)

    def check(self, left):
        """left: for each channel, the values that were still in it at the end, in order."""
        assert not self.doubled, f"received twice: {self.doubled}"
        never = float("inf")
        for values in left.values():
            for value in values:
                assert value not in self.recvs, f"{value} was received and is still there"
        there = {value: place for values in left.values() for place, value in enumerate(values)}
        for value, (_, begun, _, certain) in self.sends.items():
            if certain:
                assert value in self.recvs or value in there, f"{value} was lost"
            if value in self.recvs:
                assert self.recvs[value][2] > begun, f"{value} was received before it was sent"
        for value in self.recvs.keys() | there.keys():
            assert value in self.sends, f"{value} came out of nowhere"
        out = {v: self.recvs.get(v, (None, never, never)) for v in self.recvs.keys() | there.keys()}
        for a, b in itertools.permutations(out, 2):
            first, second = self.sends[a], self.sends[b]
            if first[0] == second[0] and first[2] is not None and first[2] < second[1]:
                assert not out[b][2] < out[a][1], f"{b} overtook {a}"
                assert not (a in there and b in there) or there[a] < there[b], f"{b} stands in front of {a}"
        for chan, begun, ended in self.drained:
            for value, (of, _, sent, _) in self.sends.items():
                if of == chan and sent is not None and sent < begun:
                    assert value in out and out[value][1] < ended, f"drained, though {value} was there"


class Actor:
    """One actor's program; steps are drawn from its own random numbers."""

    def __init__(self, world, number, kind):
        self.world, self.kind = world, kind
        self.random = random.Random(world.seed * 1000 + number)
        self.values = itertools.count(number * 1_000_000)

    def plan(self):
        """Yield operations: (name, channel numbers, timeout)."""
        for _ in range(self.random.randrange(1, 14)):
            what = self.random.choice(("send", "send", "recv", "recv", "select", "nowait", "pause"))
            timeout = self.random.choice((None, None, 0, 0.0005, 0.003))
            yield what, self.random.choices(range(len(self.world.chans)), k=2), timeout

    # Each operation is written once, as a generator that yields what to do and is told how it went.
    def operation(self, what, numbers, timeout):
        history, chans = self.world.history, self.world.chans
        a, b = numbers
        begun = next(history.clock)
        if what == "pause":
            yield ("pause",)
        elif what == "send" or (what == "nowait" and self.random.random() < 0.5):
            value = next(self.values)
            history.send_begins(a, value)
            how, sent = yield ("send", chans[a], value, timeout) if what == "send" else ("try_send", chans[a], value)
            if how == "ok" and sent is not False:
                history.send_ends(value)
            elif how != "cancelled":
                history.send_failed(value)  # a cancelled one may have sent
        elif what in ("recv", "nowait"):
            how, got = yield ("recv", chans[a], timeout) if what == "recv" else ("try_recv", chans[a])
            if what == "nowait" and how == "ok":
                got, ok = got
                how = "ok" if ok else "nothing"
            if how == "ok":
                history.received(a, begun, got)
            elif how == "closed":
                history.drained.append((a, begun, next(history.clock)))
        else:
            value = next(self.values)
            history.send_begins(b, value)
            how, result = yield ("select", recv(chans[a]), send(chans[b], value), timeout)
            if how == "ok" and result[0] == 1:
                history.send_ends(value)
            else:
                if how != "cancelled":
                    history.send_failed(value)
                if how == "ok" and result[2]:
                    history.received(a, begun, result[1])
                elif how == "ok":
                    history.drained.append((a, begun, next(history.clock)))

    def perform(self, action, *args):
        if action == "pause":
            (goloop.gosched if self.random.random() < 0.7 else lambda: goloop.sleep(0.0005))()
        elif action == "select":
            return select(*args[:2], timeout=args[2])
        else:
            return getattr(args[0], action)(*args[1:])

    async def aperform(self, action, *args):
        if action == "pause":
            await asyncio.sleep(0 if self.random.random() < 0.7 else 0.0005)
        elif action == "select":
            return await async_select(*args[:2], timeout=args[2])
        elif action in ("send", "recv"):
            return await getattr(args[0], "async_" + action)(*args[1:])
        else:
            return getattr(args[0], action)(*args[1:])

    def run(self):
        for step in self.plan():
            operation = self.operation(*step)
            how = "ok", None
            try:
                request = next(operation)
                try:
                    how = "ok", self.perform(*request)
                except TimeoutError:
                    how = "timeout", None
                except ChannelClosed:
                    how = "closed", None
                except asyncio.CancelledError:
                    how = "cancelled", None
                operation.send(how)
            except StopIteration:
                pass
            if how[0] == "cancelled":
                return

    async def arun(self):
        for step in self.plan():
            operation = self.operation(*step)
            how = "ok", None
            try:
                request = next(operation)
                try:
                    how = "ok", await self.aperform(*request)
                except TimeoutError:
                    how = "timeout", None
                except ChannelClosed:
                    how = "closed", None
                except asyncio.CancelledError:
                    how = "cancelled", None
                operation.send(how)
            except StopIteration:
                pass
            if how[0] == "cancelled":
                return


class World:
    def __init__(self, seed, capacities, kinds, cancels, closes):
        self.seed, self.random = seed, random.Random(seed)
        self.capacities = capacities
        self.history = History()
        self.actors = [Actor(self, number, kind) for number, kind in enumerate(kinds)]
        self.cancels, self.closes = cancels, closes

    def start(self, actor, tasks, threads, elsewhere):
        if actor.kind == "goroutine":
            tasks.append(go(actor.run))
        elif actor.kind == "coroutine goroutine":
            tasks.append(go(actor.arun))
        elif actor.kind == "coroutine":
            tasks.append(asyncio.ensure_future(actor.arun()))
        elif actor.kind == "other loop":
            elsewhere.append(actor)
        else:
            threads.append(threading.Thread(target=actor.run))
            threads[-1].start()

    async def main(self):
        tasks, threads, elsewhere = [], [], []
        self.chans = [Chan(n) for n in self.capacities]
        for actor in self.actors:
            self.start(actor, tasks, threads, elsewhere)

        async def others():
            await asyncio.gather(*[actor.arun() for actor in elsewhere])

        if elsewhere:
            threads.append(threading.Thread(target=lambda: asyncio.run(others())))
            threads[-1].start()
        for _ in range(self.cancels):
            await asyncio.sleep(self.random.choice((0, 0, 0.0005, 0.002)))
            if tasks:
                self.random.choice(tasks).cancel()
        for _ in range(self.closes):
            await asyncio.sleep(self.random.choice((0, 0.001)))
            chan = self.random.choice(self.chans)
            if not chan.closed:
                chan.close()
        # What still waits without a timeout is ended by closing everything, once the others had their time.
        pending = [asyncio.ensure_future(self.ended(task)) for task in tasks]
        if pending:
            _, pending = await asyncio.wait(pending, timeout=0.02)
        for chan in self.chans:
            if not chan.closed:
                chan.close()
        if pending:
            await asyncio.wait(pending)
        for thread in threads:
            await asyncio.to_thread(thread.join)
        self.check()

    @staticmethod
    async def ended(task):
        try:
            await task
        except asyncio.CancelledError:
            assert task.cancelled()

    def check(self):
        left = {}
        for number, chan in enumerate(self.chans):
            left[number] = values = []
            try:
                while True:
                    value, ok = chan.try_recv()
                    assert ok, "something is owed to a receiver that is not there any more"
                    values.append(value)
            except ChannelClosed:
                pass
            assert repr(chan).endswith("0 receiving, 0 sending>"), repr(chan)
        self.left_over = {value for values in left.values() for value in values}
        self.history.check(left)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    seed=st.integers(0, 2**32),
    capacities=st.lists(st.integers(0, 3), min_size=1, max_size=3),
    kinds=st.lists(st.sampled_from(KINDS), min_size=2, max_size=12),
    cancels=st.integers(0, 6),
    closes=st.integers(0, 2),
)
def test_random_programs(seed, capacities, kinds, cancels, closes):
    goloop.run(World(seed, capacities, kinds, cancels, closes).main())


def test_random_programs_with_every_schedule_in_virtual_time():
    """The same without threads: the seed decides the schedule as well, and what fails comes again."""
    for seed in range(SEEDS):
        rng = random.Random(seed)
        capacities = [rng.randrange(4) for _ in range(rng.randrange(1, 4))]
        kinds = rng.choices(KINDS[:3], k=rng.randrange(2, 9))
        testing.run(World(seed, capacities, kinds, rng.randrange(7), rng.randrange(3)).main, seed)


def test_nobody_of_many_hangs_and_no_value_is_lost_or_doubled():
    """The same with many actors at once, under a few seeds."""
    for seed in range(4):
        kinds = [KINDS[i % 3] if i % 40 else "thread" for i in range(600)]
        world = World(seed, [0, 0, 1, 2, 5], kinds, cancels=100, closes=1)
        world.history.check = lambda left: None  # quadratic; what is checked here is that nobody hangs or is owed
        goloop.run(world.main())
        assert not world.history.doubled
        sent = {value for value, (*_, certain) in world.history.sends.items() if certain}
        assert sent <= world.history.recvs.keys() | world.left_over


# ------------------------------------------------------- the judge can condemn
def forged(*events):
    """A history of (what, value) on one channel, one after the other."""
    history = History()
    for what, value in events:
        if what == "send":
            history.send_begins(0, value)
            history.send_ends(value)
        elif what == "recv":
            history.received(0, next(history.clock), value)
        else:
            history.drained.append((0, next(history.clock), next(history.clock)))
    return history


@pytest.mark.parametrize(
    ("events", "left", "verdict"),
    [
        ([("send", 1), ("send", 2), ("recv", 1)], [], "2 was lost"),
        ([("send", 1), ("recv", 1), ("recv", 1)], [], "received twice"),
        ([("send", 1), ("recv", 1)], [1], "still there"),
        ([("send", 1), ("send", 2), ("recv", 2), ("recv", 1)], [], "2 overtook 1"),
        ([("send", 1), ("send", 2)], [2, 1], "2 stands in front of 1"),
        ([("recv", 1), ("send", 1)], [], "received before it was sent"),
        ([("recv", 1)], [], "out of nowhere"),
        ([("send", 1), ("drained", None), ("recv", 1)], [], "drained, though 1 was there"),
    ],
)
def test_a_broken_history_is_found_out(events, left, verdict):
    with pytest.raises(AssertionError, match=verdict):
        forged(*events).check({0: left})


def test_a_sound_history_passes():
    forged(("send", 1), ("send", 2), ("recv", 1), ("send", 3), ("recv", 2), ("recv", 3), ("drained", None)).check(
        {0: []}
    )
