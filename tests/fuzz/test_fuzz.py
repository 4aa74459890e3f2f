"""Random programs run alike on asyncio and on goloop; for a longer look there is python -m tests.fuzz.run.

FUZZ_SECONDS sets how long (30), FUZZ_SEED the first seed, FUZZ_COUNT how many at most (2000). The seeds are the same
every day: what a new one finds is for somebody who looks for it, not for whoever changes something else.
"""

import contextlib
import os
import time

import pytest

from tests.fuzz import callbacks, tracing
from tests.fuzz.program import make
from tests.fuzz.tracing import describe, difference, minimised

LOOPS = ("asyncio", "goloop")
SECONDS = float(os.environ.get("FUZZ_SECONDS", "30"))
SEED = int(os.environ.get("FUZZ_SEED", "0"))
COUNT = int(os.environ.get("FUZZ_COUNT", "2000"))


@pytest.mark.timeout(2 * SECONDS + 120)
def test_random_programs_run_as_on_asyncio():
    until = time.monotonic() + SECONDS
    for seed in range(SEED, SEED + COUNT):
        program = make(seed)
        traces = difference(program, LOOPS)
        if traces:
            smaller = minimised(program, LOOPS)
            again = difference(smaller, LOOPS)
            found = describe(smaller, LOOPS, again) if again else describe(program, LOOPS, traces)
            pytest.fail(f"python -m tests.fuzz.run --seed {seed} --count 1\n{found}")
        if time.monotonic() > until:
            break


@pytest.mark.parametrize("seed", [1, 2, 5, 8])
def test_the_generator_is_steady(seed):
    assert make(seed) == make(seed)
    assert difference(make(seed), ("asyncio", "asyncio")) is None


# What was found once, and where it came from: asyncio's, or the order of events that do not depend on each other.
FOUND = {
    "a close in resume_writing()": [[(0, 1, ("react", "resume", [("close",)])), (0, 1, ("write", 2_000_000))]],
    "an abort there, behind a write": [
        [(0, 1, ("react", "resume", [("write", 3_000_000), ("abort",)]))],
        [(0, 1, ("write", 2_000_000))],
    ],
    "an error at the end of the stream while the peer reads": [
        [(0, 0, ("react", "eof", [("pause",), ("eof",), ("raise",)]))],
        [(0, 1, ("eof",)), (0, 0, ("write", 1))],
    ],
}


@pytest.mark.parametrize("steps", FOUND.values(), ids=FOUND)
def test_a_program_that_was_found_is_no_difference_any_more(steps):
    wires = [("unix", "serve", True, "buffered", "protocol")]
    program = {"kind": "wires", "seed": None, "debug": False, "wires": wires, "body": ([], steps)}
    assert difference(program, LOOPS) is None


def test_a_program_that_hangs_leaves_the_stacks_of_all_threads(monkeypatch):
    def hang(program, loop, trace):
        with contextlib.closing(loop):
            loop.run_until_complete(loop.create_future())

    monkeypatch.setattr(callbacks, "interpret", hang)
    monkeypatch.setattr(tracing, "WATCHDOG", 0.05)
    trace = tracing.run({"kind": "callbacks", "debug": False}, "goloop")
    assert tracing.hung(trace) and "hang" in str(trace["outcome"][1])


def test_a_program_that_waits_for_a_processor_does_not_hang(monkeypatch):
    waited = iter([0.0, 0.03, 10.0])

    def slow(program, loop, trace):
        while next(looks, None) is not None:
            time.sleep(0.001)
        loop.close()

    looks = iter(range(100))
    monkeypatch.setattr(callbacks, "interpret", slow)
    monkeypatch.setattr(tracing, "WATCHDOG", 0.02)
    monkeypatch.setattr(tracing, "queued", lambda: next(waited, 10.0))
    assert tracing.run({"kind": "callbacks", "debug": False}, "goloop") == {}
    assert next(waited, None) is None  # it was asked
