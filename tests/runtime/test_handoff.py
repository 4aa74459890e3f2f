"""Handoff: a blocking call in a callback parks the callback, and the loop goes on.

Most tests block a callback until another one does something: with any other loop they would never end.
"""

import asyncio
import contextvars
import hashlib
import os
import queue
import select
import signal
import socket
import sqlite3
import sys
import threading
import time

import pytest

import goloop

LONG = 60  # seconds; nothing waits that long


def run(main, **options):
    return goloop.run(main, handoff=True, **options)


def on_main():
    return threading.current_thread() is threading.main_thread()


async def until(condition):
    while not condition():
        await asyncio.sleep(0.001)


def test_a_blocked_task_does_not_stop_the_others():
    event = threading.Event()

    async def blocks():
        return event.wait(LONG)

    async def main():
        task = asyncio.create_task(blocks())
        await asyncio.sleep(0)  # blocks
        event.set()
        assert await task is True
        assert asyncio.get_running_loop()._stats()["handoffs"] == 1

    run(main())


def test_a_blocked_callback_does_not_stop_the_others():
    event = threading.Event()
    got = []

    async def main():
        loop = asyncio.get_running_loop()
        loop.call_soon(lambda: got.append(event.wait(LONG)))
        loop.call_soon(event.set)
        await until(lambda: got)

    run(main())
    assert got == [True]


@pytest.mark.parametrize("count", [2, 30])
def test_as_many_as_you_like_block_at_once(count):
    barrier = threading.Barrier(count)

    async def blocks():
        return barrier.wait(LONG)

    async def main():
        return await asyncio.gather(*(blocks() for _ in range(count)))

    assert sorted(run(main())) == list(range(count))


def test_the_loop_returns_to_its_home_thread():
    event = threading.Event()
    homes = []

    async def blocks():
        event.wait(LONG)

    async def main():
        task = asyncio.create_task(blocks())
        await asyncio.sleep(0)
        homes.append(on_main())
        event.set()
        await task
        await until(on_main)

    run(main())
    assert homes == [False]


def test_task_context_and_loop_are_right_on_both_sides():
    number = contextvars.ContextVar("number")
    barrier = threading.Barrier(5)
    firstiters = []

    async def generator():
        yield 1

    async def one(n):
        number.set(n)
        me, loop = asyncio.current_task(), asyncio.get_running_loop()
        hooks = sys.get_asyncgen_hooks()
        for _ in range(3):
            barrier.wait(LONG)
            assert asyncio.current_task() is me
            assert asyncio.get_running_loop() is loop
            assert number.get() == n
            assert sys.get_asyncgen_hooks() == hooks
            agen = generator()
            await anext(agen)
            firstiters.append(agen in loop._asyncgens)
            await agen.aclose()
            assert asyncio.current_task() is me
        return n

    async def main():
        return await asyncio.gather(*(one(n) for n in range(5)))

    assert run(main()) == list(range(5))
    assert firstiters == [True] * 15


def test_plain_callbacks_have_no_current_task_while_one_is_blocked():
    event = threading.Event()
    seen = []

    async def blocks():
        event.wait(LONG)

    def callback():
        seen.append(asyncio.current_task())
        event.set()

    async def main():
        task = asyncio.create_task(blocks())
        asyncio.get_running_loop().call_soon(callback)
        await task

    run(main())
    assert seen == [None]


def test_an_exception_comes_out_of_the_call():
    server = socket.create_server(("127.0.0.1", 0))

    async def blocks():
        server.accept()

    async def main():
        task = asyncio.create_task(blocks())
        await asyncio.sleep(0)
        server.shutdown(socket.SHUT_RDWR)
        with pytest.raises(OSError, match="Invalid argument"):
            await task

    with server:
        run(main())


def test_an_exception_that_nobody_catches_on_its_way_to_the_loop():
    server = socket.create_server(("127.0.0.1", 0))
    order = []

    def blocks():
        server.accept()

    async def main():
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda loop, context: order.append(type(context["exception"])))
        loop.call_soon(blocks)

        def lets_it_fail():
            server.shutdown(socket.SHUT_RDWR)
            # It has failed, and its exception handler must not run while we do.
            time.sleep(0)
            for _ in range(20000):
                pass
            order.append("done")

        loop.call_soon(lets_it_fail)
        await until(lambda: len(order) == 2)

    with server:
        run(main())
    assert order == ["done", OSError]


def test_python_code_that_c_calls_before_it_returns_waits_too():
    """A query gives up the GIL, and its row factory is called from C."""
    event = threading.Event()
    inside = []

    def factory(cursor, row):
        assert inside == []
        return row[0]

    async def blocks():
        with sqlite3.connect(":memory:", check_same_thread=False) as db:
            db.row_factory = factory
            db.create_function("pause", 0, lambda: event.wait(LONG))
            got = db.execute("select pause()").fetchall()
        db.close()
        return got

    async def main():
        task = asyncio.create_task(blocks())
        await asyncio.sleep(0)
        inside.append(1)
        event.set()
        time.sleep(0)
        for _ in range(50000):
            pass
        inside.clear()
        assert await task == [1]

    run(main())


def test_c_code_between_the_frames():
    event = threading.Event()

    def key(value):
        event.wait(LONG)
        return -value

    async def blocks():
        return sorted([1, 2, 3], key=key)

    async def main():
        task = asyncio.create_task(blocks())
        await asyncio.sleep(0)
        event.set()
        assert await task == [3, 2, 1]

    run(main())


def test_calls_in_generators_and_with_statements():
    items = queue.Queue()

    def generator():
        while (item := items.get(timeout=LONG)) is not None:
            yield item

    async def blocks():
        return [item async for item in amap()]

    async def amap():
        for item in generator():
            yield item

    async def main():
        task = asyncio.create_task(blocks())
        for item in (1, 2, 3, None):
            await asyncio.sleep(0.001)
            items.put(item)
        assert await task == [1, 2, 3]

    run(main())


def test_a_protocol_that_blocks_gets_its_calls_in_order():
    event = threading.Event()
    calls = []

    class Protocol(asyncio.Protocol):
        def connection_made(self, transport):
            calls.append("made")
            event.wait(LONG)
            calls.append("was made")

        def data_received(self, data):
            calls.append("data")
            time.sleep(0.02)
            calls.append("got data")

        def eof_received(self):
            calls.append("eof")

        def connection_lost(self, exc):
            calls.append("lost")

    async def main():
        loop = asyncio.get_running_loop()
        ours, theirs = socket.socketpair()
        with theirs:
            task = asyncio.create_task(loop.create_connection(Protocol, sock=ours))
            await until(lambda: calls)
            theirs.send(b"x")
            await asyncio.sleep(0.01)
            assert calls == ["made"]
            event.set()
            await task
            await until(lambda: "data" in calls)
            theirs.close()
            await until(lambda: "lost" in calls)

    run(main())
    assert calls == ["made", "was made", "data", "got data", "eof", "lost"]


def test_a_reader_that_blocks_is_not_called_meanwhile():
    event = threading.Event()
    calls = []
    ours, theirs = socket.socketpair()

    def readable():
        calls.append("called")
        event.wait(LONG)
        ours.recv(1)

    async def main():
        loop = asyncio.get_running_loop()
        loop.add_reader(ours, readable)
        theirs.send(b"x")
        await until(lambda: calls)
        parks = loop._stats()["parks"]
        await asyncio.sleep(0.02)
        assert calls == ["called"]
        assert loop._stats()["parks"] - parks < 10  # nor does it keep the loop busy
        event.set()
        theirs.send(b"y")
        await until(lambda: len(calls) == 2)
        loop.remove_reader(ours)

    with ours, theirs:
        run(main())


def test_a_callback_in_a_context_that_is_in_use_waits_for_it():
    event = threading.Event()
    order = []

    def blocks():
        order.append("begins")
        event.wait(LONG)
        order.append("ends")

    async def main():
        loop = asyncio.get_running_loop()
        context = contextvars.copy_context()
        loop.call_soon(blocks, context=context)
        loop.call_soon(order.append, "same context", context=context)
        loop.call_soon(order.append, "another")
        await until(lambda: "another" in order)
        event.set()
        await until(lambda: len(order) == 4)

    run(main())
    assert order == ["begins", "another", "ends", "same context"]


def test_an_iteration_is_one_iteration_whoever_runs_it():
    event = threading.Event()
    order = []

    async def main():
        loop = asyncio.get_running_loop()
        loop.call_soon(order.append, 1)
        loop.call_soon(event.wait, LONG)  # a C function without a Python frame: this one is not handed off,
        loop.call_soon(lambda: event.wait(LONG))  # this one is
        loop.call_soon(lambda: (order.append(2), loop.call_soon(order.append, 4)))
        loop.call_soon(order.append, 3)
        loop.call_soon(event.set)
        await until(lambda: 4 in order)

    event.set()
    run(main())
    event.clear()
    order.clear()

    async def second():
        loop = asyncio.get_running_loop()
        loop.call_soon(lambda: event.wait(LONG))
        loop.call_soon(lambda: (order.append(1), loop.call_soon(order.append, 3)))
        loop.call_soon(order.append, 2)
        loop.call_soon(event.set)
        await until(lambda: 3 in order)

    run(second())
    assert order == [1, 2, 3]


async def computes():
    """Return how often the loop was handed off while it computed."""
    loop = asyncio.get_running_loop()
    before = loop._stats()["handoffs"]
    until = time.monotonic() + 0.3
    while time.monotonic() < until:
        pass
    return loop._stats()["handoffs"] - before


def test_computing_is_never_handed_off():
    assert run(computes()) == 0


def test_waiting_for_the_gil_is_never_handed_off():
    end = threading.Event()

    def hog():
        while not end.is_set():
            pass

    hogs = [threading.Thread(target=hog) for _ in range(3)]
    for thread in hogs:
        thread.start()
    try:
        assert run(computes()) == 0
    finally:
        end.set()
        for thread in hogs:
            thread.join()


def test_a_gil_that_changes_hands_all_the_time_is_no_reason():
    end = threading.Event()

    def hog():
        while not end.is_set():
            os.stat("/")

    hogs = [threading.Thread(target=hog) for _ in range(2)]
    for thread in hogs:
        thread.start()
    try:
        assert run(computes()) == 0
    finally:
        end.set()
        for thread in hogs:
            thread.join()


def test_computing_without_the_gil_is_handed_off():
    data, others = bytes(50_000_000), []

    def computes():
        until = time.monotonic() + LONG
        while not others and time.monotonic() < until:
            hashlib.sha256(data)

    async def main():
        loop = asyncio.get_running_loop()
        loop.call_soon(computes)
        loop.call_soon(lambda: others.append(loop._stats()["away"]))
        await until(lambda: others)

    run(main())
    assert others == [1]


def test_off_by_default():
    event = threading.Event()

    async def main():
        loop = asyncio.get_running_loop()
        loop.call_soon(event.set)
        assert not event.wait(0.05)
        assert loop._stats()["handoffs"] == 0

    goloop.run(main())


def test_the_environment_turns_it_on(monkeypatch):
    monkeypatch.setenv("GOLOOP_HANDOFF", "1")
    event = threading.Event()
    got = []

    async def main():
        asyncio.get_running_loop().call_soon(event.set)
        assert event.wait(LONG)

    goloop.run(main())
    loop = goloop.Loop(handoff=False)  # but not against what the program says
    loop.call_soon(lambda: got.append(event.wait(0.05)))
    loop.call_soon(event.set)
    loop.call_soon(loop.stop)
    event.clear()
    loop.run_forever()
    loop.close()
    assert got == [False]


def test_stop_while_home_is_stuck():
    event = threading.Event()
    loop = goloop.Loop(handoff=True)
    order = []

    def blocks():
        event.wait(LONG)
        order.append("ends")

    def stops():
        loop.stop()
        order.append("stopped")
        timer.start()

    timer = threading.Timer(0.05, event.set)
    loop.call_soon(blocks)
    loop.call_soon(stops)
    loop.call_later(0.01, order.append, "too late")
    loop.run_forever()
    assert order == ["stopped", "ends"]
    timer.join()
    loop.close()


def test_a_run_that_ends_waits_for_those_that_are_stuck():
    barrier = threading.Barrier(2)
    ended = []

    async def blocks():
        barrier.wait(LONG)
        time.sleep(0.05)
        ended.append(threading.current_thread().name)

    async def main():
        # Two are stuck, so that one is on a substitute; and home is back first.
        tasks = [asyncio.create_task(blocks()) for _ in range(2)]
        await until(lambda: ended)
        return tasks

    loop = goloop.Loop(handoff=True)
    loop.run_until_complete(main())
    assert len(ended) == 2
    loop.close()


def test_a_run_that_ends_does_not_wait_for_ever(caplog):
    event = threading.Event()
    loop = goloop.Loop(handoff=True)
    loop.token.patience = 0.05
    ended = []

    async def blocks_at_home():
        first.wait(LONG)

    async def blocks():
        event.wait(LONG)
        ended.append(asyncio.current_task() is task)

    async def main():
        nonlocal task
        home = asyncio.create_task(blocks_at_home())
        task = asyncio.create_task(blocks())
        await until(lambda: loop._stats()["handoffs"] == 2)
        first.set()
        await home

    first, task = threading.Event(), None
    loop.run_until_complete(main())
    assert "is stuck in a blocking call" in caplog.text and "event.wait(LONG)" in caplog.text
    assert loop._stats()["away"] == 1
    event.set()
    time.sleep(0.02)
    assert ended == []  # the loop does not run, so that nobody may run callbacks
    loop.run_until_complete(task)
    assert ended == [True]
    loop.close()


def test_a_loop_closed_while_a_callback_is_stuck():
    event, first = threading.Event(), threading.Event()
    loop = goloop.Loop(handoff=True)
    loop.token.patience = 0.05
    errors = []

    def blocks():
        event.wait(LONG)
        try:
            loop.call_soon(print)
        except RuntimeError as exc:
            errors.append(str(exc))

    async def main():
        loop.call_soon(lambda: first.wait(LONG))
        loop.call_soon(blocks)
        await until(lambda: loop._stats()["handoffs"] == 2)
        first.set()

    loop.run_until_complete(main())
    loop.close()
    event.set()
    while not errors:
        time.sleep(0.001)
    assert errors == ["Event loop is closed"]


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt])
def test_what_run_forever_raises_comes_from_a_substitute_too(error):
    event = threading.Event()
    loop = goloop.Loop(handoff=True)

    def raises():
        event.set()
        raise error("from a substitute")

    loop.call_soon(lambda: event.wait(LONG))
    loop.call_soon(raises)
    with pytest.raises(error, match="from a substitute"):
        loop.run_forever()
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()


def test_ctrl_c_while_home_is_stuck():
    event = threading.Event()
    cancelled = []

    async def blocks():
        event.wait(LONG)

    async def main():
        task = asyncio.create_task(blocks())
        await until(lambda: not on_main())
        os.kill(os.getpid(), signal.SIGINT)  # its handler, which cancels us, runs in the thread that is stuck
        try:
            await asyncio.sleep(LONG)
        except asyncio.CancelledError:
            cancelled.append(True)
            event.set()
            await task
            raise

    with pytest.raises(KeyboardInterrupt):
        run(main())
    assert cancelled == [True]


def test_ctrl_c_without_a_handler_interrupts_the_call():
    loop = goloop.Loop(handoff=True)

    def interrupts():
        os.kill(os.getpid(), signal.SIGINT)

    loop.call_soon(lambda: threading.Event().wait(LONG))
    loop.call_soon(interrupts)
    with pytest.raises(KeyboardInterrupt):
        loop.run_forever()
    loop.close()


def test_signal_handlers_of_the_loop_run_while_home_is_stuck():
    event = threading.Event()

    async def main():
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGUSR1, event.set)
        loop.call_soon(os.kill, os.getpid(), signal.SIGUSR1)
        assert event.wait(LONG)

    run(main())


def test_call_soon_threadsafe_while_home_is_stuck():
    event = threading.Event()

    async def main():
        loop = asyncio.get_running_loop()
        threading.Timer(0.02, loop.call_soon_threadsafe, (event.set,)).start()
        assert event.wait(LONG)

    run(main())


def test_the_loop_of_another_thread():
    event = threading.Event()
    got = []

    async def main():
        asyncio.get_running_loop().call_soon(event.set)
        got.append(event.wait(LONG))

    thread = threading.Thread(target=run, args=(main(),))
    thread.start()
    thread.join()
    assert got == [True]


def test_two_loops_at_once():
    barrier = threading.Barrier(6)

    async def main():
        async def blocks():
            return barrier.wait(LONG)

        await asyncio.gather(*(blocks() for _ in range(3)))

    threads = [threading.Thread(target=lambda: run(main())) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not barrier.broken


def test_a_fork_while_callbacks_are_stuck():
    event = threading.Event()

    async def blocks():
        event.wait(LONG)

    async def main():
        task = asyncio.create_task(blocks())
        await asyncio.sleep(0)
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                asyncio.events._set_running_loop(None)
                child = threading.Event()

                async def in_child():
                    asyncio.get_running_loop().call_soon(child.set)
                    return child.wait(10)

                os.write(write, b"yes" if run(in_child()) else b"no")
            finally:
                os._exit(0)
        os.close(write)
        got = os.read(read, 10)
        os.close(read)
        os.waitpid(pid, 0)
        event.set()
        await task
        return got

    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of 3.12: other threads exist
        assert run(main()) == b"yes"


def test_eager_tasks():
    if sys.version_info < (3, 12):
        pytest.skip("eager tasks are new in 3.12")
    event = threading.Event()

    async def blocks():
        me = asyncio.current_task()
        event.wait(LONG)
        assert asyncio.current_task() is me
        return 1

    async def main():
        loop = asyncio.get_running_loop()
        loop.set_task_factory(asyncio.eager_task_factory)
        me = asyncio.current_task()
        loop.call_soon(event.set)
        task = asyncio.create_task(blocks())
        assert asyncio.current_task() is me
        assert task.done()
        return await task

    assert run(main()) == 1


def test_a_trace_function_goes_on():
    """As debuggers and coverage have it."""
    lines = []
    event = threading.Event()

    def tracer(frame, what, argument):
        if frame.f_code is not traced.__code__:
            return None
        if what == "line":
            lines.append(frame.f_lineno - traced.__code__.co_firstlineno)
        return tracer

    def traced():
        event.wait(LONG)
        x = 1
        return x

    async def main():
        asyncio.get_running_loop().call_soon(event.set)
        before = sys.gettrace()
        sys.settrace(tracer)
        try:
            traced()
            assert sys.gettrace() is tracer
        finally:
            sys.settrace(before)
        assert asyncio.get_running_loop()._stats()["handoffs"] == 1

    run(main())
    assert lines == [1, 2, 3]


def test_nothing_is_handed_off_inside_a_trace_function():
    event = threading.Event()
    got = []

    def tracer(frame, what, argument):
        if what == "call" and frame.f_code is traced.__code__:
            got.append(event.wait(0.1))  # a debugger at its prompt

    def traced():
        pass

    async def main():
        asyncio.get_running_loop().call_soon(event.set)
        before = sys.gettrace()
        sys.settrace(tracer)
        try:
            traced()
        finally:
            sys.settrace(before)

    run(main())
    assert got == [False]


@pytest.mark.skipif(sys.version_info < (3, 12), reason="sys.monitoring is new in 3.12")
def test_other_tools_of_sys_monitoring_are_undisturbed():
    monitoring = sys.monitoring
    offsets, raised = [], []
    events = [threading.Event(), threading.Event()]

    def blocks(event):
        event.wait(LONG)
        return 1

    async def one(event):
        return blocks(event)

    async def main():
        tasks = [asyncio.create_task(one(event)) for event in events]
        await asyncio.sleep(0)
        for event in events:
            event.set()
        return await asyncio.gather(*tasks)

    tool = monitoring.OPTIMIZER_ID
    monitoring.use_tool_id(tool, "test")
    try:
        monitoring.register_callback(tool, monitoring.events.INSTRUCTION, lambda code, at: offsets.append(at))
        monitoring.register_callback(tool, monitoring.events.RAISE, lambda code, at, exc: raised.append(exc))
        monitoring.set_local_events(tool, blocks.__code__, monitoring.events.INSTRUCTION)
        blocks(type("Event", (), {"wait": lambda self, timeout: None})())
        alone = list(offsets)
        offsets.clear()
        assert run(main()) == [1, 1]
        assert sorted(offsets) == sorted(alone * 2)
        assert monitoring.get_local_events(tool, blocks.__code__) == monitoring.events.INSTRUCTION
    finally:
        monitoring.set_local_events(tool, blocks.__code__, 0)
        monitoring.free_tool_id(tool)
    assert [monitoring.get_tool(n) for n in range(6)].count("goloop") == 0


@pytest.mark.skipif(sys.version_info < (3, 12), reason="sys.monitoring is new in 3.12")
def test_a_clear_error_when_no_tool_id_is_left():
    monitoring = sys.monitoring
    taken = [n for n in range(6) if monitoring.get_tool(n) is None]
    for n in taken:
        monitoring.use_tool_id(n, "test")
    try:
        with pytest.raises(RuntimeError, match="all six are in use"):
            goloop.Loop(handoff=True)
    finally:
        for n in taken:
            monitoring.free_tool_id(n)


def test_a_profiler_goes_on():
    import cProfile

    event = threading.Event()

    async def main():
        asyncio.get_running_loop().call_soon(event.set)
        assert event.wait(LONG)
        assert asyncio.get_running_loop()._stats()["handoffs"] == 1

    profile = cProfile.Profile()
    profile.enable()
    try:
        run(main())
    finally:
        profile.disable()
    names = {entry.code.co_name for entry in profile.getstats() if not isinstance(entry.code, str)}
    assert "main" in names and "wait" in names


def test_select_and_files():
    read, write = os.pipe()
    got = []

    async def main():
        loop = asyncio.get_running_loop()

        def selects():
            got.append(select.select([read], [], [], LONG)[0])
            got.append(os.read(read, 1))
            with open(read, "rb", closefd=False) as file:
                got.append(file.read(2))

        loop.call_soon(selects)
        for _ in range(3):
            await asyncio.sleep(0.005)
            os.write(write, b"x")
        await until(lambda: len(got) == 3)

    try:
        run(main())
    finally:
        os.close(read)
        os.close(write)
    assert got == [[read], b"x", b"xx"]


def test_locks_held_across_blocking_calls():
    """One sleeps with a lock held, the others wait for it: each must be taken off the loop for the first to go on."""
    lock = threading.Lock()
    order = []

    async def one(n):
        with lock:
            order.append(n)
            time.sleep(0.005)
            order.append(n)

    async def main():
        await asyncio.gather(*(one(n) for n in range(8)))

    run(main())
    assert sorted(order) == sorted([*range(8)] * 2)
    assert order[::2] == order[1::2]
