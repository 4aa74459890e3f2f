"""Deadlocks: who is told that nothing can wake anything, who is not, and the circles of waits in a snapshot."""

import asyncio
import logging
import random
import re
import threading

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import goloop
from goloop import debug
from goloop.debug import _circles, _lookout
from tests.helpers.scripts import run_script
from tests.helpers.waiting import async_until, until

PROGRAMS = {
    "join": "goloop.go(chan.recv).join()",
    "receive": "chan.recv()",
    "mutex": "goloop.go(lambda: (mutex.lock(), mutex.lock())).join()",
    "run": "goloop.run(awaiting())",
    "task": "goloop.run(tasks())",
    "idle executor": "goloop.run(executor())",
}
PRELUDE = """
    import asyncio, os, signal, socket, sys, threading, time
    import goloop
    from goloop.errors import DeadlockError

    chan, mutex = goloop.Chan(), goloop.sync.Mutex()

    async def awaiting():
        try:
            await goloop.go(chan.recv)
        finally:
            print("cleaned up")

    async def tasks():
        lock = asyncio.Lock()
        async with lock:
            async with lock:
                pass

    async def executor():
        await asyncio.to_thread(int)
        await goloop.go(chan.recv)
"""


@pytest.mark.parametrize("name", PROGRAMS)
def test_whoever_waits_gets_a_deadlock_error_with_the_dump(name):
    status, out, err = run_script(f"""
    {PRELUDE}
    try:
        {PROGRAMS[name]}
    except DeadlockError as exc:
        print(exc)
    """)
    assert status == 0, err
    assert "all goroutines and tasks are asleep, and nothing can ever wake them" in out
    assert re.search(r"chan receive|mutex lock|\[lock", out)
    assert ("cleaned up" in out) == (name == "run")


WAKERS = {
    "a timer": "goloop.timer.after_func(4, chan.send, 1)",
    "a sleeping goroutine": "goloop.go(lambda: (goloop.sleep(4), chan.send(1)))",
    "a goroutine in a call": "goloop.go(lambda: (time.sleep(4), chan.send(1)))",
    "a thread": "threading.Thread(target=lambda: (time.sleep(4), chan.send(1))).start()",
    "a timeout": "goloop.go(late)",
    "a signal handler": "signal.signal(signal.SIGALRM, lambda *_: goloop.go(chan.send, 1)); signal.alarm(4)",
    "a descriptor": "goloop.go(accept)",
    "another loop": "threading.Thread(target=asyncio.run, args=(later(),)).start()",
}


@pytest.mark.parametrize("name", WAKERS)
@pytest.mark.parametrize("wait", ["chan.recv()", "goloop.go(chan.recv).join()", "goloop.run(chan.async_recv())"])
def test_nobody_is_told_while_something_can_wake_them(name, wait):
    status, out, err = run_script(f"""
    {PRELUDE}
    listener = goloop.net.listen("tcp", "127.0.0.1:0")

    def accept():
        listener.accept().close()
        chan.send(1)

    async def later():
        await asyncio.sleep(4)
        await chan.async_send(1)

    def late():
        try:
            goloop.Chan().recv(timeout=4)
        except TimeoutError:
            chan.send(1)

    if {name!r} == "a descriptor":
        # From a process of its own: a thread here would count by itself.
        import subprocess
        host, port = listener.addr.rsplit(":", 1)
        code = f"import socket, time; time.sleep(4); socket.create_connection(({{host!r}}, {{port}}))"
        child = subprocess.Popen([sys.executable, "-c", code])
    {WAKERS[name]}
    {wait}
    print("woken")
    """)
    assert (status, out) == (0, "woken\n"), err


def test_the_main_thread_is_told_and_not_another_one_that_waits_too():
    status, out, err = run_script(f"""
    {PRELUDE}
    def wait():
        try:
            chan.recv()
        except goloop.ChannelClosed:
            print("closed")

    thread = threading.Thread(target=wait)
    thread.start()
    try:
        goloop.Chan().recv()
    except DeadlockError:
        print("told")
        chan.close()
    thread.join()
    """)
    assert (status, out.split()) == (0, ["told", "closed"]), err


# ------------------------------------------------------------------- the circles
def test_a_circle_of_tasks_and_locks_is_named():
    async def main():
        one, two = asyncio.Lock(), asyncio.Lock()

        async def take(first, second):
            async with first:
                await asyncio.sleep(0.01)
                async with second:
                    pass

        tasks = [asyncio.create_task(take(one, two), name="a"), asyncio.create_task(take(two, one), name="b")]
        await async_until(lambda: debug.snapshot().deadlocks)
        (found,) = debug.snapshot().deadlocks
        assert re.fullmatch(r"task (a|b) → lock \w → task (?!\1)(a|b) → lock \w → task \1", found.text)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        assert debug.snapshot().deadlocks == ()

    goloop.run(main())


def test_a_circle_of_joins_is_named():
    handles = {}

    def join(other):
        until(lambda: other in handles)
        handles[other].join()

    handles["one"] = goloop.go(join, "two")
    handles["two"] = goloop.go(join, "one")
    until(lambda: debug.snapshot().deadlocks)
    (found,) = debug.snapshot().deadlocks
    one, two = (f"goroutine {handles[name].id}" for name in ("one", "two"))
    assert found.text in (f"{one} → {two} → {one}", f"{two} → {one} → {two}")
    handles["one"].cancel()
    for name in ("one", "two"):
        with pytest.raises(asyncio.CancelledError):
            handles[name].join()


def test_a_task_that_holds_a_mutex_for_a_goroutine_is_named_as_its_holder():
    async def main():
        mutex = goloop.sync.Mutex()

        async def lock_and_wait():
            async with mutex:
                await asyncio.shield(asyncio.ensure_future(g))

        def lock():
            until(lambda: mutex.locked)
            mutex.lock()

        g = goloop.go(lock)
        task = asyncio.create_task(lock_and_wait(), name="t")
        await async_until(lambda: g.waiting_for is mutex)
        await async_until(lambda: any("goroutine join" in str(one.wait) for one in debug.snapshot().tasks))
        found = debug.snapshot()
        assert found.primitives[0].held_by == "task t"
        task.cancel()
        await asyncio.wait([task])
        await asyncio.wait([asyncio.ensure_future(g)])

    goloop.run(main())


def test_a_wait_that_a_timeout_ends_is_no_deadlock():
    async def main():
        lock = asyncio.Lock()

        async def twice():
            async with lock:
                async with asyncio.timeout(1000):
                    async with lock:
                        pass

        task = asyncio.create_task(twice())
        await async_until(lambda: any(one.wait and one.wait.kind == "lock" for one in debug.snapshot().tasks))
        assert debug.snapshot().deadlocks == ()
        task.cancel()
        await asyncio.wait([task])
        mutex = goloop.sync.Mutex()
        g = goloop.go(lambda: (mutex.lock(), mutex.lock(timeout=1000)))
        await async_until(lambda: g.waiting_since is not None)
        assert debug.snapshot().deadlocks == ()
        g.cancel()
        await asyncio.wait([asyncio.ensure_future(asyncio.shield(g))])

    goloop.run(main())


def test_the_watch_logs_a_circle_once(monkeypatch, caplog):
    monkeypatch.setattr(_lookout, "INTERVAL", 0.01)
    monkeypatch.setattr(_lookout, "_SHARE", 1)
    mutex = goloop.sync.Mutex()

    def lock_twice():
        mutex.lock()
        mutex.lock()

    async def main():
        g = goloop.go(lock_twice)
        await async_until(lambda: "deadlock: " in caplog.text)
        await asyncio.sleep(0.1)
        g.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.shield(g)
        return g.id

    with caplog.at_level(logging.ERROR, "goloop"):
        number = goloop.run(main(), watch=True)
    lines = [record.getMessage() for record in caplog.records if "deadlock" in record.getMessage()]
    assert len(lines) == 1
    assert lines[0].startswith(f"deadlock: goroutine {number} → lock A → goroutine {number}\n")
    assert "lock_twice" in lines[0]
    until(lambda: "goloop-lookout" not in [thread.name for thread in threading.enumerate()])


def reachable(edges, start):
    """All that one comes to from a node, by a walk."""
    found, left = set(), list(edges.get(start, ()))
    while left:
        node = left.pop()
        if node not in found:
            found.add(node)
            left += edges.get(node, ())
    return found


@given(st.dictionaries(st.sampled_from("abcdefgh"), st.lists(st.sampled_from("abcdefgh"), max_size=3)))
def test_there_is_one_circle_for_each_knot_of_a_graph(edges):
    circles = list(_circles.circles(edges))
    for circle in circles:
        assert all(after in edges[node] for node, after in zip(circle, circle[1:] + circle[:1], strict=True))
        assert len(set(circle)) == len(circle)
    knots = {
        frozenset(n for n in reachable(edges, node) if node in reachable(edges, n))
        for node in edges
        if node in reachable(edges, node)
    }
    assert len(circles) == len(knots)
    assert all(any(set(circle) <= knot for circle in circles) for knot in knots)


def model(plans, holds):
    """Who is stuck in a circle when each actor takes its locks in order, one step at a time, in the order `holds`."""
    owner, waits, at = {}, {}, dict.fromkeys(plans, 0)
    for actor in holds:
        if actor in waits or at[actor] >= len(plans[actor]):
            continue
        lock = plans[actor][at[actor]]
        if lock in owner:
            waits[actor] = lock
        else:
            owner[lock] = actor
            at[actor] += 1
    edges = {actor: [owner[lock]] for actor, lock in waits.items()}
    return {
        frozenset(n for n in reachable(edges, node) if node in reachable(edges, n))
        for node in edges
        if node in reachable(edges, node)
    }


@pytest.mark.parametrize("kind", ["goroutines", "tasks"])
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(seed=st.integers(0, 2**32))
def test_random_waits_are_deadlocked_where_a_model_says_so(kind, seed):
    draw = random.Random(seed)
    names = "ABCDE"
    plans = {f"p{i}": draw.sample(names, draw.randint(1, 3)) for i in range(5)}
    for plan in plans.values():
        if draw.random() < 0.1:
            plan.append(plan[0])
    order = [name for name in plans for _ in range(4)]
    draw.shuffle(order)
    expected = model(plans, order)

    async def main():
        found = await (tasks if kind == "tasks" else goroutines)(plans, order)
        assert found == expected

    goloop.run(main())


def circles_of(names):
    return {
        frozenset(names[key] for key in deadlock.members if key in names) for deadlock in debug.snapshot().deadlocks
    }


async def tasks(plans, order):
    locks = {name: asyncio.Lock() for name in "ABCDE"}
    turns = {name: asyncio.Queue() for name in plans}
    steps = []

    async def take(name, plan):
        await turns[name].get()
        if not plan:
            await asyncio.Event().wait()
        async with locks[plan[0]]:
            steps.append(name)
            await take(name, plan[1:])

    actors = {name: asyncio.create_task(take(name, plan), name=name) for name, plan in plans.items()}
    for name in order:
        turns[name].put_nowait(None)
        for _ in range(5):
            await asyncio.sleep(0)
    found = circles_of({task.key: task.name for task in debug.snapshot().tasks if task.name in plans})
    for task in actors.values():
        task.cancel()
    await asyncio.wait(actors.values())
    return found


async def goroutines(plans, order):
    locks = {name: goloop.sync.Mutex() for name in "ABCDE"}
    turns = {name: goloop.Chan(10) for name in plans}

    def take(name, plan):
        for lock in plan:
            turns[name].recv()
            locks[lock].lock()
        goloop.Chan().recv()

    actors = {name: goloop.go(take, name, plan) for name, plan in plans.items()}
    for name in order:
        await turns[name].async_send(None)
        await async_until(lambda: all(g.waiting_since is not None for g in actors.values()))
        await async_until(lambda name=name: len(turns[name]) == 0 or actors[name].waiting_for is not turns[name])
        await async_until(lambda: all(g.waiting_since is not None for g in actors.values()))
    found = circles_of({f"goroutine-{g.id}": name for name, g in actors.items()})
    for g in actors.values():
        g.cancel()
    await asyncio.gather(*(asyncio.shield(g) for g in actors.values()), return_exceptions=True)
    return found
