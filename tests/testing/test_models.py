"""Random programs in bubbles, each with a schedule of its own, held to models of what sync, context, errgroup and timer
promise. Channels have theirs in tests/test_chan_model.py. TESTS_SEEDS says how many; CI takes more."""

import asyncio
import os
import random

import pytest

import goloop
from goloop import context, errgroup, sync, testing, timer
from goloop.core.sched.bubble import monotonic

SEEDS = int(os.environ.get("TESTS_SEEDS", "300"))


def each_seed(program):
    """Run a program with each seed: its random numbers and its schedule are the seed's."""
    for seed in range(SEEDS):
        try:
            testing.run(lambda seed=seed: program(random.Random(seed)), seed)
        except BaseException as exc:
            exc.add_note(f"{program.__name__} with seed {seed}")
            raise


def actors(rng, plain, coloured, count):
    """Start that many goroutines, each of one colour or the other; returns them."""
    return [goloop.go(rng.choice((plain, coloured)), rng.randrange(2**32)) for _ in range(count)]


# ------------------------------------------------------------------------------ sync
class Held:
    """What a lock must keep apart, looked at from inside."""

    def __init__(self, capacity):
        self.capacity, self.weight = capacity, 0

    def enter(self, weight):
        self.weight += weight
        assert self.weight <= self.capacity, "too many are inside"

    def leave(self, weight):
        self.weight -= weight


def mutex_program(rng):
    mutex, held, total, done = sync.Mutex(), Held(1), [0], [0]

    def plain(seed):
        own = random.Random(seed)
        for _ in range(own.randrange(1, 4)):
            try:
                mutex.lock(own.choice((None, 0.5, 1)))
            except TimeoutError:
                continue
            inside(own.randrange(3))
            goloop.sleep(own.choice((0, 0.25)))
            held.leave(1)
            mutex.unlock()

    async def coloured(seed):
        own = random.Random(seed)
        for _ in range(own.randrange(1, 4)):
            try:
                await mutex.async_lock(own.choice((None, 0.5, 1)))
            except TimeoutError:
                continue
            inside(own.randrange(3))
            try:
                await asyncio.sleep(own.choice((0, 0.25)))
            finally:
                held.leave(1)
                mutex.unlock()

    def inside(n):
        held.enter(1)
        total[0] += n
        done[0] += n

    for g in actors(rng, plain, coloured, rng.randrange(2, 6)):
        g.join()
    assert not mutex.locked and total == done and "0 waiting" in repr(mutex)


def rwmutex_program(rng):
    rw, readers, writer = sync.RWMutex(), [0], [0]

    def look():
        assert writer[0] <= 1 and not (writer[0] and readers[0]), "a writer is not alone"

    def plain(seed):
        own = random.Random(seed)
        for _ in range(own.randrange(1, 5)):
            box, lock = (writer, rw) if own.random() < 0.4 else (readers, rw.rlocker())
            try:
                lock.lock(own.choice((None, None, 0.5)))
            except TimeoutError:
                continue
            box[0] += 1
            look()
            goloop.sleep(own.choice((0, 0.25, 0.5)))
            look()
            box[0] -= 1
            lock.unlock()

    async def coloured(seed):
        own = random.Random(seed)
        for _ in range(own.randrange(1, 5)):
            box, lock = (writer, rw) if own.random() < 0.4 else (readers, rw.rlocker())
            async with lock:
                box[0] += 1
                look()
                await asyncio.sleep(own.choice((0, 0.25, 0.5)))
                look()
                box[0] -= 1

    for g in actors(rng, plain, coloured, rng.randrange(2, 7)):
        g.join()
    assert not rw.locked and rw.readers == 0


def semaphore_program(rng):
    size = rng.randrange(1, 5)
    semaphore, held = sync.Semaphore(size), Held(size)

    def plain(seed):
        own = random.Random(seed)
        for _ in range(own.randrange(1, 5)):
            weight = own.randrange(1, size + 1)
            try:
                semaphore.acquire(weight, own.choice((None, 0, 0.5)))
            except TimeoutError:
                continue
            held.enter(weight)
            goloop.sleep(own.choice((0, 0.25)))
            held.leave(weight)
            semaphore.release(weight)

    async def coloured(seed):
        own = random.Random(seed)
        weight = own.randrange(1, size + 1)
        await semaphore.async_acquire(weight)
        held.enter(weight)
        try:
            await asyncio.sleep(own.choice((0, 0.25)))
        finally:
            held.leave(weight)
            semaphore.release(weight)

    started = actors(rng, plain, coloured, rng.randrange(2, 7))
    goloop.sleep(rng.choice((0, 0.25)))
    victim = rng.choice(started)
    if victim.state != "not started" and "coloured" in repr(victim):
        victim.cancel()  # one that waits leaves the line, one that is inside gives it back
    for g in started:
        try:
            g.join()
        except asyncio.CancelledError:
            assert g is victim
    assert semaphore.held == held.weight == 0


def cond_program(rng):
    """A bounded buffer of the textbook: nothing is lost, nothing comes twice, the order is kept."""
    cond, buffer, room, count = sync.Cond(), [], rng.randrange(1, 4), rng.randrange(1, 8)
    got = []

    def produce():
        for n in range(count):
            with cond:
                cond.wait_for(lambda: len(buffer) < room)
                buffer.append(n)
                assert len(buffer) <= room
                (cond.signal if consumers == 1 else cond.broadcast)()

    def consume(_):
        while True:
            with cond:
                cond.wait_for(lambda: buffer or len(got) == count)
                if not buffer:
                    return
                got.append(buffer.pop(0))
                cond.broadcast()

    async def async_consume(_):
        while True:
            async with cond:
                await cond.async_wait_for(lambda: buffer or len(got) == count)
                if not buffer:
                    return
                got.append(buffer.pop(0))
                cond.broadcast()

    consumers = rng.randrange(1, 4)
    started = actors(rng, consume, async_consume, consumers)
    goloop.go(produce).join()
    for g in started:
        g.join()
    assert got == list(range(count))


def waitgroup_program(rng):
    group, ended, seen, count = sync.WaitGroup(), [], [], rng.randrange(1, 6)

    def wait(_):
        group.wait()
        seen.append(len(ended))

    async def async_wait(_):
        await group.async_wait()
        seen.append(len(ended))

    def work(n):
        goloop.sleep(rng.choice((0, 1)))
        ended.append(n)

    for n in range(count):
        group.go(work, n)
    waiters = actors(rng, wait, async_wait, rng.randrange(1, 4))
    for g in waiters:
        g.join()
    assert seen == [count] * len(waiters) and group.counter == 0


def once_program(rng):
    once, calls, seen = sync.Once(), [], []

    def make():
        goloop.sleep(rng.choice((0, 1)))
        calls.append(1)

    async def async_make():
        await asyncio.sleep(rng.choice((0, 1)))
        calls.append(1)

    def plain(_):
        once.do(make)
        seen.append(len(calls))

    async def coloured(_):
        await once.async_do(async_make)
        seen.append(len(calls))

    started = actors(rng, plain, coloured, rng.randrange(1, 6))
    for g in started:
        g.join()
    assert seen == [1] * len(started) and once.done


# --------------------------------------------------------------------------- context
def context_program(rng):
    """A tree of contexts: each ends at the earliest of its own end and its parent's, for the reason of that one."""
    root, never = context.background(), float("inf")
    tree, ends, after = [(root, never, never, None)], {}, []
    for number in range(rng.randrange(1, 12)):
        parent, end, _, _ = rng.choice(tree)
        own = rng.choice((never, 1, 2, 2, 3))  # seconds from the start
        if own == never or rng.random() < 0.3:
            ctx, cancel = context.with_cancel(parent)
            own, kind = rng.choice((never, 1, 2, 3)), context.Canceled
            if own != never:
                timer.after_func(own, cancel)
        else:
            ctx, cancel = context.with_timeout(parent, own)
            kind = context.DeadlineExceeded
        when = min(own, end)
        tree.append((ctx, when, number, kind if own < end else None))
        context.after_func(ctx, lambda n=number: after.append(n))
        ends[number] = when

    def watch(ctx, when, kind):
        begun = monotonic()
        if when == never:
            with pytest.raises(TimeoutError):
                ctx.done().recv(timeout=10)
            assert ctx.err() is None
            return
        with pytest.raises(goloop.ChannelClosed):
            ctx.done().recv(timeout=10)
        assert monotonic() - begun == when
        if kind is not None:
            assert type(ctx.err()) is kind
        else:
            assert ctx.err() is not None

    for g in [goloop.go(watch, ctx, when, kind) for ctx, when, _, kind in tree[1:]]:
        g.join()
    testing.wait()
    assert sorted(after) == sorted(n for n, when in ends.items() if when != never)


# -------------------------------------------------------------------------- errgroup
def errgroup_program(rng):
    """The first error is what wait() raises and cancels the context; never more than the limit run at once."""
    limit, count = rng.randrange(1, 4), rng.randrange(1, 8)
    group, ctx = errgroup.with_context(context.background())
    group.set_limit(limit)
    running, first = [0], []

    class Failed(Exception):
        pass

    def work(n):
        running[0] += 1
        assert running[0] <= limit
        try:
            goloop.sleep(rng.choice((0, 1, 2)))
            if rng.random() < 0.3:
                failure = Failed(n)
                if not first:
                    first.append(failure)
                    assert ctx.err() is None
                raise failure
        finally:
            running[0] -= 1

    for n in range(count):
        group.go(work, n)
    try:
        group.wait()
        raised = None
    except Failed as exc:
        raised = exc
    assert raised is (first[0] if first else None)
    assert ctx.err() is not None and running == [0]


# ----------------------------------------------------------------------------- timer
def timer_program(rng):
    """Timers are set, stopped and moved: each fires at the time that was set last, and nothing of before comes."""
    for _ in range(rng.randrange(1, 4)):
        due, one = rng.choice((1, 2, 3)), None
        begun = monotonic()
        one = timer.Timer(due)
        for _ in range(rng.randrange(5)):
            goloop.sleep(rng.choice((0, 0.5, 1)))
            now = monotonic() - begun
            fired = due is not None and now > due
            undecided = due is not None and now == due
            active = one.stop()
            assert undecided or active is (due is not None and not fired) or (fired and active)
            assert one.chan.try_recv() == (None, False)  # nothing comes after stop()
            due = None
            if rng.random() < 0.7:
                seconds = rng.choice((0.5, 1, 2))
                assert one.reset(seconds) is False
                due = now + seconds
        if due is None:
            with pytest.raises(TimeoutError):
                one.chan.recv(timeout=10)
        else:
            at = one.chan.recv(timeout=10)
            assert at - begun == due and monotonic() - begun >= due
        assert one.stop() is False
    with timer.Ticker(2) as ticker:
        begun, ticks = monotonic(), []
        while len(ticks) < 3:
            goloop.sleep(rng.choice((0, 1, 3)))
            ticks.append(ticker.chan.recv() - begun)
        assert all(at % 2 == 0 for at in ticks) and ticks == sorted(set(ticks))


@pytest.mark.parametrize(
    "program",
    [
        mutex_program,
        rwmutex_program,
        semaphore_program,
        cond_program,
        waitgroup_program,
        once_program,
        context_program,
        errgroup_program,
        timer_program,
    ],
    ids=lambda program: program.__name__,
)
def test_the_model_holds_with_every_schedule(program):
    each_seed(program)
