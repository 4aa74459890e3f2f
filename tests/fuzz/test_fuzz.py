"""Random programs run alike on asyncio and on goloop; for a longer look there is run.py.

FUZZ_SECONDS sets how long (45), FUZZ_SEED the first seed. Without it one half of the time goes to the seeds
from 0 on, which are the same every day, the other to some that are today's.
"""

import datetime
import os
import time

import pytest
from program import make
from tracing import describe, difference, minimised

LOOPS = ("asyncio", "goloop")
SECONDS = float(os.environ.get("FUZZ_SECONDS", "45"))


def _seeds():
    if "FUZZ_SEED" in os.environ:
        return {"given": int(os.environ["FUZZ_SEED"])}
    return {"fixed": 0, "today": datetime.date.today().toordinal() * 1_000_000}


@pytest.mark.timeout(2 * SECONDS + 120)
@pytest.mark.parametrize("seed", _seeds().values(), ids=_seeds().keys())
def test_random_programs_run_as_on_asyncio(seed):
    until = time.monotonic() + SECONDS / len(_seeds())
    first = seed
    while time.monotonic() < until or seed == first:
        program = make(seed)
        if difference(program, LOOPS):
            smaller = minimised(program, LOOPS)
            found = difference(smaller, LOOPS) or difference(program, LOOPS)
            pytest.fail(
                f"run.py --seed {seed} --count 1\n" + (describe(smaller, LOOPS, found) if found else repr(program))
            )
        seed += 1


@pytest.mark.parametrize("seed", [1, 2, 5, 8])
def test_the_generator_is_steady(seed):
    assert make(seed) == make(seed)
    assert difference(make(seed), ("asyncio", "asyncio")) is None
