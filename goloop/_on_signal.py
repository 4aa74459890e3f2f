"""Functions that are called when a signal comes, several for one signal, beside the handler that was there before.

Python runs handlers in the main thread, and lets only that set them. So the last one to leave from another thread
leaves the handler behind; with the next signal that puts back what was there before, and lets it have the signal.
"""

from __future__ import annotations

import signal
import threading
from asyncio import events
from collections.abc import Callable
from types import FrameType
from typing import Any

_listeners: dict[int, dict[object, Callable[[int], None]]] = {}  # changed by single operations, which are atomic
_before: dict[int, Any] = {}  # what signal.signal() returned; main thread only


def call_on(signums: tuple[int, ...], function: Callable[[int], None]) -> Callable[[], None]:
    """Call function(signum) in the main thread when one of the signals comes. Returns the function that ends that.

    RuntimeError outside of the main thread, ValueError and OSError for what is no signal or cannot be handled. The
    function must not wait.
    """
    if threading.current_thread() is not threading.main_thread():
        raise RuntimeError("signal handlers are set in the main thread: call notify() there, and pass the context on")
    token = object()
    try:
        for signum in signums:
            _listeners.setdefault(signum, {})[token] = function
            if signal.getsignal(signum) is not _handle:
                _before[signum] = signal.signal(signum, _handle)
    except BaseException:
        _leave(signums, token)
        raise
    return lambda: _leave(signums, token)


def _leave(signums: tuple[int, ...], token: object) -> None:
    for signum in signums:
        listeners = _listeners.get(signum, {})
        listeners.pop(token, None)
        if not listeners and threading.current_thread() is threading.main_thread():
            _put_back(signum)


def _put_back(signum: int) -> None:
    before = _before.pop(signum, None)
    if before is not None and signal.getsignal(signum) is _handle:
        signal.signal(signum, before)


def _handle(signum: int, frame: FrameType | None) -> None:
    listeners = list(_listeners.get(signum, {}).values())
    for function in listeners:
        function(signum)
    loop = events._get_running_loop()
    if listeners and loop is not None:
        loop.call_soon_threadsafe(int)  # it may sleep, and what a function has scheduled there does not wake it
    if not listeners:
        before = _before.get(signum)
        _put_back(signum)
        if callable(before):
            before(signum, frame)
        elif before == signal.SIG_DFL:
            signal.raise_signal(signum)
