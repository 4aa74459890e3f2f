"""dump_on_signal(): a signal makes the process write a dump, and go on.

The handler is in C and only wakes a thread, which writes. So it works while every loop is stuck in a call that gives up
the GIL, or computes in Python. The thread has no part in a fork: it ends before, and is there again on both sides.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
from typing import Any, NamedTuple

from goloop.core.system import dump_signal
from goloop.debug._asleep import harmless
from goloop.debug._collect import snapshot
from goloop.debug._dump import rendered
from goloop.debug._text import write_all
from goloop.runtime.real_threads import require_threads

logger = logging.getLogger("goloop")

_STDERR = 2


class _Wish(NamedTuple):
    file: Any
    format: str


_wishes: dict[int, _Wish] = {}  # by signal. Guard: the GIL, as for all here; changed by dump_on_signal() and its like
_thread: threading.Thread | None = None
_door = -1
_ending = False
_at_fork = False  # the hooks are registered


def dump_on_signal(signum: int = signal.SIGQUIT, file: Any = None, format: str = "text") -> None:
    r"""Write a dump whenever a signal comes; the process goes on (Go: SIGQUIT, which ends it). Ctrl-\ sends SIGQUIT.

    signum: the signal's number; ValueError for an invalid one, OSError for one that cannot be caught. file, format: as
    for dump(); None is descriptor 2. From any thread. A handler that the signal has already is called as well; one that
    the program sets later takes its place. The dump is made by a thread of its own, also while every loop is stuck; but
    not while an extension computes without giving up the GIL: faulthandler.register() helps there.
    """
    global _at_fork
    if format not in ("text", "json"):
        raise ValueError(f'the format of a dump is "text" or "json", got {format!r}')
    require_threads()
    number = int(signum)
    dump_signal.take(number)  # ValueError, before the thread sees the number: that takes what it finds in _wishes
    before = _wishes.get(number)
    _wishes[number] = _Wish(_STDERR if file is None else file, format)
    try:
        if not _at_fork:
            _at_fork = True
            os.register_at_fork(before=_stop_thread, after_in_parent=_start_again, after_in_child=_start_again)
        _start_thread()
        dump_signal.install(number)
    except BaseException:
        if before is None:
            del _wishes[number]
        if not _wishes:
            _stop_thread()
        raise


def no_dump_on_signal(signum: int = signal.SIGQUIT) -> bool:
    """Let a signal do again what it did before dump_on_signal(). From any thread.

    signum: the signal's number. Returns whether it made dumps.
    """
    if _wishes.pop(int(signum), None) is None:
        return False
    dump_signal.remove(int(signum))
    if not _wishes:
        _stop_thread()
    return True


def _start_thread() -> None:
    global _thread, _door, _ending
    if _thread is not None:
        return
    _ending = False
    _door = dump_signal.open_door()
    thread = threading.Thread(target=_serve, args=(_door,), name="goloop-dump", daemon=True)
    harmless.add(thread)
    _thread = thread
    try:
        thread.start()
    except BaseException:
        _thread = None
        raise


def _stop_thread() -> None:
    global _thread, _ending
    thread = _thread
    if thread is None or thread is threading.current_thread():
        return
    _ending = True
    os.eventfd_write(_door, 1)
    thread.join()
    _thread = None
    dump_signal.close_door()


def _start_again() -> None:
    """After a fork, in the parent and in the child."""
    global _thread
    if _thread is not None:  # the fork was this thread's own
        _thread = None
    if _wishes:
        try:
            _start_thread()
        except RuntimeError:  # the interpreter ends, or there may be no more threads
            logger.exception("no thread can be started, so no signal makes a dump any more")


def _serve(door: int) -> None:
    """What the thread does."""
    while not _ending:  # first a look: a signal may have come while there was no door
        for number, wish in list(_wishes.items()):
            if dump_signal.take(number):
                try:
                    write_all(wish.file, rendered(snapshot(), wish.format))
                except Exception:  # a full disk, a reader that went away
                    logger.exception("the dump for signal %d could not be written", number)
        os.eventfd_read(door)
