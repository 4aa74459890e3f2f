"""Locks and what is built on them, joining threads, threading.local, and the locks of imports.

Condition, Event, Semaphore and Barrier are Python over Lock and RLock, and park where those do. get_ident() and
current_thread() stay the thread's: a goroutine never leaves its thread, and their other uses (signals to
threads, asyncio's checks, SQLite's) need the real one.
"""

from __future__ import annotations

import _thread
import sys
import threading
import time
import types

from goloop.chan import Chan, ChannelClosed
from goloop.core.patch import std_locks
from goloop.core.patch.hook import is_cooperative, plain
from goloop.core.sched import goroutine, goroutine_api, scheduler
from goloop.runtime import fork

_LAST_STEPS = 0.0002  # seconds between looks at a thread that has run its last Python code and is about to end

_ends: dict[threading.Thread, Chan[None]] = {}  # closed when the thread's run() is over; for those that are joined
_join = threading.Thread.join
_delete = threading.Thread._delete  # type: ignore[attr-defined]
_start = threading.Thread.start
_acquire_restore = threading.Condition._acquire_restore  # type: ignore[attr-defined]
_last_before = 0  # the newest goroutine when threading was patched


def _patched_start(self: threading.Thread) -> None:
    # The wait for its first step is short, and must not be cut by a cancellation.
    with plain():
        _start(self)


def _patched_delete(self: threading.Thread) -> None:
    _delete(self)
    end = _ends.pop(self, None)
    if end is not None:
        end.close()


def _patched_join(self: threading.Thread, timeout: float | None = None) -> None:
    if not is_cooperative() or not self.is_alive() or self is threading.current_thread():
        return _join(self, timeout)
    until = None if timeout is None else time.monotonic() + timeout
    end = _ends.setdefault(self, Chan())
    if threading._active.get(self.ident) is self:  # type: ignore[attr-defined]  # else it is past _delete()
        try:
            end.recv(timeout)
        except ChannelClosed:
            pass
        except TimeoutError:
            return None
    else:
        _ends.pop(self, None)
    # A lock that C code releases, or a handle, says the rest: there is no waiter to tell.
    while self.is_alive():
        if until is not None and time.monotonic() > until:
            return None
        goroutine_api.sleep(_LAST_STEPS)
    return _join(self, 0 if timeout is not None else None)


def _patched_acquire_restore(self: threading.Condition, state: object) -> None:
    if is_cooperative():
        std_locks.acquire_shielded(self._lock)  # type: ignore[attr-defined]
    else:
        _acquire_restore(self, state)


def _import_ident() -> int:
    """The holder of the lock of a module that is being imported: one goroutine, not all of a thread.

    Otherwise one would see the half of a module that another one is importing, and has parked in.
    """
    g = goroutine.current() if is_cooperative() else None
    return _thread.get_ident() if g is None or g.id <= _last_before else -g.id


def patch() -> None:
    global _last_before
    std_locks.patch_locks()
    fork.add(std_locks.after_fork_in_child)
    for owner, name, method in (
        (threading.Thread, "start", _patched_start),
        (threading.Thread, "_delete", _patched_delete),
        (threading.Thread, "join", _patched_join),
        (threading.Condition, "_acquire_restore", _patched_acquire_restore),
    ):
        setattr(owner, name, method)
    _last_before = goroutine.last_goroutine_id()
    names = types.ModuleType("_thread", "What importlib uses of _thread, with goroutines for threads.")
    vars(names).update(vars(_thread), get_ident=_import_ident)
    vars(sys.modules["_frozen_importlib"])["_thread"] = names
    scheduler.separate_locals()
