"""Runs one program on one loop, and compares what two loops made of it.

A trace is a dict of lists, one for each actor, of plain values that compare equal when the loops behaved
alike. The interpreters (callbacks.py, wires.py) write only what asyncio promises into it. A watchdog bounds
every run: a loop that hangs leaves a trace that says so, with the stacks of all threads.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import glob
import importlib
import logging
import signal
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from tests.fuzz.program import Program

Events = dict[str, list[tuple[object, ...]]]  # by actor

WATCHDOG = 6.0  # seconds a program may take; it needs a few hundredths of one
INTERPRETERS = {"callbacks": "tests.fuzz.callbacks", "wires": "tests.fuzz.wires"}


class Hung(KeyboardInterrupt):
    """Raised by the watchdog. A KeyboardInterrupt, since loops and tasks let those pass."""


class Oops(Exception):
    """What programs raise."""


class Trace:
    """Events by actor; `activity` counts them, so that an interpreter can tell when nothing happens any more."""

    def __init__(self) -> None:
        self.actors: Events = {}
        self.activity = 0

    def note(self, actor: str, *event: object) -> None:
        self.activity += 1
        self.actors.setdefault(actor, []).append(event)


def new_loop(name: str) -> Any:
    """A loop by name: asyncio, goloop, uvloop, or module:callable."""
    if name == "asyncio":
        return asyncio.SelectorEventLoop()
    if ":" in name:
        module, _, attribute = name.partition(":")
        return getattr(importlib.import_module(module), attribute)()
    loop = importlib.import_module(name).new_event_loop()
    if name == "goloop":
        loop._look_ns = 0  # look at the poll set in each iteration, as asyncio does: the order is compared
    return loop


def plain(message: str) -> str:
    """A report's message without what differs from run to run: reprs, names of classes."""
    if message.startswith("Exception in callback"):
        return "Exception in callback"
    return message.split("\n")[0].split("<")[0]


def recorder(trace: Trace, actor: str = "reports") -> Callable[[Any, dict[str, Any]], None]:
    """An exception handler that writes down what it is given."""

    def handler(_: object, context: dict[str, Any]) -> None:
        message = context["message"]
        if "never retrieved" not in message:  # comes whenever the garbage collector does
            trace.note(actor, plain(message), type(context.get("exception")).__name__)

    return handler


class _Log(logging.Handler):
    def __init__(self, trace: Trace) -> None:
        super().__init__(logging.ERROR)
        self.trace = trace

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if "never retrieved" not in text:
            kind = record.exc_info[0] if isinstance(record.exc_info, tuple) else None
            self.trace.note("log", plain(text), kind and kind.__name__)


@contextlib.contextmanager
def _quiet(trace: Trace) -> Iterator[None]:
    """The asyncio logger's errors go to the trace; the collector runs only afterwards."""
    logger, handler = logging.getLogger("asyncio"), _Log(trace)
    before = logger.propagate
    logger.propagate = False
    logger.addHandler(handler)
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()
        logger.removeHandler(handler)
        logger.propagate = before


def queued() -> float:
    """Seconds that this process's threads have waited for a processor."""
    total = 0
    for name in glob.glob("/proc/self/task/*/schedstat"):
        with contextlib.suppress(OSError), open(name) as file:  # a thread may end meanwhile
            total += int(file.read().split()[1])
    return total / 1e9


@contextlib.contextmanager
def watchdog(seconds: float) -> Iterator[None]:
    """Raise Hung in the main thread after that time, again every second; put back the timer that was set.

    The time counts in which the program ran or slept: on a crowded machine one that does not get its turn is slow, but
    has not hung.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    start, before = time.monotonic(), queued()

    def bark(*_: object) -> None:
        left = seconds - (time.monotonic() - start) + (queued() - before)
        if left <= 0:
            raise Hung
        signal.setitimer(signal.ITIMER_REAL, left, 1.0)

    handler = signal.signal(signal.SIGALRM, bark)
    left, interval = signal.setitimer(signal.ITIMER_REAL, seconds, 1.0)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
        if left:
            signal.setitimer(signal.ITIMER_REAL, max(left - (time.monotonic() - start), 0.001), interval)


def _stacks(exc: BaseException) -> list[str]:
    """Where the main thread was, and where the others are."""
    frames = {n: traceback.extract_stack(frame) for n, frame in sys._current_frames().items()}
    frames[threading.get_ident()] = traceback.extract_tb(exc.__traceback__)
    return [" < ".join(f"{f.name}:{f.lineno}" for f in reversed(frame[-8:])) for frame in frames.values()]


def run(program: Program, name: str) -> Events:
    """The trace of a program on the loop of that name."""
    trace = Trace()
    interpreter = importlib.import_module(INTERPRETERS[program["kind"]])
    with warnings.catch_warnings(), _quiet(trace):
        warnings.simplefilter("ignore")
        try:
            with watchdog(WATCHDOG):
                loop = new_loop(name)
                loop.set_debug(program["debug"])
                loop.slow_callback_duration = 1e9
                interpreter.interpret(program, loop, trace)
        except Hung as exc:
            trace.note("outcome", "hung")
            trace.note("outcome", "where", *_stacks(exc))
        except Exception as exc:
            trace.note("outcome", "failed", type(exc).__name__, str(exc))
    if trace.actors.get("outcome"):
        gc.collect()
    return trace.actors


def difference(program: Program, loops: Sequence[str]) -> tuple[Events, Events] | None:
    """None, or the two traces of a program where they differ in every one of three attempts.

    Where the first loop does not agree with itself the program is no good, and counts as no difference. A loop
    that hangs where the first does not is different at once: races show themselves when they like.
    """
    last = None
    for _ in range(3):
        oracle, subject = (run(program, name) for name in loops)
        if oracle == subject or (last is not None and oracle != last):
            return None
        if hung(subject) and not hung(oracle):
            break
        last = oracle
    return oracle, subject


def hung(trace: Events) -> bool:
    return ("hung",) in trace.get("outcome", ())


def _lists(tree: Any, path: Sequence[int] = ()) -> Iterator[tuple[Sequence[int], int]]:
    if isinstance(tree, list | tuple):
        if isinstance(tree, list):
            yield path, len(tree)
        for i, child in enumerate(tree):
            yield from _lists(child, (*path, i))


def _without(tree: Any, path: Sequence[int], start: int, stop: int) -> Any:
    if not path:
        return tree[:start] + tree[stop:]
    at, *rest = path
    return type(tree)(_without(child, rest, start, stop) if i == at else child for i, child in enumerate(tree))


def minimised(program: Program, loops: Sequence[str], seconds: float = 20.0) -> Program:
    """A smaller program that still makes a difference: pieces of its lists are left out, large ones first."""
    until = time.monotonic() + seconds
    changed = True
    while changed:
        changed = False
        for path, length in sorted(_lists(program["body"]), key=lambda found: len(found[0])):
            size = length
            while size and not changed:
                for start in range(0, length, size):
                    if time.monotonic() > until:
                        return program
                    smaller = {**program, "body": _without(program["body"], path, start, start + size)}
                    if difference(smaller, loops):
                        program, changed = smaller, True
                        break
                size //= 2
            if changed:
                break
    for i in range(len(program.get("wires", ()))):
        wires = program["wires"]
        smaller = {**program, "wires": [*wires[:i], None, *wires[i + 1 :]]}
        if difference(smaller, loops):
            program = smaller
    return program


def differing(oracle: Events, subject: Events) -> list[tuple[str, int, Any, Any]]:
    """Those actors' events that are not the same in both traces: (actor, index, oracle's, subject's)."""
    found = []
    for actor in sorted({*oracle, *subject}):
        left, right = oracle.get(actor, []), subject.get(actor, [])
        if left != right:
            at = next(
                (i for i, (a, b) in enumerate(zip(left, right, strict=False)) if a != b), min(len(left), len(right))
            )
            found.append((actor, at, left[at : at + 3], right[at : at + 3]))
    return found


def describe(program: Program, loops: Sequence[str], traces: Sequence[Events]) -> str:
    """A report: the program, where the traces part, and both traces."""
    from pprint import pformat

    lines = [f"seed {program['seed']} ({program['kind']})", pformat(program, width=110, sort_dicts=False)]
    for actor, at, left, right in differing(*traces):
        lines.append(f"actor {actor!r}, event {at}:\n  {loops[0]}: {left}\n  {loops[1]}: {right}")
    for name, trace in zip(loops, traces, strict=True):
        lines.append(f"trace on {name}:\n{pformat(trace, width=110)}")
    return "\n".join(lines)
