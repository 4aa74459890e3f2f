"""The watch: reports of callbacks that are stuck, made while they are."""

import asyncio
import logging
import queue
import threading
import time

import pytest

import goloop
from goloop.debug import SlowCallback, on_slow, remove_slow
from goloop.runtime import watch
from tests.helpers.waiting import until

LONG = 60


@pytest.fixture
def reports():
    """A queue that gets every report."""
    got = queue.Queue()
    got.stuck = threading.Lock()  # free once something was reported as stuck: see stall()
    got.stuck.acquire()

    def hook(report):
        got.put(report)
        if report.phase == "stuck" and got.stuck.locked():
            got.stuck.release()

    watch._sites.clear()  # another test may have reported the same call site
    on_slow(hook)
    yield got
    remove_slow(hook)


def block(event):
    event.wait(LONG)


def stall(reports):
    """Keep the loop from going on until that is reported."""
    reports.stuck.acquire(True, LONG)


def stall_elsewhere(reports):
    reports.stuck.acquire(True, LONG)


def test_a_stuck_callback_is_reported_while_it_is_stuck(reports, caplog):
    event = threading.Event()

    async def handler():
        asyncio.current_task().set_name("request 1")
        asyncio.get_running_loop().slow_callback_duration = 0.02
        block(event)

    def see():
        seen.append(reports.get(timeout=LONG))
        event.set()

    seen = []
    watcher = threading.Thread(target=see)
    watcher.start()
    goloop.run(handler(), watch=True)
    watcher.join()
    report = seen[0]
    assert isinstance(report, SlowCallback)
    assert (report.phase, report.blocking, report.handed_off) == ("stuck", True, False)
    assert (report.task, report.coroutine.rpartition(".")[2]) == ("request 1", "handler")
    assert report.thread == "MainThread" and report.seconds >= 0.02
    assert any(frame.name == "block" and frame.line == "event.wait(LONG)" for frame in report.stack)
    assert report.stack[0].name == "handler"  # nothing of the loop
    ended = reports.get(timeout=LONG)
    assert ended.phase == "ended" and ended.seconds >= report.seconds and ended.task == "request 1"
    texts = [record.getMessage() for record in caplog.records if record.name == "goloop"]
    assert "blocks since" in texts[0] and "request 1" in texts[0] and "event.wait(LONG)" in texts[0]
    assert "blocked for" in texts[1]


def test_a_computing_callback_is_reported_as_computing(reports):
    def callback():
        until = time.monotonic() + LONG
        while reports.empty() and time.monotonic() < until:
            pass

    async def main():
        loop = asyncio.get_running_loop()
        loop.slow_callback_duration = 0.02
        loop.call_soon(callback)
        await asyncio.sleep(0)

    goloop.run(main(), watch=True)
    report = reports.get(timeout=LONG)
    assert (report.phase, report.blocking, report.task) == ("stuck", False, None)
    assert report.callback.endswith("callback")
    assert reports.get(timeout=LONG).phase == "ended"


def test_a_callback_that_was_handed_off_is_reported_too(reports):
    event = threading.Event()

    async def handler():
        block(event)

    async def main():
        asyncio.get_running_loop().slow_callback_duration = 0.02
        task = asyncio.create_task(handler(), name="stuck")
        while reports.empty():
            await asyncio.sleep(0.005)
        event.set()
        await task

    goloop.run(main(), watch=True, handoff=True)
    report = reports.get(timeout=LONG)
    assert (report.phase, report.task, report.blocking, report.handed_off) == ("stuck", "stuck", True, True)
    assert report.coroutine.endswith("handler") and report.stack[0].name == "handler"
    assert reports.get(timeout=LONG).phase == "ended"


def test_a_hook_gets_every_stall_and_the_log_one_a_minute_for_each_call_site(reports, caplog):
    async def main():
        loop = asyncio.get_running_loop()
        loop.slow_callback_duration = 0.05
        for i in range(3):
            stall(reports)
            while reports.qsize() < 2 * (i + 1):  # it has ended
                await asyncio.sleep(0.001)
        stall_elsewhere(reports)

    goloop.run(main(), watch=True)
    got = [reports.get(timeout=LONG) for _ in range(8)]
    assert [report.phase for report in got] == ["stuck", "ended"] * 4
    assert [report.stack[-1].name for report in got[::2]] == ["stall"] * 3 + ["stall_elsewhere"]
    until(lambda: len([r for r in caplog.records if r.name == "goloop"]) >= 4)
    assert reports.empty()
    assert len([record for record in caplog.records if record.name == "goloop"]) == 4


def test_a_builtin_callback_has_the_stack_of_what_runs_the_loop(reports):
    def main():
        loop = goloop.Loop(watch=True)
        loop.slow_callback_duration = 0.02
        loop.call_soon(reports.stuck.acquire, True, LONG)
        loop.call_soon(loop.stop)
        loop.run_forever()
        loop.close()

    main()
    report = reports.get(timeout=LONG)
    assert (report.callback, report.blocking) == ("lock.acquire", True)
    assert "main" in [frame.name for frame in report.stack]


def test_a_builtin_callback_has_in_debug_mode_the_stack_that_scheduled_it(reports):
    def schedules(loop):
        loop.call_soon(reports.stuck.acquire, True, LONG)

    async def main():
        loop = asyncio.get_running_loop()
        loop.slow_callback_duration = 0.02
        schedules(loop)
        await asyncio.sleep(0)

    goloop.run(main(), debug=True)
    report = reports.get(timeout=LONG)
    assert report.callback == "lock.acquire" and report.stack[-1].name == "schedules"


# ------------------------------------------------------------------------ goroutines
def blocks_in_a_lock(stop):
    stop.acquire(True, LONG)


def blocks_in_a_sleep(stop):
    while not stop.acquire(False):
        time.sleep(0.2)


def computes(stop):
    while not stop.acquire(False):
        pass


@pytest.fixture
def watching():
    """A loop that watches runs in a thread of its own, and with it the workers are watched."""
    loops = queue.Queue()

    async def main():
        loop, end = asyncio.get_running_loop(), asyncio.Event()
        loop.slow_callback_duration = 0.03
        loops.put((loop, end))
        await end.wait()

    thread = threading.Thread(target=lambda: goloop.run(main(), watch=True))
    thread.start()
    loop, end = loops.get(timeout=LONG)
    yield loop
    loop.call_soon_threadsafe(end.set)
    thread.join(LONG)


def of_goroutines(reports):
    """The next report of a goroutine; the machine may be slow, and so may be callbacks."""
    while True:
        report = reports.get(timeout=LONG)
        if report.goroutine is not None:
            return report


@pytest.mark.parametrize("body", [blocks_in_a_lock, blocks_in_a_sleep, computes])
def test_a_goroutine_that_keeps_others_waiting_is_reported(one_worker, watching, reports, body):
    stop, wakes = threading.Lock(), goloop.Chan(1)
    stop.acquire()
    waits = goloop.go(wakes.recv)
    until(lambda: waits.state == "chan receive")
    g = goloop.go(body, stop)
    until(lambda: g.state == "running")
    wakes.try_send(1)  # now it has somebody behind it
    report = of_goroutines(reports)
    stop.release()
    assert (report.phase, report.blocking, report.handed_off) == ("stuck", body is not computes, False)
    assert report.callback == body.__name__ and repr(g).rpartition(" [")[0] in report.goroutine
    assert report.stack[-1].name == body.__name__
    assert report.thread.startswith("goloop-worker") and "others wait behind it" in str(report)
    ended = of_goroutines(reports)
    assert ended.phase == "ended" and ended.seconds >= report.seconds and ended.goroutine == report.goroutine
    g.join(timeout=LONG)
    waits.join(timeout=LONG)


def test_a_timer_that_is_due_waits_behind_a_goroutine_too(one_worker, watching, reports):
    stop = threading.Lock()
    stop.acquire()
    sleeps = goloop.go(goloop.sleep, 0.05)
    until(lambda: sleeps.state == "sleep")
    g = goloop.go(blocks_in_a_lock, stop)
    assert of_goroutines(reports).callback == "blocks_in_a_lock"
    stop.release()
    g.join(timeout=LONG)
    sleeps.join(timeout=LONG)


def test_a_goroutine_with_nobody_behind_it_may_block(one_worker, watching, reports):
    wakes, ends = goloop.Chan(1), threading.Lock()
    waits = goloop.go(wakes.recv)
    until(lambda: waits.state == "chan receive")
    ends.acquire()
    g = goloop.go(blocks_in_a_lock, ends)
    until(lambda: g.state == "running")
    watching.call_soon_threadsafe(stall, reports)
    until(lambda: "ended" in [r.phase for r in list(reports.queue)])  # which began later, and is as slow
    assert [r for r in drain(reports) if r.goroutine] == []
    wakes.try_send(1)  # later than a look at it
    assert of_goroutines(reports).phase == "stuck"
    ends.release()
    g.join(timeout=LONG)
    waits.join(timeout=LONG)


def test_a_callback_that_ends_while_its_report_is_made_is_reported_as_ended(watching, reports, monkeypatch):
    """Its loop sleeps by then, and would see it only after another callback."""
    post = watch._post

    def post_and_see_it_end(report, logged):
        parks = watching._stats()["parks"]
        post(report, logged)
        if report.phase == "stuck":
            until(lambda: watching._stats()["parks"] > parks)

    monkeypatch.setattr(watch, "_post", post_and_see_it_end)
    watching.call_soon_threadsafe(stall, reports)
    phases = [reports.get(timeout=LONG).phase for _ in range(2)]
    assert phases == ["stuck", "ended"]


def drain(reports):
    found = []
    while not reports.empty():
        found.append(reports.get())
    return found


def test_goroutines_that_take_turns_are_not_one_long_callback(one_worker, watching, reports):
    def body():
        for _ in range(40):
            until = time.monotonic() + 0.003
            while time.monotonic() < until:
                pass
            goloop.gosched()

    begun = time.monotonic()
    for g in [goloop.go(body) for _ in range(3)]:
        g.join(timeout=LONG)
    half = (time.monotonic() - begun) / 2
    assert [r for r in drain(reports) if r.goroutine and r.seconds > half] == []


def test_a_goroutine_of_a_builtin_function_has_the_stack_of_its_go(one_worker, watching, reports):
    def starts():
        return goloop.go(stop.acquire, True, LONG)

    stop = threading.Lock()
    stop.acquire()

    wakes = goloop.Chan(1)
    waits = goloop.go(wakes.recv)
    until(lambda: waits.state == "chan receive")
    g = starts()
    until(lambda: g.state == "running")
    wakes.try_send(1)
    report = of_goroutines(reports)
    stop.release()
    assert report.callback == "lock.acquire" and report.stack[-1].name == "starts"
    g.join(timeout=LONG)
    waits.join(timeout=LONG)


def test_workers_are_not_watched_when_no_loop_is(one_worker, reports):
    g = goloop.go(time.sleep, 0.25)
    behind = goloop.go(int)
    g.join(timeout=LONG)
    behind.join(timeout=LONG)
    assert reports.empty()


def test_debug_mode_watches(reports):
    async def main():
        asyncio.get_running_loop().slow_callback_duration = 0.02
        stall(reports)

    goloop.run(main(), debug=True)
    assert reports.get(timeout=LONG).phase == "stuck"


def test_the_environment_turns_it_on(reports, monkeypatch):
    monkeypatch.setenv("GOLOOP_WATCH", "1")

    async def main():
        asyncio.get_running_loop().slow_callback_duration = 0.02
        stall(reports)

    goloop.run(main())
    assert reports.get(timeout=LONG).phase == "stuck"


def test_nothing_is_watched_by_default(reports):
    async def main():
        asyncio.get_running_loop().slow_callback_duration = 0.02
        time.sleep(0.05)

    goloop.run(main(), debug=False)
    assert reports.empty()


def test_a_hook_that_fails_is_logged_and_the_others_are_called(reports, caplog):
    @on_slow
    def fails(report):
        raise ValueError("hook")

    async def main():
        asyncio.get_running_loop().slow_callback_duration = 0.02
        stall(reports)

    try:
        on_slow(reports.put)
        goloop.run(main(), watch=True)
        assert [reports.get(timeout=LONG).phase for _ in range(4)] == ["stuck", "stuck", "ended", "ended"]
    finally:
        assert remove_slow(fails) is True
        assert remove_slow(fails) is False
        remove_slow(reports.put)
    assert any(record.levelno == logging.ERROR and "on_slow" in record.getMessage() for record in caplog.records)


def test_a_hook_must_be_callable():
    with pytest.raises(TypeError, match="on_slow"):
        on_slow(1)
