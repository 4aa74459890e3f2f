"""Local: values that each goroutine, task and thread has for itself."""

from __future__ import annotations

import asyncio
import threading
from asyncio import events
from typing import Any
from weakref import WeakKeyDictionary

from goloop.core.sched.goroutine import current


def actor() -> object | None:
    """The task or the goroutine that runs here; None: a plain thread, or a callback."""
    if events._get_running_loop() is not None:
        task = asyncio.current_task()
        if task is not None:
            return task
    return current()


class Local:
    """An object whose attributes each goroutine, each task of any loop and each plain thread has for itself.

    It is threading.local and gevent.local for goroutines, coroutines and threads at once, with or without patching. A
    new goroutine, task or thread begins without attributes: what it is to inherit belongs in a contextvars.ContextVar.
    The values go with their owner. Callbacks of a loop use those of its thread. From any thread, goroutine or
    coroutine.
    """

    __slots__ = ("__weakref__", "_of_actors", "_of_threads")

    def __init__(self) -> None:
        object.__setattr__(self, "_of_actors", WeakKeyDictionary())
        object.__setattr__(self, "_of_threads", threading.local())

    def __getattr__(self, name: str) -> Any:
        try:
            return _values(self)[name]
        except KeyError:
            raise AttributeError(
                f"{name!r} is not set in this goroutine, task or thread", name=name, obj=self
            ) from None

    def __setattr__(self, name: str, value: Any) -> None:
        _values(self)[name] = value

    def __delattr__(self, name: str) -> None:
        try:
            del _values(self)[name]
        except KeyError:
            raise AttributeError(
                f"{name!r} is not set in this goroutine, task or thread", name=name, obj=self
            ) from None

    def __dir__(self) -> list[str]:
        return sorted(_values(self))


def _values(local: Local) -> dict[str, Any]:
    owner = actor()
    if owner is None:
        of_thread: dict[str, Any] = object.__getattribute__(local, "_of_threads").__dict__
        return of_thread
    of_actors: WeakKeyDictionary[object, dict[str, Any]] = object.__getattribute__(local, "_of_actors")
    values = of_actors.get(owner)
    return of_actors.setdefault(owner, {}) if values is None else values
