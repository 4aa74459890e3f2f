"""bubble() and run(): whose clock is virtual, what may be in one, and how one ends."""

import asyncio
import datetime
import gc
import os
import re
import signal
import threading
import time
import weakref

import pytest

import goloop
from goloop import context, errgroup, sync, testing, timer
from goloop.testing import DeadlockError, bubble, run


def elapsed(loop):
    return loop.time() - 1.0


# ------------------------------------------------------------------------- the clock
def test_an_hour_of_a_goroutine_s_sleep_takes_no_time():
    begun = time.monotonic()
    with bubble() as loop:
        goloop.sleep(3600)
        assert elapsed(loop) == 3600
    assert time.monotonic() - begun < 60


def test_an_hour_of_a_coroutine_s_sleep_takes_no_time():
    async def main():
        begun = asyncio.get_running_loop().time()
        await asyncio.sleep(3600)
        return asyncio.get_running_loop().time() - begun

    assert run(main) == 3600
    assert run(main()) == 3600


def test_both_colours_share_the_clock_and_wake_in_the_order_of_their_times():
    order = []

    def plain(seconds):
        goloop.sleep(seconds)
        order.append(seconds)

    async def coloured(seconds):
        await asyncio.sleep(seconds)
        order.append(seconds)

    with bubble():
        started = [goloop.go(plain, 3), goloop.go(coloured, 2), goloop.go(plain, 1), goloop.go(coloured, 4)]
        for g in started:
            g.join()
    assert order == [1, 2, 3, 4]


def test_the_clock_stands_still_while_something_can_run():
    with bubble() as loop:
        times = []

        def spin():
            for _ in range(1000):
                goloop.gosched()
            times.append(elapsed(loop))

        for _ in range(3):
            goloop.go(spin)
        goloop.sleep(5)
        assert times == [0, 0, 0]


def test_timeouts_of_asyncio_end_at_their_times():
    async def main():
        loop = asyncio.get_running_loop()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(60):
                await asyncio.sleep(61)
        assert elapsed(loop) == 60
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.Event().wait(), 40)
        assert elapsed(loop) == 100

    run(main)


def test_call_later_and_call_at_fire_at_their_times():
    async def main():
        loop = asyncio.get_running_loop()
        fired = []
        loop.call_later(2, lambda: fired.append(("later", elapsed(loop))))
        loop.call_at(loop.time() + 1, lambda: fired.append(("at", elapsed(loop))))
        loop.call_later(3, fired.append, "cancelled").cancel()
        await asyncio.sleep(10)
        return fired

    assert run(main) == [("at", 1), ("later", 2)]


def test_timeouts_of_channels_locks_joins_and_waits_end_at_their_times():
    with bubble() as loop:
        chan, mutex = goloop.Chan(), sync.Mutex()
        mutex.lock()
        sleeper = goloop.go(goloop.sleep, 1000)
        for operation in (
            lambda: chan.recv(timeout=10),
            lambda: chan.send(1, timeout=10),
            lambda: goloop.select(goloop.recv(chan), timeout=10),
            lambda: mutex.lock(timeout=10),
            lambda: sleeper.join(timeout=10),
            lambda: goloop.wait(asyncio.sleep(1000), timeout=10),
        ):
            begun = elapsed(loop)
            with pytest.raises(TimeoutError):
                operation()
            assert elapsed(loop) - begun == 10


def test_timers_of_goloop_fire_on_the_virtual_clock():
    with bubble() as loop:
        started = []
        timer.after_func(7, lambda: started.append(elapsed(loop)))
        assert timer.after(5).recv() == loop.time() == 6
        one = timer.Timer(10)
        assert one.stop() is True and one.stop() is False
        assert one.reset(20) is False
        one.chan.recv()
        assert elapsed(loop) == 25 and started == [7]
        with timer.Ticker(60) as ticker:
            for n in range(3):
                ticker.chan.recv()
                assert elapsed(loop) == 25 + 60 * (n + 1)


def test_deadlines_of_contexts_are_on_the_virtual_clock():
    with bubble() as loop:
        with context.with_timeout(context.background(), 30) as ctx:
            assert ctx.deadline() == 31
            assert goloop.select(goloop.recv(ctx.done()), timeout=100) == (0, None, False)
            assert elapsed(loop) == 30
            assert isinstance(ctx.err(), context.DeadlineExceeded)
        called = goloop.Chan(1)
        with context.with_deadline(context.background(), loop.time() + 5) as ctx:
            context.after_func(ctx, lambda: called.send(elapsed(loop)))
            assert called.recv() == 35


def test_a_context_that_is_never_cancelled_can_be_waited_for():
    with bubble():
        done = context.background().done()
        assert goloop.select(goloop.recv(done), goloop.recv(timer.after(1)))[0] == 1


def test_a_timer_that_nothing_refers_to_does_not_keep_a_bubble_going():
    with bubble() as loop:
        timer.after(1000)
        gc.collect()
        assert loop._stats()["timers"] == 0


def test_a_century_may_pass():
    century = 100 * 365.25 * 24 * 3600
    with bubble() as loop:
        goloop.sleep(2 * century)
        assert elapsed(loop) == 2 * century
        timer.after(3 * century).recv()
        assert elapsed(loop) == 5 * century
        with pytest.raises(TimeoutError):
            goloop.Chan().recv(timeout=century)


def test_what_is_due_never_does_not_come_before_the_deadlock():
    async def main():
        await asyncio.sleep(float("inf"))

    with pytest.raises(DeadlockError):
        run(main)


def test_start_says_what_the_wall_clock_shows():
    for start, shown in (
        (None, datetime.datetime(2000, 1, 1, tzinfo=datetime.UTC).timestamp()),
        (12.5, 12.5),
        (
            datetime.datetime(2030, 6, 1, tzinfo=datetime.UTC),
            datetime.datetime(2030, 6, 1, tzinfo=datetime.UTC).timestamp(),
        ),
    ):
        with bubble(start=start) as loop:
            assert loop._wall_clock() == shown
            goloop.sleep(10)
            assert loop._wall_clock() == shown + 10
    with pytest.raises(TypeError, match="start"):
        bubble(start="now")


def test_each_bubble_begins_at_the_start_of_its_own_clock():
    for _ in range(3):
        with bubble() as loop:
            assert loop.time() == 1
            goloop.sleep(10)


def test_time_does_not_pass_for_the_timers_outside():
    outside = timer.Timer(3600)
    with bubble():
        goloop.sleep(7200)
    assert outside.chan.try_recv() == (None, False)
    assert outside.stop() is True


# ------------------------------------------------------------------------ wait()
def test_wait_returns_when_all_others_wait():
    with bubble() as loop:
        seen = []

        def work():
            for n in range(3):
                goloop.gosched()
                seen.append(n)
            goloop.sleep(10)
            seen.append("later")

        async def work_async():
            await asyncio.sleep(0)
            seen.append("async")
            await asyncio.sleep(20)

        goloop.go(work)
        goloop.go(work_async)
        testing.wait()
        assert sorted(seen, key=str) == [0, 1, 2, "async"]
        assert elapsed(loop) == 0
        goloop.sleep(10)
        testing.wait()
        assert seen[-1] == "later"


def test_async_wait_returns_when_all_others_wait():
    async def main():
        seen = []

        async def work():
            await asyncio.sleep(0)
            seen.append(1)
            await asyncio.sleep(5)
            seen.append(2)

        task = asyncio.create_task(work())
        await testing.async_wait()
        assert seen == [1]
        await task
        assert seen == [1, 2]

    run(main)


def test_wait_is_refused_outside_of_bubbles_in_coroutines_and_to_a_second_caller():
    with pytest.raises(RuntimeError, match="in a bubble, and this is none"):
        testing.wait()

    async def main():
        with pytest.raises(RuntimeError, match="async_wait"):
            testing.wait()

    run(main)
    with bubble():
        failed = goloop.Chan(1)

        def second():
            with pytest.raises(RuntimeError, match="two at once"):
                testing.wait()
            failed.send(True)

        goloop.go(second)
        testing.wait()
        assert failed.recv()


# ----------------------------------------------------------------------- deadlocks
def test_a_goroutine_that_waits_for_ever_is_a_deadlock_and_the_dump_says_where():
    def consumer(chan):
        chan.recv()

    with pytest.raises(DeadlockError) as caught, bubble():
        goloop.go(consumer, goloop.Chan())
        goloop.sleep(1)
        goloop.Chan().recv()
    text = str(caught.value)
    assert "at 2 s of its time" in text
    assert "consumer" in text and "chan.recv()" in text
    here = "in test_a_goroutine_that_waits_for_ever_is_a_deadlock_and_the_dump_says_where"
    assert text.count("started at") == 2 and len(re.findall(rf"started at .*test_bubble.py:\d+ {here}", text)) == 2
    assert "bubble [chan receive]" in text and "goloop.Chan().recv()" in text


def test_a_task_that_waits_for_ever_is_a_deadlock_and_the_dump_says_where():
    async def inner():
        await asyncio.get_running_loop().create_future()

    async def main():
        await inner()

    with pytest.raises(DeadlockError, match=r"(?s)in main.*in inner.*create_future"):
        run(main)


@pytest.mark.parametrize("how", ["bubble", "run"])
def test_the_dump_of_a_deadlocked_body_begins_where_the_bubble_does(how):
    def body():
        goloop.Chan().recv()

    def begin():
        if how == "run":
            run(body)
        with bubble():
            body()

    with pytest.raises(DeadlockError) as caught:
        begin()
    frames = [line.split(" in ")[1] for line in str(caught.value).splitlines() if " in " in line and "File" in line]
    assert frames == (["body"] if how == "run" else ["begin", "body"])


def test_goroutines_that_the_body_leaves_waiting_for_ever_are_a_deadlock():
    with pytest.raises(DeadlockError, match="chan receive"), bubble():
        goloop.go(goloop.Chan().recv)


def test_a_body_that_catches_the_cancellation_of_a_deadlock_does_not_hide_it():
    with pytest.raises(DeadlockError), bubble():
        for _ in range(5):
            try:
                goloop.Chan().recv()
            except asyncio.CancelledError:
                pass


def test_a_deadlock_that_a_failed_goroutine_has_caused_names_the_failure():
    def fail():
        raise KeyError("on purpose")

    with pytest.raises(DeadlockError) as caught, bubble():
        chan = goloop.Chan()
        goloop.go(fail)
        chan.recv()
    assert isinstance(caught.value.__cause__, KeyError)
    assert any("on purpose" in note for note in caught.value.__notes__)


def test_locks_taken_in_opposite_orders_are_a_deadlock():
    with pytest.raises(DeadlockError, match=r"(?s)mutex lock.*mutex lock"), bubble():
        a, b = sync.Mutex(), sync.Mutex()

        def locked(first, second):
            with first:
                goloop.sleep(1)
                with second:
                    pass

        goloop.go(locked, a, b)
        goloop.go(locked, b, a)


# -------------------------------------------------------------------------- the end
def test_the_end_of_a_bubble_waits_for_its_goroutines():
    ended = []
    with bubble() as loop:
        goloop.go(lambda: (goloop.sleep(100), ended.append(elapsed(loop))))
    assert ended == [100]


def test_the_end_of_a_bubble_cancels_its_tasks():
    ended = []

    async def background():
        try:
            while True:
                await asyncio.sleep(1)
        finally:
            ended.append(True)

    async def main():
        task = asyncio.create_task(background())
        await asyncio.sleep(5)
        return task

    assert run(main).cancelled()
    assert ended == [True]


def test_a_body_that_raises_cancels_its_goroutines():
    ended = []

    def sleeper():
        try:
            goloop.sleep(1000)
        finally:
            ended.append(True)

    with pytest.raises(KeyError, match="body"), bubble() as loop:
        goloop.go(sleeper)
        goloop.sleep(1)
        raise KeyError("body")
    assert ended == [True] and elapsed(loop) == 1


def test_an_exception_that_nobody_received_is_raised_at_the_end():
    with pytest.raises(ZeroDivisionError) as caught, bubble():
        g = goloop.go(lambda: 1 / 0)
        goloop.sleep(1)
    assert any("nobody received" in note for note in caught.value.__notes__)
    assert g.done()

    async def main():
        goloop.go(lambda: 1 / 0)

    with pytest.raises(ZeroDivisionError):
        run(main)


def test_an_exception_that_was_received_is_not_raised_again():
    with bubble():
        g = goloop.go(lambda: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            g.result()


def test_asynchronous_generators_are_closed_at_the_end():
    closed = []

    async def numbers():
        try:
            yield 1
            yield 2
        finally:
            await asyncio.sleep(1)
            closed.append(True)

    kept = []

    async def main():
        kept.append(numbers())
        return await anext(kept[0])

    assert run(main) == 1
    assert closed == [True]


def test_systemexit_of_a_task_ends_the_bubble():
    async def leave():
        raise SystemExit(3)

    with pytest.raises(SystemExit, match="3"), bubble():
        goloop.wait(asyncio.sleep(0))
        loop = goloop.go(leave)
        goloop.sleep(1)
        loop.join()


def test_a_bubble_that_is_over_is_freed_without_the_collector():
    def body():
        goloop.go(goloop.sleep, 1).join()
        goloop.go(asyncio.sleep, 1)
        timer.after(1).recv()

    gc.collect()
    gc.disable()
    try:
        with bubble() as loop:
            body()
        gone = weakref.ref(loop)
        del loop
        assert gone() is None
    finally:
        gc.enable()


def test_goexit_ends_the_body_and_is_no_error():
    ended = []

    def body():
        goloop.go(lambda: (goloop.sleep(1), ended.append(1)))
        goloop.goexit()

    async def main():
        g = goloop.go(lambda: (goloop.sleep(1), ended.append(2)))
        goloop.go(goloop.goexit)
        await g

    assert run(body) is None
    assert ended == [1]
    run(main)
    assert ended == [1, 2]


def test_run_returns_the_result_of_every_kind_of_main():
    async def coroutine():
        return 1

    def function():
        goloop.sleep(1)
        return 2

    assert run(coroutine()) == 1
    assert run(coroutine) == 1
    assert run(function) == 2
    assert run(lambda: coroutine()) == 1
    with pytest.raises(TypeError, match="coroutine or a function"):
        run(3)


# --------------------------------------------------------------------- where and what
def test_a_bubble_is_refused_in_a_bubble_in_a_goroutine_and_where_a_loop_runs():
    async def in_loop():
        with pytest.raises(RuntimeError, match="running loop"):
            bubble().__enter__()
        with pytest.raises(RuntimeError, match="running loop"):
            run(in_loop())

    goloop.run(in_loop())
    with bubble(), pytest.raises(RuntimeError, match="inside of a bubble"):
        bubble().__enter__()
    with pytest.raises(RuntimeError, match="or of a goroutine"):
        goloop.go(bubble().__enter__).result()


def test_no_other_loop_runs_in_a_bubble():
    with bubble():
        coroutine = asyncio.sleep(0)
        with pytest.raises(RuntimeError, match="no other one can run in it"):
            goloop.run(coroutine)
        coroutine.close()


def test_a_bubble_is_entered_once():
    made = bubble()
    with made:
        pass
    with pytest.raises(RuntimeError, match="entered once"):
        made.__enter__()


def test_goroutines_stay_on_the_bubble_s_thread():
    with bubble():
        assert goloop.go(threading.get_ident).result() == threading.get_ident()

        async def here():
            return threading.get_ident()

        assert goloop.go(here).result() == threading.get_ident()
        with goloop.blocking():
            assert goloop.go(threading.get_ident).result() == threading.get_ident()


def test_a_locked_thread_does_not_keep_the_others_of_a_bubble_from_starting():
    with bubble(), goloop.lock_os_thread():
        assert goloop.go(int).result() == 0


def test_groups_of_goroutines_work_in_a_bubble():
    with bubble() as loop:
        group = errgroup.Group()
        for n in range(5):
            group.go(goloop.sleep, n)
        group.wait()
        assert elapsed(loop) == 4


@pytest.mark.parametrize(
    "call",
    [
        lambda loop: loop.create_connection(asyncio.Protocol, "127.0.0.1", 1),
        lambda loop: loop.create_server(asyncio.Protocol, "127.0.0.1", 0),
        lambda loop: loop.run_in_executor(None, int),
        lambda loop: loop.add_reader(0, int),
        lambda loop: loop.getaddrinfo("localhost", 80),
        lambda loop: loop.subprocess_shell(asyncio.SubprocessProtocol, "true"),
        lambda loop: loop.sock_recv(None, 1),
        lambda loop: loop.add_signal_handler(10, int),
    ],
)
def test_real_io_in_a_bubble_is_an_error_that_says_so(call):
    async def main():
        with pytest.raises(RuntimeError, match="not possible in a bubble"):
            call(asyncio.get_running_loop())

    run(main)


def test_sockets_of_goloop_net_in_a_bubble_are_an_error_and_leave_no_descriptor():
    from goloop import net

    with bubble(), pytest.raises(RuntimeError, match="not possible in a bubble"):
        net.listen("tcp", "127.0.0.1:0")
    with bubble(), pytest.raises(RuntimeError, match=r"dial\(\) is real I/O"):
        net.dial("tcp", "127.0.0.1:1")


def test_every_method_that_asyncio_has_for_io_is_refused():
    from goloop.testing._loop import BubbleLoop

    kept = set()
    for name in dir(asyncio.AbstractEventLoop):
        if name.startswith(
            ("sock_", "create_", "connect_", "subprocess_", "add_", "sendfile", "run_in", "getna", "getad")
        ):
            kept.add(name if getattr(BubbleLoop, name) is not BubbleLoop.__dict__.get(name) else None)
    assert kept == {"create_future", "create_task", None}


def test_a_call_from_another_thread_crosses_the_edge():
    with bubble() as loop:
        failures = []

        def call():
            try:
                loop.call_soon_threadsafe(int)
            except RuntimeError as exc:
                failures.append(str(exc))

        thread = threading.Thread(target=call)
        thread.start()
        thread.join()
        assert failures and "edge of a bubble" in failures[0]


def test_a_channel_from_outside_is_an_error_at_the_call():
    outside = goloop.Chan(1)
    operations = [
        lambda: outside.send(1),
        outside.recv,
        outside.try_recv,
        lambda: outside.try_send(1),
        outside.close,
        lambda: goloop.select(goloop.recv(outside)),
        lambda: goloop.select(goloop.send(outside, 1), default=True),
        lambda: goloop.wait(outside.async_recv()),
        lambda: goloop.wait(outside.async_send(1)),
        lambda: goloop.wait(goloop.async_select(goloop.recv(outside))),
    ]
    with bubble():
        for operation in operations:
            with pytest.raises(RuntimeError, match="made outside of this bubble"):
                operation()
    outside.send(1)
    assert outside.recv() == 1


def test_a_channel_of_a_bubble_is_an_error_outside_until_the_bubble_is_over():
    with bubble():
        inside = goloop.Chan(1)
        failures = []

        def use():
            try:
                inside.send(1)
            except RuntimeError as exc:
                failures.append(str(exc))

        thread = threading.Thread(target=use)
        thread.start()
        thread.join()
        assert failures == ["a channel that was made in a bubble is used outside of it"]
    inside.send(1)
    assert inside.recv() == 1


def test_a_context_from_outside_is_no_parent_inside():
    with context.with_cancel(context.background()) as outside, bubble():
        with pytest.raises(RuntimeError, match="made outside of this bubble"):
            context.with_cancel(outside)


def test_waiting_for_a_goroutine_from_outside_is_an_error():
    chan = goloop.Chan()
    outside = goloop.go(chan.recv)
    with bubble():
        with pytest.raises(RuntimeError, match="edge of a bubble"):
            outside.join()
        with pytest.raises(RuntimeError, match="edge of a bubble"):
            goloop.wait(asyncio.wait_for(outside, 1))
    chan.send(1)
    assert outside.result() == 1


def test_a_child_of_a_fork_in_a_bubble_is_outside_of_it():
    with bubble():
        inside = goloop.Chan(1)
        pid = os.fork()
        if pid == 0:
            try:
                chan = goloop.Chan(1)
                chan.send(1)
                ok = chan.recv() == 1 and inside.try_send(1)
                ok = ok and time.monotonic() != 1
            finally:
                os._exit(0 if ok else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_two_bubbles_in_two_threads_have_their_own_times():
    times = {}

    def one(n):
        with bubble() as loop:
            for _ in range(100):
                goloop.sleep(n)
            times[n] = elapsed(loop)

    threads = [threading.Thread(target=one, args=(n,)) for n in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert times == {1: 100, 2: 200}


def test_the_loop_of_a_bubble_serves_asyncio_s_runner():
    async def main():
        await asyncio.sleep(100)
        return goloop.go(goloop.sleep, 10), elapsed(asyncio.get_running_loop())

    with asyncio.Runner(loop_factory=testing.event_loop) as runner:
        g, seconds = runner.run(main())
        assert seconds == 100
    assert g.done() and g.cancelled()


@pytest.mark.parametrize("form", ["coroutine", "goroutine", "body"])
def test_ctrl_c_ends_a_bubble_whose_time_runs_for_ever(form):
    ended = []

    async def ticks():
        try:
            while True:
                await asyncio.sleep(1)
        finally:
            ended.append(form)

    def naps():
        try:
            while True:
                goloop.sleep(1)
        finally:
            ended.append(form)

    def body():
        goloop.go(naps).join()

    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    try:
        with pytest.raises(KeyboardInterrupt):
            run({"coroutine": ticks, "goroutine": body, "body": naps}[form])
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert ended == [form]
    with bubble() as loop:  # and the thread is as it was
        goloop.sleep(1)
        assert elapsed(loop) == 1
