"""snapshot(): what tasks, goroutines, threads, loops and connections do, and what they wait for."""

import asyncio
import dataclasses
import gc
import json
import os
import pickle
import signal
import sys
import threading
import time
import weakref

import pytest

import goloop
from goloop import debug
from tests.helpers.scripts import run_script
from tests.helpers.waiting import async_until, parked, until


def task_named(name):
    return next(task for task in debug.snapshot().tasks if task.name == name)


def reason_of(name):
    task = task_named(name)
    assert task.state == "waiting"
    return str(task.wait)


def goroutine_of(g):
    return next(one for one in debug.snapshot().goroutines if one.id == g.id)


def until_parked(*goroutines):
    for g in goroutines:
        until(lambda g=g: goroutine_of(g).state == "parked")


def run(main):
    with asyncio.Runner(loop_factory=goloop.Loop) as runner:
        return runner.run(main)


# ------------------------------------------------------------------ goroutines
def kinds():
    chan, mutex, rw, semaphore = goloop.Chan(), goloop.sync.Mutex(), goloop.sync.RWMutex(), goloop.sync.Semaphore(1)
    event, future, group = goloop.sync.Event(), goloop.sync.Future(), goloop.sync.WaitGroup()
    cond = goloop.sync.Cond()
    full = goloop.Chan(1)
    full.send(1)
    mutex.lock()
    rw.lock()
    semaphore.acquire()
    group.add(1)

    def wait_cond():
        with cond:
            cond.wait()

    return {
        "chan receive": chan.recv,
        "chan send": lambda: full.send(2),
        "select": lambda: goloop.select(goloop.recv(chan), goloop.send(full, 1)),
        "mutex lock": mutex.lock,
        "rwmutex lock": rw.lock,
        "rwmutex rlock": rw.rlock,
        "semaphore acquire": semaphore.acquire,
        "Event.wait()": event.wait,
        "Future.result()": future.result,
        "waitgroup wait": group.wait,
        "cond wait": wait_cond,
        "sleep": lambda: goloop.sleep(1000),
    }


@pytest.mark.parametrize("kind", kinds())
def test_a_parked_goroutine_has_a_reason_and_a_time_and_a_stack(kind):
    g = goloop.go(kinds()[kind])
    until_parked(g)
    found = goroutine_of(g)
    assert found.wait.kind == kind
    assert 0 <= debug.snapshot().age(found.since) < 60
    assert (found.wait.until is not None) == (kind == "sleep")
    assert found.creator[-1].file == __file__
    g.cancel()
    with pytest.raises(asyncio.CancelledError):
        g.join()


def test_what_is_waited_for_stands_there_with_its_waiters():
    chan = goloop.Chan(3)
    chan.send(1)
    empty = goloop.Chan()
    waiting = [goloop.go(lambda: goloop.select(goloop.recv(empty))) for _ in range(3)]
    full = goloop.go(lambda: [chan.send(n) for n in range(3)])
    until_parked(full, *waiting)
    found = debug.snapshot()
    by_kind = {len(thing.waiters): thing for thing in found.primitives if thing.kind == "Chan"}
    assert by_kind[3].detail == "unbuffered"
    assert by_kind[1].detail == "3 of 3 in the buffer"
    assert by_kind[1].waiters == (f"goroutine-{full.id}",)
    assert goroutine_of(full).wait.on == (by_kind[1].key,)
    for g in [full, *waiting]:
        g.cancel()


def test_the_holder_of_a_lock_is_named_also_when_it_has_ended():
    mutex = goloop.sync.Mutex()
    first = goloop.go(mutex.lock)
    first.join()
    second = goloop.go(mutex.lock)
    until_parked(second)
    (thing,) = debug.snapshot().primitives
    assert thing.holders == (f"goroutine-{first.id}",)
    assert thing.held_by == f"goroutine {first.id}, which has ended"
    mutex.unlock()
    second.join()
    third = goloop.go(mutex.lock)
    until_parked(third)
    assert debug.snapshot().primitives[0].held_by == f"goroutine {second.id}, which has ended"
    mutex.unlock()
    third.join()


def test_a_thread_and_a_task_are_named_as_holders():
    async def main():
        mutex, other = goloop.sync.Mutex(), goloop.sync.Mutex()
        await asyncio.to_thread(other.lock)
        async with mutex:
            one = await parked(asyncio.wait_for(mutex.async_lock(), 1000))
            two = await parked(other.async_lock())
            names = {thing.held_by for thing in debug.snapshot().primitives if thing.kind == "Mutex"}
            assert names == {f"task {asyncio.current_task().get_name()[5:]}", "thread asyncio_0"}
            one.cancel()
            two.cancel()

    run(main())


def test_a_running_goroutine_is_running_and_one_in_a_blocking_call_says_so():
    begun, ready = threading.Event(), threading.Event()

    def compute():
        begun.set()
        while not ready.is_set():
            pass

    def block():
        with goloop.blocking():
            begun.set()
            ready.wait()

    for function, state in ((compute, "running"), (block, "blocked")):
        begun.clear()
        ready.clear()
        g = goloop.go(function)
        begun.wait()
        found = goroutine_of(g)
        assert found.state == state
        assert function.__name__ in {frame.function.rpartition(".")[2] for frame in found.stack}
        ready.set()
        g.join()


def test_the_goroutines_are_listed_with_what_each_waits_for():
    chan = goloop.Chan()
    g = goloop.go(chan.recv)
    until(lambda: g.waiting_for is chan)
    assert g in goloop.goroutines()
    assert 0 <= time.monotonic() - g.waiting_since < 60
    chan.send(1)
    g.join()
    assert (g.waiting_for, g.waiting_since) == (None, None)
    assert g not in goloop.goroutines()


def test_a_coroutine_goroutine_waits_as_its_task_does():
    async def wait(event):
        await event.wait()

    async def main():
        event = goloop.sync.Event()

        async def work():
            await event.async_wait()

        g = goloop.go(work)
        await async_until(lambda: g.state == "await")
        found = goroutine_of(g)
        assert (found.state, str(found.wait)) == ("parked", "Event.async_wait()")
        assert found.task in {task.key for task in debug.snapshot().tasks}
        assert g.waiting_since is not None and g.waiting_for is not None
        event.set()
        await g

    run(main())


def test_a_plain_thread_that_waits_has_its_reason():
    chan = goloop.Chan()
    thread = threading.Thread(target=chan.recv, name="receiver")
    thread.start()

    def found():
        return next(one for one in debug.snapshot().threads if one.name == "receiver")

    until(lambda: found().wait is not None)
    assert str(found().wait) == "chan receive"
    chan.send(1)
    thread.join()


# ----------------------------------------------------------------------- tasks
async def until_closed(reader, writer):
    await reader.read()
    writer.close()


def test_the_reasons_of_tasks_that_wait_in_asyncio():
    async def main():
        lock, event, queue, condition = asyncio.Lock(), asyncio.Event(), asyncio.Queue(), asyncio.Condition()
        full = asyncio.Queue(1)
        full.put_nowait(1)
        semaphore = asyncio.Semaphore(0)
        server = await asyncio.start_server(until_closed, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        process = await asyncio.create_subprocess_exec("sleep", "1000")
        stop = threading.Event()
        await lock.acquire()

        async def wait_condition():
            async with condition:
                await condition.wait()

        async def joining():
            await inner

        async def gathering():
            await asyncio.gather(joining(), joining())

        inner = asyncio.create_task(asyncio.sleep(1000), name="inner")
        expected = {
            "lock": (lock.acquire(), "lock"),
            "event": (event.wait(), "event wait"),
            "queue": (queue.get(), "queue get (empty)"),
            "put": (full.put(2), "queue put (1 of 1)"),
            "join": (full.join(), "queue join (1 of 1)"),
            "semaphore": (semaphore.acquire(), "semaphore acquire"),
            "condition": (wait_condition(), "condition wait"),
            "read": (reader.readline(), f"IO read 127.0.0.1:{port}"),
            "process": (process.wait(), f"process {process.pid}"),
            "sleep": (asyncio.sleep(1000), "sleep"),
            "task": (joining(), "task inner"),
            "gather": (gathering(), "gather"),
            "wait": (asyncio.wait([inner]), "wait"),
            "serve": (server.serve_forever(), "serve"),
            "thread": (asyncio.to_thread(stop.wait), "executor Event.wait threading.py"),
        }
        tasks = [asyncio.create_task(coroutine, name=name) for name, (coroutine, _) in expected.items()]
        try:
            await asyncio.sleep(0.05)
            await async_until(lambda: "Event.wait" in reason_of("thread"))
            found = {name: reason_of(name) for name in expected}
            found["thread"] = found["thread"].partition(":")[0]
            assert found == {name: reason for name, (_, reason) in expected.items()}
            for name in expected:
                assert 0 <= debug.snapshot().age(task_named(name).since) < 60
            assert task_named("sleep").wait.until > time.monotonic() + 500
        finally:
            stop.set()
            process.kill()
            for task in [*tasks, inner]:
                task.cancel()
            writer.close()  # first: from 3.12 on the end of serve_forever() waits for the connections
            await asyncio.wait([*tasks, inner])
            await async_until(lambda: not debug.snapshot().connections)
            server.close()
            await process.wait()

    run(main())


def test_the_chain_of_a_task_is_its_stack_outermost_first():
    async def inner():
        await asyncio.get_running_loop().create_future()

    async def outer():
        await inner()

    async def main():
        task = await parked(outer())
        found = next(one for one in debug.snapshot().tasks if one.coroutine.endswith("outer"))
        assert [frame.function.rpartition(".")[2] for frame in found.stack] == ["outer", "inner"]
        assert str(found.wait).startswith("future in ") and str(found.wait).endswith("inner")
        task.cancel()

    run(main())


def test_tasks_say_whether_they_run_or_are_ready_or_have_not_begun():
    async def main():
        waiting = await parked(asyncio.sleep(1000))
        fresh = asyncio.create_task(asyncio.sleep(1000), name="fresh")
        waiting.cancel()
        states = {task.name: task.state for task in debug.snapshot().tasks}
        assert states["fresh"] == "not started"
        assert states[waiting.get_name()] == "ready"
        assert states[asyncio.current_task().get_name()] == "running"
        fresh.cancel()

    run(main())


def test_an_async_generator_is_part_of_the_chain():
    async def numbers():
        await asyncio.get_running_loop().create_future()
        yield 1

    async def consume():
        async for _ in numbers():
            pass

    async def main():
        task = await parked(consume())
        found = next(one for one in debug.snapshot().tasks if one.coroutine.endswith("consume"))
        assert [frame.function.rpartition(".")[2] for frame in found.stack] == ["consume", "numbers"]
        task.cancel()
        await asyncio.wait([task])

    run(main())


def test_tasks_of_asyncios_own_loop_are_there_as_well():
    async def main():
        task = await parked(asyncio.sleep(1000))
        found = debug.snapshot()
        mine = next(one for one in found.tasks if one.name == task.get_name())
        assert str(mine.wait) == "sleep"
        assert any(loop.key == mine.loop and "asyncio" in loop.kind for loop in found.loops)
        task.cancel()

    with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
        runner.run(main())


# ----------------------------------------------------------------- other things
def test_servers_and_connections_are_listed_with_their_bytes():
    async def main():
        got = asyncio.Event()

        async def serve(reader, writer):
            await reader.readexactly(5)
            got.set()
            await reader.read()
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"hello")
        await got.wait()
        found = debug.snapshot()
        (listening,) = found.servers
        assert (listening.kind, listening.addresses, listening.connections) == ("tcp", (f"127.0.0.1:{port}",), 1)
        accepted = next(one for one in found.connections if one.server == listening.key)
        client = next(one for one in found.connections if one.peer == f"127.0.0.1:{port}")
        assert (accepted.received, client.sent) == (5, 5)
        assert accepted.protocol == "StreamReaderProtocol"
        assert 0 <= found.age(client.since) < 60
        writer.close()
        await async_until(lambda: not debug.snapshot().connections)
        server.close()
        await server.wait_closed()

    run(main())


def test_a_child_process_an_executor_and_a_timer_are_listed():
    async def main():
        loop = asyncio.get_running_loop()
        stop = threading.Event()
        job = loop.run_in_executor(None, stop.wait)
        timer = loop.call_later(1000, stop.set)
        child = await asyncio.create_subprocess_exec("sleep", "1000")
        await async_until(lambda: debug.snapshot().executors[0].running)
        found = debug.snapshot()
        assert [(one.pid, one.program) for one in found.children] == [(child.pid, "sleep")]
        assert [one.callback for one in found.timers] == ["Event.set"]
        assert found.executors[0].running[0].startswith("Event.wait threading.py:")
        timer.cancel()
        stop.set()
        await job
        child.kill()
        await child.wait()

    run(main())


def test_a_stuck_loop_is_seen_from_another_thread_with_what_it_runs():
    stuck, free = threading.Event(), threading.Event()

    def block_the_loop():
        stuck.set()
        free.wait()

    async def main():
        block_the_loop()

    thread = threading.Thread(target=lambda: run(main()))
    thread.start()
    stuck.wait()
    found = next(loop for loop in debug.snapshot().loops if loop.thread == thread.ident)
    task = next(task for task in debug.snapshot().tasks if task.key == found.task)
    free.set()
    thread.join()
    assert (found.state, task.state) == ("running", "running")
    assert "block_the_loop" in [frame.function.rpartition(".")[2] for frame in found.stack]
    assert task.stack[0].function.endswith("main")


# --------------------------------------------------------------------- the form
def test_a_snapshot_is_plain_data():
    async def main():
        task = await parked(asyncio.sleep(1000))
        found = debug.snapshot()
        text = json.dumps(found.to_dict())
        assert json.loads(text)["format"] == 1
        again = pickle.loads(pickle.dumps(found))
        assert again.to_dict() == found.to_dict()
        with pytest.raises(dataclasses.FrozenInstanceError):
            found.tasks[0].name = "other"
        task.cancel()

    run(main())


def test_a_snapshot_keeps_nothing_alive():
    class Argument:
        pass

    def wait(chan, argument):
        chan.recv()

    chan, argument = goloop.Chan(), Argument()
    alive = weakref.ref(argument)
    g = goloop.go(wait, chan, argument)
    del argument
    until_parked(g)
    found = debug.snapshot()
    assert g.id in [one.id for one in found.goroutines]
    chan.send(1)
    g.join()
    del g
    gc.collect()
    assert alive() is None
    assert found.problems == ()


def test_no_code_of_the_program_runs():
    seen = []

    class Loud:
        def __getattribute__(self, name):
            seen.append(name)
            return object.__getattribute__(self, name)

        def __repr__(self):
            seen.append("repr")
            return "Loud()"

        def __call__(self):
            goloop.sleep(1000)

    async def main():
        task = await parked(wait(Loud()))
        del seen[:]
        found = debug.snapshot()
        assert (seen, found.problems) == ([], ())
        assert goroutine_of(g).function.endswith("Loud")
        task.cancel()

    async def wait(loud):
        loud()
        await asyncio.sleep(1000)

    g = goloop.go(Loud())
    until_parked(g)
    Loud.__call__ = lambda self: None
    run(main())
    g.cancel()


def test_it_works_in_a_finalizer_and_in_a_signal_handler():
    got = []

    class Last:
        def __del__(self):
            got.append(debug.snapshot())

    before = signal.signal(signal.SIGUSR1, lambda *_: got.append(debug.snapshot()))
    try:
        os.kill(os.getpid(), signal.SIGUSR1)
        until(lambda: got)
    finally:
        signal.signal(signal.SIGUSR1, before)
    Last()
    assert [found.problems for found in got] == [(), ()]


def test_it_works_in_both_processes_of_a_fork_and_at_exit():
    status, out, err = run_script("""
        import atexit, os, warnings
        import goloop
        from goloop import debug

        warnings.simplefilter("ignore")  # of a fork with threads
        chan = goloop.Chan()
        g = goloop.go(chan.recv)
        while g.state != "chan receive":
            goloop.sleep(0.001)
        os.register_at_fork(
            before=lambda: print("before", len(debug.snapshot().goroutines), flush=True),
            after_in_child=lambda: print("child", debug.snapshot().problems, flush=True),
        )
        pid = os.fork()
        if pid == 0:
            os._exit(len(debug.snapshot().goroutines))
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
        atexit.register(lambda: print("exit", debug.snapshot().problems))
    """)
    lines = sorted(out.split("\n"))
    assert (status, lines) == (0, ["", "0", "before 1", "child ()", "exit ()"]), err


def test_many_are_seen_at_once_while_they_come_and_go():
    stop = threading.Event()
    problems = []

    def look():
        while not stop.is_set():
            problems.extend(debug.snapshot().problems)

    async def churn(n):
        for _ in range(n):
            await asyncio.sleep(0)
            await goloop.go(lambda: goloop.sleep(0))

    async def main():
        await asyncio.gather(*(churn(30) for _ in range(30)))

    threads = [threading.Thread(target=look) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        run(main())
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert problems == []


def test_a_hundred_thousand_tasks_are_counted():
    async def main():
        n = 100_000
        future = asyncio.get_running_loop().create_future()

        async def wait():
            await asyncio.shield(future)

        tasks = [asyncio.create_task(wait()) for _ in range(n)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert sum(task.state == "waiting" for task in debug.snapshot().tasks) == n
        future.set_result(None)
        await asyncio.gather(*tasks)

    run(main())


@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks came with Python 3.12")
def test_eager_tasks_are_listed():
    async def main():
        loop = asyncio.get_running_loop()
        loop.set_task_factory(asyncio.eager_task_factory)
        task = asyncio.create_task(asyncio.sleep(1000), name="eager")
        assert str(task_named("eager").wait) == "sleep"
        task.cancel()

    run(main())


def test_a_listener_of_goloop_net_is_listed_while_a_goroutine_waits_for_it():
    with goloop.net.listen("tcp", "127.0.0.1:0") as listener:
        g = goloop.go(listener.accept)
        until_parked(g)
        assert str(goroutine_of(g).wait) == "IO wait"
        found = debug.snapshot().connections
        assert [(one.kind, one.local) for one in found] == [("goloop.net tcp", listener.addr)]
    with pytest.raises(goloop.errors.ClosedError):
        g.join()
