"""The locks of goloop.sync, from goroutines, coroutines and plain threads: who gets them, and who does not."""

import asyncio
import contextlib
import random
import signal
import threading

import pytest

import goloop
from goloop.sync import Mutex, RWMutex, Semaphore
from tests.helpers.actors import InAsyncioCoroutine, InCoroutine, InGoroutine, InThread, start
from tests.helpers.waiting import SECONDS, until


class Side:
    """A lock and how to take it: the same names for all of them."""

    def __init__(self, make, lock, async_lock, try_lock, unlock, waiting):
        self.of = make()
        self.lock = getattr(self.of, lock)
        self.async_lock = getattr(self.of, async_lock)
        self.try_lock = getattr(self.of, try_lock)
        self.unlock = getattr(self.of, unlock)
        self.waiting = waiting


LOCKS = {
    "Mutex": (Mutex, "lock", "async_lock", "try_lock", "unlock", "{} waiting"),
    "writer": (RWMutex, "lock", "async_lock", "try_lock", "unlock", "{} to write"),
    "Semaphore": (lambda: Semaphore(1), "acquire", "async_acquire", "try_acquire", "release", "{} waiting"),
    "rlocker": (lambda: RWMutex().rlocker(), "lock", "async_lock", "try_lock", "unlock", "{} waiting to read"),
}


@pytest.fixture(params=["Mutex", "writer", "Semaphore"])
def side(request):
    return Side(*LOCKS[request.param])


def waiting(side, n):
    until(lambda: side.waiting.format(n) in repr(side.of))


def queue(side, kinds):
    """Actors of these kinds that wait for the lock one after the other; each notes its number and unlocks."""
    order = []

    def plain(i):
        side.lock()
        order.append(i)
        side.unlock()

    async def coroutine(i):
        await side.async_lock()
        order.append(i)
        side.unlock()

    actors = []
    for i, kind in enumerate(kinds):
        actors.append(kind(coroutine if issubclass(kind, InCoroutine) else plain, (i,)))
        waiting(side, i + 1)
    return actors, order


KINDS = [InGoroutine, InThread, InCoroutine, InAsyncioCoroutine]


# ------------------------------------------------------------------------- locks
def test_handed_over_in_order_to_every_kind_of_actor(side):
    side.lock()
    actors, order = queue(side, KINDS * 2)
    side.unlock()
    for actor in actors:
        actor.join()
    assert order == list(range(8))
    assert side.try_lock()


def test_nobody_overtakes(side):
    side.lock()
    actors, order = queue(side, [InThread])
    side.unlock()
    # It was handed over to the thread at that moment, whether it has noticed or not.
    if side.try_lock():
        assert order == [0]
        side.unlock()
    actors[0].join()


def test_unlock_of_what_is_not_locked(side):
    with pytest.raises(RuntimeError, match=r"unlock|held"):
        side.unlock()
    side.lock()
    side.unlock()
    with pytest.raises(RuntimeError, match=r"unlock|held"):
        side.unlock()
    assert side.try_lock()


def test_try_lock(side):
    assert side.try_lock() is True
    assert side.try_lock() is False
    assert side.of.locked
    side.unlock()
    assert not side.of.locked


def test_another_one_may_unlock(side):
    side.lock()
    goloop.go(side.unlock).join()
    assert side.try_lock()


@pytest.mark.parametrize("kind", KINDS)
def test_a_timeout(side, kind):
    side.lock()

    async def coroutine():
        with pytest.raises(TimeoutError):
            await side.async_lock(timeout=0.01)

    def plain():
        with pytest.raises(TimeoutError):
            side.lock(timeout=0.01)

    kind(coroutine if issubclass(kind, InCoroutine) else plain, ()).join()
    waiting(side, 0)
    side.unlock()
    assert side.try_lock()


def test_bad_timeouts(side):
    with pytest.raises(ValueError, match="NaN"):
        side.lock(timeout=float("nan"))
    with pytest.raises(TypeError):
        side.lock(timeout="soon")
    assert side.try_lock()
    with pytest.raises(TimeoutError):
        side.lock(timeout=-1)


@pytest.mark.parametrize("kind", [InGoroutine, InCoroutine, InAsyncioCoroutine])
def test_a_waiter_that_is_cancelled_leaves_the_line(side, kind):
    side.lock()

    async def coroutine():
        await side.async_lock()

    actor = kind(coroutine if issubclass(kind, InCoroutine) else side.lock, ())
    waiting(side, 1)
    actor.cancel()
    with pytest.raises(asyncio.CancelledError):
        actor.join()
    waiting(side, 0)
    side.unlock()
    assert side.try_lock()


def test_the_blocking_form_on_a_loops_thread(side):
    async def main():
        with pytest.raises(RuntimeError, match=r"would block the event loop: use await .*async_(lock|acquire)"):
            side.lock()
        with pytest.raises(RuntimeError, match="async with"), side.of:
            pass

    goloop.run(main())
    assert side.try_lock()


def test_a_coroutine_cancelled_when_it_was_just_given_the_lock(side):
    async def main():
        side.lock_ = await side.async_lock()
        task = asyncio.ensure_future(side.async_lock())
        behind = asyncio.ensure_future(side.async_lock())
        await asyncio.sleep(0)
        side.unlock()
        assert not side.try_lock()  # it is the task's already, though that has not run
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await behind  # it was passed on

    goloop.run(main())


def test_wait_for_loses_no_lock(side):
    # Up to 3.11 wait_for() runs what it waits for in a task of its own, whose late cancellation drops its result.
    async def main():
        for _ in range(50):
            await side.async_lock()
            waiter = asyncio.ensure_future(asyncio.wait_for(side.async_lock(), SECONDS))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            side.unlock()
            waiter.cancel()
            try:
                await waiter
            except asyncio.CancelledError:
                pass
            else:
                side.unlock()
            assert side.try_lock()
            side.unlock()

    goloop.run(main())


def test_a_goroutine_cancelled_when_it_was_just_given_the_lock_keeps_it(side):
    def body():
        waiter = goloop.go(locks)
        while waiter.state in ("not started", "running", "runnable"):
            goloop.sleep(0.0005)
        side.unlock()
        waiter.cancel()
        return waiter

    reached = []

    def locks():
        side.lock()
        try:
            reached.append(True)
            goloop.sleep(0)
        finally:
            side.unlock()

    side.lock()
    waiter = goloop.go(body).result()
    with pytest.raises(asyncio.CancelledError):
        waiter.join()
    assert reached == [True]
    assert side.try_lock()


def test_a_waiting_coroutine_that_is_thrown_away(side):
    side.lock()
    loop = asyncio.SelectorEventLoop()
    coroutine = side.async_lock()

    async def main():
        coroutine.send(None)

    loop.run_until_complete(main())
    waiting(side, 1)
    side.unlock()  # hands it over
    coroutine.close()
    loop.close()
    assert side.try_lock()


def test_a_waiter_whose_loop_is_closed_is_passed_over(side):
    side.lock()
    loop = asyncio.SelectorEventLoop()
    coroutine = side.async_lock()

    async def main():
        coroutine.send(None)

    loop.run_until_complete(main())
    loop.close()
    behind = InThread(side.lock, ())
    waiting(side, 2)
    side.unlock()
    behind.join()
    coroutine.close()  # it was given the lock for a moment, and must not pass it on now
    assert not side.try_lock()


def test_passed_on_once_by_one_that_is_cancelled_while_its_loop_closes(side):
    side.lock()
    loop = asyncio.SelectorEventLoop()
    task = loop.create_task(side.async_lock())
    loop.run_until_complete(asyncio.sleep(0))
    behind = InThread(side.lock, ())
    waiting(side, 2)
    last = InThread(side.lock, ())
    waiting(side, 3)

    def closes(*args):
        # What other threads do between the choice of the coroutine and its wake-up.
        task.cancel()
        loop.run_until_complete(asyncio.wait([task]))
        loop.close()
        raise RuntimeError("Event loop is closed")

    loop.call_soon_threadsafe = closes
    side.unlock()
    behind.join()
    assert task.cancelled()
    waiting(side, 1)  # `behind` has it
    side.unlock()
    last.join()
    side.unlock()
    assert side.try_lock()


def test_an_interrupted_thread_leaves_the_line(side):
    side.lock()
    main = threading.main_thread().ident
    actor = InThread(lambda: (waiting(side, 1), signal.pthread_kill(main, signal.SIGINT)), ())
    with pytest.raises(KeyboardInterrupt):
        side.lock()
    actor.join()
    waiting(side, 0)
    side.unlock()
    assert side.try_lock()


def test_with(side):
    with side.of:
        assert side.of.locked
    assert not side.of.locked
    with pytest.raises(ZeroDivisionError), side.of:
        raise ZeroDivisionError
    assert not side.of.locked

    async def main():
        async with side.of:
            assert side.of.locked
        with pytest.raises(ZeroDivisionError):
            async with side.of:
                raise ZeroDivisionError
        assert not side.of.locked

    goloop.run(main())


# ------------------------------------------------------------------------ stress
class World:
    """What holds while somebody is inside."""

    def __init__(self, limit):
        self.limit = limit  # of the weight inside
        self.guard = threading.Lock()  # readers come and go at once
        self.inside = 0
        self.entries = 0

    def change(self, weight):
        with self.guard:
            self.inside += weight
            self.entries += 1
            assert 0 <= self.inside <= self.limit

    @contextlib.contextmanager
    def enter(self, weight):
        self.change(weight)
        try:
            yield
        finally:
            self.change(-weight)


def ways(name, lock, rng):
    """A random way to take it: (blocking form, coroutine form, release, weight)."""
    if name == "Semaphore":
        n = rng.choice([1, 1, 1, 2, 5])
        return (lambda t: lock.acquire(n, t)), (lambda t: lock.async_acquire(n, t)), (lambda: lock.release(n)), n
    if name == "RWMutex" and rng.random() < 0.7:
        return lock.rlock, lock.async_rlock, lock.runlock, 1
    return lock.lock, lock.async_lock, lock.unlock, 100


def a_pause(rng):
    chance = rng.random()
    return 0 if chance < 0.5 else 0.0002 if chance < 0.6 else None


def goes_in(name, lock, world, seed, rounds):
    rng = random.Random(seed)
    for _ in range(rounds):
        take, _, release, weight = ways(name, lock, rng)
        try:
            take(rng.choice([None, None, None, 0, 0.0005]))
        except TimeoutError:
            continue
        try:
            with world.enter(weight):
                pause = a_pause(rng)
                if pause is not None:
                    goloop.sleep(pause)
        finally:
            release()


async def goes_in_async(name, lock, world, seed, rounds):
    rng = random.Random(seed)
    for _ in range(rounds):
        _, take, release, weight = ways(name, lock, rng)
        try:
            if rng.random() < 0.2:
                async with asyncio.timeout(0.0005):
                    await take(None)
            else:
                await take(rng.choice([None, None, None, 0, 0.0005]))
        except TimeoutError:
            continue
        try:
            with world.enter(weight):
                pause = a_pause(rng)
                if pause is not None:
                    await asyncio.sleep(pause)
        finally:
            release()


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    ("name", "make", "limit"),
    [("Mutex", Mutex, 100), ("RWMutex", RWMutex, 100), ("Semaphore", lambda: Semaphore(6), 6)],
)
def test_under_stress_a_lock_keeps_its_limit_and_everybody_gets_it(name, make, limit, seed):
    rng = random.Random(seed)
    procs = goloop.gomaxprocs(4)
    try:
        lock = make()
        world = World(limit)
        actors = []
        for i in range(24):
            kind = rng.choice([InGoroutine, InGoroutine, InThread, InCoroutine, InAsyncioCoroutine])
            body = goes_in_async if issubclass(kind, InCoroutine) else goes_in
            actors.append(kind(body, (name, lock, world, f"{seed} {i}", 40)))
        # Some are cancelled on the way, at moments of no meaning to the lock.
        victims = [a for a in actors if not isinstance(a, InThread)][::2]
        for actor in victims:
            goloop.sleep(rng.random() * 0.002)
            with contextlib.suppress(AttributeError, RuntimeError):  # it is done
                actor.cancel()
        for actor in actors:
            with contextlib.suppress(asyncio.CancelledError):
                actor.join()
    finally:
        goloop.gomaxprocs(procs)
    assert world.inside == 0
    assert world.entries > 80
    take, _, release, _ = ways("Mutex", lock, rng) if name != "Semaphore" else (None, None, None, None)
    if name == "Semaphore":
        assert lock.held == 0
        assert lock.try_acquire(6)
        lock.release(6)
    else:
        take(0)
        release()
    assert " 0 waiting" in repr(lock)


# ---------------------------------------------------------------------- RWMutex
def reading(rw, n):
    until(lambda: f"{n} waiting to read" in repr(rw))


def writing(rw, n):
    until(lambda: f"{n} to write" in repr(rw))


def test_readers_share():
    rw = RWMutex()
    rw.rlock()
    with rw.rlocker():
        assert rw.readers == 2 and not rw.locked
        assert not rw.try_lock()
        with pytest.raises(TimeoutError):
            rw.lock(timeout=0)
    rw.runlock()
    with rw:
        assert rw.locked and not rw.try_rlock()
    with pytest.raises(RuntimeError, match="runlock"):
        rw.runlock()
    with pytest.raises(RuntimeError, match="lock"):
        rw.unlock()
    rw.rlock()
    with pytest.raises(RuntimeError, match="rlock"):
        rw.unlock()


def test_a_waiting_writer_keeps_new_readers_out_and_then_they_come_before_the_next_writer():
    rw = RWMutex()
    order = []

    def writer(name):
        with rw:
            order.append(name)

    async def reader():
        async with rw.rlocker():
            order.append("reader")

    rw.rlock()
    first = InGoroutine(writer, ("first",))
    writing(rw, 1)
    assert not rw.try_rlock()
    readers = [start(reader), start(reader)]
    reading(rw, 2)
    second = InThread(writer, ("second",))
    writing(rw, 2)
    rw.runlock()
    for actor in [first, *readers, second]:
        actor.join()
    assert order == ["first", "reader", "reader", "second"]


@pytest.mark.parametrize("kind", [InGoroutine, InCoroutine])
def test_a_writer_that_gives_up_lets_the_readers_in(kind):
    rw = RWMutex()
    rw.rlock()

    async def coroutine():
        await rw.async_lock()

    writer = kind(coroutine if kind is InCoroutine else rw.lock, ())
    writing(rw, 1)
    reader = InThread(rw.rlock, ())
    reading(rw, 1)
    writer.cancel()
    with pytest.raises(asyncio.CancelledError):
        writer.join()
    reader.join()
    assert rw.readers == 2


def test_a_writer_whose_time_is_over_lets_the_readers_in():
    rw = RWMutex()
    rw.rlock()
    writer = InThread(rw.lock, (0.05,))
    writing(rw, 1)
    reader = InThread(rw.rlock, ())
    with pytest.raises(TimeoutError):
        writer.join()
    reader.join()
    assert rw.readers == 2


def test_an_rlocker_is_a_lock():
    side = Side(*LOCKS["rlocker"])
    assert side.try_lock() and side.try_lock()
    side.unlock()
    side.unlock()
    with pytest.raises(RuntimeError, match="runlock"):
        side.unlock()
    with pytest.raises(TypeError, match="rlocker"):
        type(side.of)()


# -------------------------------------------------------------------- Semaphore
def test_many_places_are_not_overtaken_by_few():
    semaphore = Semaphore(4)
    semaphore.acquire(3)
    order = []

    def takes(n):
        semaphore.acquire(n)
        order.append(n)

    many = InGoroutine(takes, (4,))
    until(lambda: "1 waiting" in repr(semaphore))
    assert semaphore.locked
    assert not semaphore.try_acquire(1)  # one is free, but not for those who come later
    few = InThread(takes, (1,))
    until(lambda: "2 waiting" in repr(semaphore))
    semaphore.release(3)
    many.join()
    assert order == [4]
    semaphore.release(4)
    few.join()
    assert order == [4, 1] and semaphore.held == 1


def test_a_waiter_for_many_that_gives_up_lets_those_behind_through():
    semaphore = Semaphore(4)
    semaphore.acquire(3)
    many = InGoroutine(semaphore.acquire, (4,))
    until(lambda: "1 waiting" in repr(semaphore))
    few = InThread(semaphore.acquire, (1,))
    until(lambda: "2 waiting" in repr(semaphore))
    many.cancel()
    few.join()
    with pytest.raises(asyncio.CancelledError):
        many.join()
    assert semaphore.held == 4


def test_a_release_wakes_as_many_as_it_has_places_for():
    semaphore = Semaphore(6)
    semaphore.acquire(6)
    actors = [InGoroutine(semaphore.acquire, (n,)) for n in (1, 2, 2)]
    until(lambda: "3 waiting" in repr(semaphore))
    semaphore.release(5)
    for actor in actors:
        actor.join()
    assert semaphore.held == 6


def test_misuse_of_a_semaphore():
    with pytest.raises(ValueError, match="at least 1"):
        Semaphore(0)
    with pytest.raises(TypeError):
        Semaphore(1.5)
    semaphore = Semaphore(2)
    with pytest.raises(ValueError, match="never 3"):
        semaphore.acquire(3)
    with pytest.raises(ValueError, match="never 3"):
        semaphore.try_acquire(3)
    with pytest.raises(ValueError, match="negative"):
        semaphore.release(-1)
    with pytest.raises(TypeError):
        semaphore.acquire("1")
    semaphore.acquire()
    with pytest.raises(RuntimeError, match="of which 1 are held"):
        semaphore.release(2)
    semaphore.acquire(0)
    assert semaphore.held == 1 and semaphore.size == 2
