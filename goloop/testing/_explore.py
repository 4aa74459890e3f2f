"""explore(): run a test with many seeds; a failure is brought down to the few choices that matter, and replayed."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterable
from typing import Any

from goloop.core.sched.bubble import Choices
from goloop.testing._bubble import run_with
from goloop.testing._loop import Start, epoch

_TRIES = 400  # runs at most that shrinking may take

_Plan = dict[int, int]


def explore(test: Callable[[], Any], seeds: int | Iterable[int] = 1000, start: Start = None) -> None:
    """Run a test in a bubble with one seed after the other, until it fails (as Loom and Shuttle do for Rust).

    test: a coroutine function or a plain function without arguments; TypeError for anything else. It gets a new bubble
    for each run, so it has to make what it tests anew. seeds: how many, from 0 on, or the seeds themselves; ValueError
    for less than one. The first run is without a seed. start: as for bubble().

    The exception of a run that fails is raised: not of the first such run, but of one that comes from it by taking back
    choices for as long as the same type of exception is raised, so that few are left that differ from first come, first
    served. One line says how to replay that one; it goes to the standard error output and is a note of the
    exception. The choices of a seed, and of a replay line, are the same on every Python. In a plain thread.
    """
    name = getattr(test, "__qualname__", None) or repr(test)
    explore_with(test, seeds, start, lambda text: f'goloop.testing.run({name}, seed="{text}")')


def explore_with(
    test: Callable[[], Any], seeds: int | Iterable[int], start: Start, replay: Callable[[str], str]
) -> None:
    """explore(), for the pytest plugin. replay: says how to run it again with the text of a seed."""
    if not callable(test) or asyncio.iscoroutine(test):
        raise TypeError(f"explore() takes a function without arguments, as it runs it again and again, got {test!r}")
    if isinstance(seeds, int):
        if isinstance(seeds, bool) or seeds < 1:
            raise ValueError(f"explore() takes a number of seeds of at least 1, or the seeds, got {seeds!r}")
        seeds = range(seeds)
    begin = epoch(start)
    failure = _attempt(test, Choices(), begin)
    if failure is not None:
        _fail(failure, "fails without a seed", replay("0:0"))
    for seed in seeds:
        choices = Choices(seed)
        failure = _attempt(test, choices, begin)
        if failure is not None:
            plan, least = _shrink(test, begin, dict(choices.taken), type(failure))
            if least is None:
                _fail(failure, f"fails with seed {seed}, but not again: it depends on more than its choices", "")
            assert least is not None
            _fail(least, f"fails with seed {seed}", replay(text_of(plan)))


def text_of(plan: _Plan) -> str:
    """Return a plan as a replay line has it."""
    return ",".join(f"{number}:{choice}" for number, choice in sorted(plan.items())) or "0:0"


def _fail(failure: BaseException, what: str, line: str) -> None:
    text = f"goloop.testing: {what}; replay: {line}" if line else f"goloop.testing: {what}"
    print(text, file=sys.stderr)
    failure.add_note(text)
    raise failure


def _attempt(test: Callable[[], Any], choices: Choices, begin: float) -> BaseException | None:
    """Run it once; return what it has raised."""
    try:
        run_with(test, choices, begin)
    except BaseException as exc:
        if _ends_all(exc):
            raise
        return exc
    return None


def _ends_all(exc: BaseException) -> bool:
    """Whether it is no failure of the test: an interrupt, or pytest's skip(), xfail() or exit()."""
    if type(exc).__module__ == "_pytest.outcomes":
        return type(exc).__name__ != "Failed"
    return isinstance(exc, (KeyboardInterrupt, SystemExit, GeneratorExit))


def _shrink(
    test: Callable[[], Any], begin: float, plan: _Plan, kind: type[BaseException]
) -> tuple[_Plan, BaseException | None]:
    """Return the fewest choices, and the smallest, with which it still fails, and how it fails with them."""
    best: _Plan = plan
    found: BaseException | None = None
    left = _TRIES

    def fails(candidate: _Plan) -> bool:
        nonlocal best, found, left
        left -= 1
        choices = Choices(planned=candidate)
        failure = _attempt(test, choices, begin)
        if failure is None or type(failure) is not kind:
            return False
        best, found = dict(choices.taken), failure  # what the plan has that was not used is gone
        return True

    if not fails(plan):
        return plan, None
    size = len(best)
    before = 0
    while left > 0 and (size > 1 or len(best) != before):
        before = len(best)
        size = max(1, size // 2)
        numbers = sorted(best, reverse=True)  # the last ones first: most come after the failure
        for at in range(0, len(numbers), size):
            part = best.keys() & numbers[at : at + size]
            if part and left > 0:
                fails({n: choice for n, choice in best.items() if n not in part})
    for number in sorted(best):
        for smaller in range(1, best.get(number, 0)):
            if left > 0 and fails({**best, number: smaller}):
                break
    return best, found
