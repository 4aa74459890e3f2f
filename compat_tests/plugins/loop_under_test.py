"""Puts the loop under test where asyncio's own loop stands, before any test module is imported.

Owns the names of the loops that compat_tests knows. Loaded as a pytest plugin ahead of collection; the
loop is the one that COMPAT_LOOP names. Nothing of a suite is edited: asyncio.SelectorEventLoop and
asyncio.EventLoop become a StandIn, and asyncio's default policy makes its loops with it, so that
asyncio.new_event_loop(), asyncio.run(), asyncio.Runner, IsolatedAsyncioTestCase, policies that tests
make or reset, and the `create_event_loop` methods of mixins all end at the same loop.
"""

from __future__ import annotations

import asyncio
import importlib
import os
from asyncio import unix_events
from collections.abc import Callable
from typing import Any

# name -> (module, class, function that makes one)
LOOPS = {
    "asyncio": ("asyncio", "SelectorEventLoop", "SelectorEventLoop"),
    "uvloop": ("uvloop", "Loop", "new_event_loop"),
    "goloop": ("goloop", "Loop", "new_event_loop"),
}


class StandIn:
    """Answers for a loop class: makes loops, may be subclassed, and knows its instances.

    An instance and not a subclass of the loop's class, because a subclass has a __dict__ and a type of its
    own, and that could hide what the real class gets wrong.
    """

    def __init__(self, cls: type, make: Callable[..., Any]) -> None:
        self._cls = cls
        self._make = make
        self.made = 0
        self.__name__ = cls.__name__
        self.__doc__ = cls.__doc__

    def __call__(self, selector: Any = None) -> Any:
        """Make a loop. selector: only asyncio's own loop takes one; for the others it is closed."""
        self.made += 1
        if selector is None:
            return self._make()
        if self._cls.__module__.startswith("asyncio."):
            return self._make(selector)
        selector.close()
        return self._make()

    def __mro_entries__(self, bases: tuple[Any, ...]) -> tuple[type, ...]:
        return (self._cls,)

    def __instancecheck__(self, instance: object) -> bool:
        return isinstance(instance, self._cls)

    def __subclasscheck__(self, cls: type) -> bool:
        return issubclass(cls, self._cls)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cls, name)

    def __repr__(self) -> str:
        return f"<stand-in for {self._cls!r}>"


def stand_in_for(name: str) -> StandIn:
    """Return a StandIn for the loop called name (a key of LOOPS)."""
    module_name, cls, make = LOOPS[name]
    module = importlib.import_module(module_name)
    return StandIn(getattr(module, cls), getattr(module, make))


def default_policy() -> Any:
    """Return asyncio's default policy class (it has an underscore from 3.14 on), or None without one."""
    for name in ("_UnixDefaultEventLoopPolicy", "_DefaultEventLoopPolicy"):
        if hasattr(unix_events, name):
            return getattr(unix_events, name)
    return None


def put_in(stand_in: StandIn) -> None:
    """Replace asyncio's own loop, in this process, by the loop of the stand-in."""
    for namespace in (asyncio, unix_events):
        for name in ("SelectorEventLoop", "EventLoop"):
            if hasattr(namespace, name):
                setattr(namespace, name, stand_in)
    policy = default_policy()
    if policy is not None:
        policy._loop_factory = stand_in


UNDER_TEST = stand_in_for(os.environ.get("COMPAT_LOOP", "asyncio"))

if os.environ.get("COMPAT_PUT_IN", "1") == "1":
    put_in(UNDER_TEST)
