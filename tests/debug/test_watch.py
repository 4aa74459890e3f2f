"""The watch: reports of callbacks that are stuck, made while they are."""

import asyncio
import logging
import queue
import threading
import time

import pytest

import goloop
from goloop.debug import SlowCallback, on_slow, remove_slow, watch

LONG = 60


@pytest.fixture
def reports():
    """A queue that gets every report."""
    got = queue.Queue()
    watch._sites.clear()  # another test may have reported the same call site
    on_slow(got.put)
    yield got
    remove_slow(got.put)


def block(event):
    event.wait(LONG)


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
        await asyncio.sleep(0.01)

    goloop.run(main(), watch=True)
    report = reports.get(timeout=LONG)
    assert (report.phase, report.blocking, report.task) == ("stuck", False, None)
    assert report.callback.endswith("callback")
    assert reports.get(timeout=LONG).phase == "ended"


def test_one_that_was_handed_off_is_reported_too(reports):
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


def test_one_report_a_call_site(reports):
    async def main():
        loop = asyncio.get_running_loop()
        loop.slow_callback_duration = 0.02
        for _ in range(3):
            time.sleep(0.05)
            await asyncio.sleep(0)
        time.sleep(0.05)  # another site

    goloop.run(main(), watch=True)
    got = [reports.get(timeout=LONG) for _ in range(4)]
    assert [report.phase for report in got] == ["stuck", "ended"] * 2
    assert got[0].stack[-1].lineno != got[2].stack[-1].lineno
    assert reports.empty()


def test_debug_mode_watches(reports):
    async def main():
        asyncio.get_running_loop().slow_callback_duration = 0.02
        time.sleep(0.05)

    goloop.run(main(), debug=True)
    assert reports.get(timeout=LONG).phase == "stuck"


def test_the_environment_turns_it_on(reports, monkeypatch):
    monkeypatch.setenv("GOLOOP_WATCH", "1")

    async def main():
        asyncio.get_running_loop().slow_callback_duration = 0.02
        time.sleep(0.05)

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
        time.sleep(0.05)

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
