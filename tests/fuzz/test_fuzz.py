"""Random programs run alike on asyncio and on goloop; for a longer look there is run.py.

FUZZ_SECONDS sets how long (30), FUZZ_SEED the first seed, FUZZ_COUNT how many at most (2000). The seeds are the same
every day: what a new one finds is for somebody who looks for it, not for whoever changes something else.
"""

import os
import time

import pytest
from program import make
from tracing import describe, difference, minimised

LOOPS = ("asyncio", "goloop")
SECONDS = float(os.environ.get("FUZZ_SECONDS", "30"))
SEED = int(os.environ.get("FUZZ_SEED", "0"))
COUNT = int(os.environ.get("FUZZ_COUNT", "2000"))


@pytest.mark.timeout(2 * SECONDS + 120)
def test_random_programs_run_as_on_asyncio():
    until = time.monotonic() + SECONDS
    for seed in range(SEED, SEED + COUNT):
        program = make(seed)
        if difference(program, LOOPS):
            smaller = minimised(program, LOOPS)
            found = difference(smaller, LOOPS) or difference(program, LOOPS)
            pytest.fail(
                f"run.py --seed {seed} --count 1\n" + (describe(smaller, LOOPS, found) if found else repr(program))
            )
        if time.monotonic() > until:
            break


@pytest.mark.parametrize("seed", [1, 2, 5, 8])
def test_the_generator_is_steady(seed):
    assert make(seed) == make(seed)
    assert difference(make(seed), ("asyncio", "asyncio")) is None
