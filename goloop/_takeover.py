"""How goloop becomes the loop of a whole program: the names under which loops are made elsewhere stand for goloop's.

install() and `python -m goloop` call take_over(). Names in asyncio are replaced at once. Names in uvloop, and in the
part of multiprocessing that starts fresh interpreters, are replaced when the program imports them, by a finder that
stands first in sys.meta_path. Nothing here imports either of them, and nothing can be undone.
"""

from __future__ import annotations

import asyncio
import atexit
import sys
from asyncio import events, unix_events
from collections.abc import Callable, Coroutine
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from goloop._eventloop import policy
from goloop._eventloop.loop import Loop
from goloop.runtime import fork

_taken_over = False
_foreign: dict[type, None] | None = None  # other classes whose loops have run, in order; None: no report is due
_ours_ran = False


def take_over() -> None:
    """Make every loop that is made in an ordinary way from here on goloop's; see goloop.install()."""
    global _taken_over
    for module in (asyncio, unix_events):
        for name in ("SelectorEventLoop", "EventLoop"):
            if hasattr(module, name):
                setattr(module, name, Loop)
    default_policy: Any = getattr(unix_events, "_UnixDefaultEventLoopPolicy", None)
    if default_policy is None:
        events.new_event_loop = asyncio.new_event_loop = policy.new_event_loop
    else:
        default_policy._loop_factory = Loop  # for a program that goes back to it
        set_policy = getattr(events, "_set_event_loop_policy", asyncio.set_event_loop_policy)  # 3.14: without a warning
        set_policy(policy.EventLoopPolicy())
    if not _taken_over:
        _taken_over = True
        sys.meta_path.insert(0, _Finder())
        for name, change in _CHANGES.items():
            if name in sys.modules:
                change(sys.modules[name])


# ------------------------------------------------------------------- uvloop
def _run_as_uvloop(
    main: Coroutine[Any, Any, Any],
    *,
    loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = policy.new_event_loop,
    debug: bool | None = None,
) -> Any:
    """As uvloop.run()."""
    with asyncio.Runner(loop_factory=loop_factory, debug=debug) as runner:
        return runner.run(main)


def _change_uvloop(uvloop: Any) -> None:
    uvloop.Loop = Loop
    uvloop.new_event_loop = policy.new_event_loop
    uvloop.run = _run_as_uvloop
    uvloop.install = take_over
    if hasattr(policy, "EventLoopPolicy"):
        uvloop.EventLoopPolicy = policy.EventLoopPolicy


# ---------------------------------------------------------- child processes
class _InChild:
    """Unpickling it takes over. It travels with what multiprocessing tells a fresh interpreter about its parent, which
    that one reads before anything of the program."""

    def __reduce__(self) -> tuple[Callable[..., None], tuple[bool]]:
        return _start_child, (_foreign is not None,)


def _start_child(report: bool) -> None:
    if report:
        report_at_exit()
    take_over()


def _change_spawn(spawn: Any) -> None:
    preparation_data = spawn.get_preparation_data

    def get_preparation_data(name: str) -> dict[str, Any]:
        return {"goloop": _InChild(), **preparation_data(name)}

    spawn.get_preparation_data = get_preparation_data


# -------------------------------------------------------- at a later import
_CHANGES: dict[str, Callable[[Any], None]] = {"uvloop": _change_uvloop, "multiprocessing.spawn": _change_spawn}


class _Finder:
    """Finds the modules to change by way of the finders after it."""

    def find_spec(self, name: str, path: Any = None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name not in _CHANGES:
            return None
        for finder in sys.meta_path:
            find_spec = getattr(finder, "find_spec", None)
            spec: Any = find_spec(name, path, target) if find_spec is not None and finder is not self else None
            if spec is not None:
                if hasattr(spec.loader, "exec_module"):  # a folder without an __init__.py has no loader
                    spec.loader = _Loader(spec.loader, _CHANGES[name])
                return spec  # type: ignore[no-any-return]
        return None


class _Loader:
    """Loads a module as its own loader does, which the module is left with, and changes it."""

    def __init__(self, inner: Any, change: Callable[[Any], None]) -> None:
        self.inner = inner
        self.change = change

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        module: ModuleType | None = self.inner.create_module(spec)
        return module

    def exec_module(self, module: ModuleType) -> None:
        assert module.__spec__ is not None
        module.__loader__ = module.__spec__.loader = self.inner
        self.inner.exec_module(module)
        self.change(module)


# --------------------------------------------------------- which loops ran
def report_at_exit() -> None:
    """At the end of the process, if loops have run and none was goloop's, say on stderr which."""
    global _foreign
    if _foreign is not None:
        return
    _foreign = {}
    set_running_loop = events._set_running_loop

    def note(loop: Any) -> None:
        global _ours_ran
        if isinstance(loop, Loop):
            _ours_ran = True
        elif loop is not None and _foreign is not None and not hasattr(loop, "looks_inside"):  # goloop.debug's page
            _foreign[type(loop)] = None
        set_running_loop(loop)

    # Every loop calls it when it starts to run; uvloop takes it from the package.
    events._set_running_loop = asyncio._set_running_loop = note
    atexit.register(_report)
    fork.add(_forget)


def _forget() -> None:
    """A forked child tells of its own loops."""
    global _ours_ran
    _ours_ran = False
    if _foreign is not None:
        _foreign.clear()


def _report() -> None:
    if _foreign and not _ours_ran:
        names = " and ".join(f"{kind.__module__}.{kind.__qualname__}" for kind in _foreign)
        try:
            sys.stderr.write(f"python -m goloop: none of the loops that ran was goloop's, but {names}\n")
        except (AttributeError, OSError, ValueError):
            pass  # stderr is closed, or was never there
