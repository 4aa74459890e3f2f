"""The pytest plugin: tests in bubbles, with many schedules, and with a look at what they leave behind.

It is there wherever goloop is installed, and does nothing for a test without its marker and a run without its options:

    @pytest.mark.goloop                                     as a goroutine, or a coroutine on a goloop loop
    @pytest.mark.goloop(bubble=True)                        in virtual time
    @pytest.mark.goloop(bubble=True, seeds=50)              in virtual time, with 50 schedules, see explore()
    @pytest.mark.goloop(leaks=True)                         LeakError for what it leaves behind, see no_leaks()

A coroutine test that has the marker with bubble=True is this plugin's also where pytest-asyncio or anyio would run it.
Their fixtures run on a loop of their own then, outside of the bubble. Under hypothesis the draws of its examples choose
the schedule, so that it shrinks that, too.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import os
from collections.abc import Callable, Generator
from typing import Any

import pytest

from goloop.core.sched.bubble import Choices
from goloop.core.sched.goroutine import go
from goloop.debug import SlowCallback, on_slow, remove_slow
from goloop.policy import install
from goloop.policy import run as run_on_loop
from goloop.testing._bubble import run_with
from goloop.testing._explore import explore_with, text_of
from goloop.testing._leaks import no_leaks
from goloop.testing._loop import Start, choices, epoch

_MARKER = (
    "goloop(bubble=False, seeds=None, leaks=False, start=None): run the test as a goroutine or on a goloop loop; "
    "bubble: in virtual time; seeds: how many schedules to try; leaks: fail for what it leaves behind; start: what "
    "time.time() shows at first in a bubble."
)
_SLOW = "goloop slow callback"


@dataclasses.dataclass(frozen=True)
class _Wanted:
    bubble: bool = False
    seeds: int | None = None
    leaks: bool = False
    start: Start = None


def _wanted(item: pytest.Item) -> _Wanted | None:
    """Return what a test's markers ask for, the nearest one first; None without a marker."""
    asked: dict[str, Any] = {}
    found = False
    for mark in reversed(list(item.iter_markers("goloop"))):
        found = True
        if mark.args or mark.kwargs.keys() - {field.name for field in dataclasses.fields(_Wanted)}:
            raise pytest.UsageError(f"{item.nodeid}: the marker goloop is {_MARKER}")
        asked.update(mark.kwargs)
    if not found:
        return None
    wanted = _Wanted(**asked)
    if wanted.seeds is not None and (type(wanted.seeds) is not int or wanted.seeds < 1 or not wanted.bubble):
        raise pytest.UsageError(f"{item.nodeid}: seeds is a number of at least 1, and goes with bubble=True")
    epoch(wanted.start)
    return wanted


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("goloop")
    group.addoption("--goloop", action="store_true", help="make every event loop of the tests one of goloop's")
    group.addoption(
        "--goloop-seed",
        metavar="SEED",
        help='the schedule of tests in bubbles: a number, or what a replay line says, such as "3:1,17:2"',
    )
    group.addoption(
        "--goloop-watch",
        action="store_true",
        help="report at the end which callbacks kept a goloop loop waiting",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", _MARKER)
    seed = config.getoption("goloop_seed")
    if seed is not None:
        try:
            choices(seed)
        except ValueError as exc:
            raise pytest.UsageError(f"--goloop-seed: {exc}") from None
    if config.getoption("goloop"):
        install()
    if config.getoption("goloop_watch"):
        config.pluginmanager.register(_SlowCallbacks(), "goloop-watch")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        _wanted(item)


# ------------------------------------------------------------------- running a test
def _other_plugin(item: pytest.Function) -> bool:
    """Whether pytest-asyncio or anyio is to run it."""
    if type(item).__module__.partition(".")[0] == "pytest_asyncio":
        return True
    return "anyio_backend" in item.fixturenames and inspect.iscoroutinefunction(item.obj)


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, Any, Any]:
    """Put a plain function in the place of a marked test, so that no other plugin takes it for its own."""
    wanted = _wanted(pyfuncitem)
    if wanted is None or (not wanted.bubble and _other_plugin(pyfuncitem)):
        return (yield)
    test = pyfuncitem.obj
    examples = getattr(test, "hypothesis", None)
    if examples is not None:
        inner = examples.inner_test

        @functools.wraps(inner)
        def example(*args: Any, **kwargs: Any) -> None:
            _example(pyfuncitem, wanted, functools.partial(_its_own(inner), *args, **kwargs))

        examples.inner_test = example
        try:
            return (yield)
        finally:
            examples.inner_test = inner
    pyfuncitem.obj = lambda **arguments: _run(pyfuncitem, wanted, functools.partial(_its_own(test), **arguments))
    try:
        return (yield)
    finally:
        pyfuncitem.obj = test


def _its_own(test: Callable[..., Any]) -> Callable[..., Any]:
    """The test's own function, where pytest-asyncio has put another one in its place, which runs it on a loop."""
    own = getattr(test, "__wrapped__", None)
    return own if inspect.iscoroutinefunction(own) and not inspect.iscoroutinefunction(test) else test


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, Any, Any]:
    wanted = _wanted(item)
    if wanted is not None and wanted.leaks and not wanted.bubble and _other_plugin(item):  # type: ignore[arg-type]
        with no_leaks():
            return (yield)
    return (yield)


def _run(item: pytest.Function, wanted: _Wanted, call: Callable[[], Any]) -> None:
    body = _without_leaks(call) if wanted.leaks else call
    seed = item.config.getoption("goloop_seed")
    if not wanted.bubble:
        if inspect.iscoroutinefunction(body):
            run_on_loop(body())
        else:
            go(body).result()
    elif seed is not None or wanted.seeds is None:
        run_with(body, choices(seed), epoch(wanted.start))
    else:
        explore_with(body, wanted.seeds, wanted.start, functools.partial(_replay, item))


def _replay(item: pytest.Function, text: str) -> str:
    return f"pytest '{item.nodeid}' --goloop-seed={text}"


def _example(item: pytest.Function, wanted: _Wanted, call: Callable[[], Any]) -> None:
    """Run one of hypothesis's examples."""
    if not wanted.bubble or item.config.getoption("goloop_seed") is not None:
        _run(item, dataclasses.replace(wanted, seeds=None), call)
        return
    from hypothesis import strategies
    from hypothesis.control import current_build_context

    data = current_build_context().data
    made = Choices(draw=lambda n: data.draw(strategies.integers(0, n - 1)))
    try:
        run_with(_without_leaks(call) if wanted.leaks else call, made, epoch(wanted.start))
    except Exception as exc:
        exc.add_note(f"goloop.testing: replay: {_replay(item, text_of(dict(made.taken)))}")
        raise


def _without_leaks(call: Callable[[], Any]) -> Callable[[], Any]:
    """A function that does the same, and raises for what that leaves behind."""

    async def coroutine() -> None:
        async with no_leaks():
            await call()

    def function() -> None:
        with no_leaks():
            call()

    return coroutine if inspect.iscoroutinefunction(call) else function


# ------------------------------------------------------------------- --goloop-watch
class _SlowCallbacks:
    """Collects the reports of the watch, in the process of each worker where xdist has some, and prints them."""

    def __init__(self) -> None:
        os.environ["GOLOOP_WATCH"] = "1"
        on_slow(self._slow)
        self._test = "before the first test"
        self._lines: dict[object, str] = {}  # by what was slow

    def _slow(self, report: SlowCallback) -> None:
        """Called twice for each, in a thread of goloop's: while it is stuck, and, a little later, when it has ended."""
        key = report.thread, report.callback, report.task, report.goroutine, tuple(map(repr, report.stack))
        before = self._lines.get(key, f"{self._test}: ")
        self._lines[key] = f"{before.partition(': ')[0]}: {str(report).splitlines()[0]}"

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self._test = nodeid

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        output = getattr(session.config, "workeroutput", None)
        if output is not None:
            output[_SLOW] = list(self._lines.values())

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        for line in getattr(node, "workeroutput", {}).get(_SLOW, ()):
            self._lines[len(self._lines)] = line

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        if self._lines:
            terminalreporter.section("goloop: slow callbacks")
            for line in self._lines.values():
                terminalreporter.write_line(line)

    def pytest_unconfigure(self) -> None:
        remove_slow(self._slow)
