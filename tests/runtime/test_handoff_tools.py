"""Handoff with debuggers, profilers and coverage at work: callbacks take turns, and the tool misses nothing."""

import asyncio
import bdb
import os
import subprocess
import sys
import threading

import pytest

import goloop
from tests.helpers.handoffs import run
from tests.helpers.waiting import SECONDS


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
        event.wait(SECONDS)
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
        event.wait(SECONDS)
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
        assert event.wait(SECONDS)
        assert asyncio.get_running_loop()._stats()["handoffs"] == 1

    profile = cProfile.Profile()
    profile.enable()
    try:
        run(main())
    finally:
        profile.disable()
    names = {entry.code.co_name for entry in profile.getstats() if not isinstance(entry.code, str)}
    assert "main" in names and "wait" in names


async def alone(blocks, count=4):
    """Run `blocks` in several tasks at a time; return what they did and how often two of them were inside."""
    inside, overlaps, barrier = [], [], threading.Barrier(count)

    async def one(n):
        inside.append(n)
        for k in range(3):
            inside.remove(n)
            got = blocks(barrier, n + k)
            overlaps.extend(inside)
            inside.append(n)
            assert got == n + k
            for _ in range(2000):
                pass
        inside.remove(n)
        return n

    assert await asyncio.gather(*(one(n) for n in range(count))) == list(range(count))
    return overlaps


def blocks(barrier, value):
    barrier.wait(SECONDS)
    return value


def test_a_debugger_goes_on():
    """bdb, which pdb and others stand on, counts the lines; it traces home, where the loop comes back to."""

    class Debugger(bdb.Bdb):
        def __init__(self):
            super().__init__()
            self.lines = []

        def user_line(self, frame):
            if frame.f_code is steps.__code__:
                self.lines.append(frame.f_lineno - steps.__code__.co_firstlineno)

    debugger, event = Debugger(), threading.Event()

    def steps(event):
        event.wait(SECONDS)
        first = 1
        return first + 1

    async def main():
        loop = asyncio.get_running_loop()
        loop.call_soon(event.set)
        debugger.reset()
        debugger.set_step()
        before, inside = sys.gettrace(), debugger.trace_dispatch
        sys.settrace(inside)
        try:
            assert steps(event) == 2
            assert sys.gettrace() == inside
        finally:
            sys.settrace(before)
        assert loop._stats()["handoffs"] == 1

    run(main())
    assert debugger.lines == [1, 2, 3]


def test_callbacks_take_turns_under_a_trace_function_in_all_threads():
    traced = set()

    def tracer(frame, what, argument):
        if frame.f_code is blocks.__code__ and what == "line":
            traced.add((threading.get_ident(), frame.f_lineno - blocks.__code__.co_firstlineno))
        return tracer

    before = sys.gettrace()
    threading.settrace(tracer)
    sys.settrace(tracer)
    try:
        overlaps = run(alone(blocks))
    finally:
        sys.settrace(before)
        threading.settrace(before)
    assert overlaps == []
    threads = {thread for thread, _ in traced}
    assert len(threads) >= 4 and traced == {(thread, line) for thread in threads for line in (1, 2)}


def test_a_profiler_in_all_threads():
    calls = []

    def profiler(frame, what, argument):
        if frame.f_code is blocks.__code__:
            calls.append(what)

    threading.setprofile(profiler)
    sys.setprofile(profiler)
    try:
        assert run(alone(blocks)) == []
        assert sys.getprofile() is profiler
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    assert calls.count("call") == calls.count("return") == 12


@pytest.mark.parametrize("core", ["ctrace", "sysmon"])
def test_coverage_misses_nothing(core, tmp_path):
    """The same lines as without handoff, in every thread, and callbacks take turns."""
    coverage = pytest.importorskip("coverage")
    if core == "sysmon" and sys.version_info < (3, 12):
        pytest.skip("coverage's sysmon core needs Python 3.12")
    program = tmp_path / "program.py"
    program.write_text(COVERED)
    data = tmp_path / "data"
    environment = {**os.environ, "COVERAGE_CORE": core, "COVERAGE_FILE": str(data)}
    command = [sys.executable, "-m", "coverage", "run", f"--include={program}", program]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, env=environment)
    assert (done.returncode, done.stdout) == (0, "alone 4 [0, 1, 2, 3]\n"), done.stdout + done.stderr
    recorded = coverage.CoverageData(str(data))
    recorded.read()
    missing = {n for n, line in enumerate(COVERED.splitlines(), 1) if line.endswith("# covered")} - set(
        recorded.lines(str(program))
    )
    assert missing == set()


COVERED = """
import asyncio, threading
import goloop

barrier = threading.Barrier(4)
inside, overlaps = [], []

def calls(n):
    barrier.wait(60)  # covered
    overlaps.extend(inside)  # covered
    return n  # covered

def fails():
    barrier.wait(60)  # covered
    time.sleep  # covered

async def one(n):
    got = calls(n)  # covered
    inside.append(n)  # covered
    for _ in range(3000):
        pass  # covered
    inside.remove(n)  # covered
    try:
        fails()  # covered
    except NameError:  # covered
        overlaps.extend(inside)  # covered
    return got  # covered

async def main():
    got = await asyncio.gather(*(one(n) for n in range(4)))  # covered
    handoffs = asyncio.get_running_loop()._stats()["handoffs"]
    print("alone" if not overlaps else "overlaps", min(handoffs, 4), got)

goloop.run(main(), handoff=True)
"""
