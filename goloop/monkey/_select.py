"""select.select(), poll() of poll objects and of epoll objects: what the selectors are made of.

A goroutine looks without waiting, and parks until there may be something to see. Several descriptors are waited for
as one: an epoll instance that watches them.
"""

from __future__ import annotations

import math
import select
import time
from collections.abc import Callable, Iterable
from typing import Any

from goloop.core.patch import cpython_layout, fd_wait
from goloop.core.patch.hook import hook
from goloop.monkey._threadpool import offload
from goloop.runtime import fork

_LONGEST = 1e9  # seconds; the original refuses a larger number
_READ = select.EPOLLIN | select.EPOLLRDNORM | select.EPOLLRDBAND
_MASK = {"read": select.EPOLLIN, "write": select.EPOLLOUT, "exceptional": select.EPOLLPRI}

_select_: Callable[..., Any]
_poll_: Callable[..., Any]
_epoll_: Callable[..., Any]


def _wait_and_look(masks: dict[int, int], seconds: float | None, look: Callable[[], Any]) -> Any:
    """Park until look() sees something, or the time is over; return what it saw last."""
    until = None if seconds is None else time.monotonic() + seconds
    if len(masks) == 1:
        ((fd, mask),) = masks.items()
        if mask and not mask & ~_READ:
            return _look_again(fd, until, look, None)
    with select.epoll() as several:
        for fd, mask in masks.items():
            try:
                # Edge-triggered: an event that look() ignores, a hang-up perhaps, must not wake it again and again.
                several.register(fd, mask | select.EPOLLET)
            except PermissionError:  # a regular file, which would have been seen
                pass
        return _look_again(several.fileno(), until, look, lambda: _epoll_(several, 0))


def _look_again(fd: int, until: float | None, look: Callable[[], Any], forget: Callable[[], Any] | None) -> Any:
    while True:
        left = None if until is None else max(0.0, until - time.monotonic())
        in_time = fd_wait.wait(fd, False, left)
        if forget is not None:
            forget()
        seen = look()
        if not in_time or (any(seen) if isinstance(seen, tuple) else seen):
            return seen


def _waits(timeout: Any) -> bool:
    return timeout is None or (isinstance(timeout, (int, float)) and 0 < timeout < _LONGEST)


def _descriptor(fileobj: Any) -> int:
    return fileobj if isinstance(fileobj, int) else fileobj.fileno()


def _select(rlist: Any, wlist: Any, xlist: Any, timeout: Any = None, /) -> Any:
    if not _waits(timeout):
        return _select_(rlist, wlist, xlist, timeout)
    lists = [
        each if isinstance(each, (list, tuple)) or not isinstance(each, Iterable) else list(each)
        for each in (rlist, wlist, xlist)
    ]
    seen = _select_(*lists, 0)
    if any(seen):
        return seen
    masks: dict[int, int] = {}
    for each, mask in zip(lists, _MASK.values(), strict=True):
        for fileobj in each:
            fd = _descriptor(fileobj)
            masks[fd] = masks.get(fd, 0) | mask
    return _wait_and_look(masks, timeout, lambda: _select_(*lists, 0))


def _poll(poll: Any, timeout: Any = None, /) -> Any:
    # In milliseconds, and rounded up; below zero there is no end.
    if timeout is not None and not isinstance(timeout, (int, float)):
        return _poll_(poll, timeout)
    seconds = None if timeout is None or timeout < 0 else math.ceil(timeout) / 1000 if timeout < 2**31 else -1
    if not _waits(seconds):
        return _poll_(poll, timeout)
    seen = _poll_(poll, 0)
    if seen:
        return seen
    masks = cpython_layout.watched(poll)
    if masks is None:
        return offload(_poll_, poll, timeout)
    return _wait_and_look(masks, seconds, lambda: _poll_(poll, 0))


def _epoll(epoll: Any, timeout: Any = None, maxevents: int = -1) -> Any:
    seconds = None if isinstance(timeout, (int, float)) and timeout < 0 else timeout
    if not _waits(seconds):
        return _epoll_(epoll, timeout, maxevents)
    seen = _epoll_(epoll, 0, maxevents)
    if seen:
        return seen
    until = None if seconds is None else time.monotonic() + seconds
    return _look_again(epoll.fileno(), until, lambda: _epoll_(epoll, 0, maxevents), None)


def patch() -> None:
    global _select_, _poll_, _epoll_
    fd_wait.patch()
    fork.add(fd_wait.after_fork_in_child)
    _epoll_ = hook(vars(select.epoll)["poll"], _epoll)
    _poll_ = hook(vars(type(select.poll()))["poll"], _poll)
    _select_ = hook(select.select, _select)
