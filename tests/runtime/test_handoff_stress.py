"""Callbacks never run at the same time: the stress program for some seconds, and processes with odd conditions."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.runtime import handoff_stress

PROGRAM = Path(handoff_stress.__file__)


@pytest.mark.parametrize(
    ("seed", "regions", "debug", "interval"),
    [(1, False, False, None), (2, True, False, None), (3, False, True, None), (4, False, False, 5e-5)],
)
def test_no_two_callbacks_at_once(seed, regions, debug, interval):
    stress = handoff_stress.run(2.0, seed, regions=regions, debug=debug, interval=interval)
    assert stress.violations == []
    assert stress.done["handoffs"] > 20


@pytest.mark.parametrize("fault", ["rogue", "deaf"])
def test_the_program_finds_a_fault(fault):
    """A proof that cannot fail would be none."""
    if fault == "deaf" and sys.version_info < (3, 12):
        pytest.skip("the trap is no matter of sys.monitoring before 3.12")
    command = [sys.executable, PROGRAM, "--seconds", "60", "--seed", "6", "--interval", "0.00002", "--fault", fault]
    done = subprocess.run(command, capture_output=True, text=True, timeout=110)
    assert done.returncode == 1 and "VIOLATION: " in done.stdout, done.stdout + done.stderr


def test_a_process_that_is_stopped_and_continued():
    command = [sys.executable, PROGRAM, "--seconds", "3", "--seed", "5"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        child.stdout.readline()
        for _ in range(6):
            time.sleep(0.3)
            os.kill(child.pid, signal.SIGSTOP)
            time.sleep(0.1)
            os.kill(child.pid, signal.SIGCONT)
        output = child.stdout.read()
    assert "\n0 violations" in output and child.returncode == 0, output


def test_the_cap_of_threads():
    """Three threads besides home: of ten blocking calls four are under way at a time, and all end."""
    code = """
import asyncio, threading, goloop
most = now = 0
over = threading.Event()
async def blocks():
    global most, now
    now += 1
    most = max(most, now)
    if now == 4:
        threading.Timer(0.2, over.set).start()  # time for a fifth one, were there no cap
    over.wait(50)
    now -= 1
async def main():
    await asyncio.gather(*(blocks() for _ in range(10)))
goloop.run(main(), handoff=True)
print(most)
"""
    environment = {**os.environ, "GOLOOP_MAXTHREADS": "3"}
    output = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60)
    assert output.returncode == 0 and output.stderr == "", output.stderr
    assert int(output.stdout) == 4


def test_a_process_ends_while_callbacks_are_stuck():
    code = """
import asyncio, threading, time, goloop
started = threading.Event()
async def first():
    return started.wait(50)  # home returns from here; the other one is stuck in a substitute
async def blocks():
    started.set()
    time.sleep(1000)
async def main():
    loop = asyncio.get_running_loop()
    loop._ownership.drain_timeout = 0.1
    tasks = [asyncio.create_task(first()), asyncio.create_task(blocks())]
    assert await tasks[0]
loop = goloop.Loop(handoff=True)
loop.run_until_complete(main())
print("end")
"""
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert output.stdout == "end\n" and output.returncode == 0
    assert "is stuck in a blocking call" in output.stderr and "in blocks" in output.stderr
