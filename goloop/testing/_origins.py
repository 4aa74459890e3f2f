"""Where things were made: the stacks of what a no_leaks() block makes, as far as Python tells.

While a block is open, an audit hook notes the stack that opens a file, makes a socket, or starts a child process;
Thread.start(), os.pipe() and its like note their callers, goloop.net who makes or accepts a connection; the coroutines
of the block's thread keep their origin; its loop notes what sets a timer. There is no way to take an audit hook out: it
stays, as does the other Thread.start(), and both do nothing while no block is open.
"""

from __future__ import annotations

import functools
import os
import sys
import threading
import traceback
import weakref
from types import FrameType
from typing import Any

from goloop.core.net import polldesc
from goloop.core.sync import timer_thread

DEPTH = 12  # frames of a stack

_open = 0  # blocks. Guard: the GIL, as for all here
_installed = False
_paths: dict[str, traceback.StackSummary] = {}
_descriptors: dict[int, tuple[str, traceback.StackSummary]] = {}  # with what /proc says that they are
_sockets: list[tuple[weakref.ref[Any], traceback.StackSummary]] = []  # whose descriptors are not known yet
_threads: weakref.WeakKeyDictionary[threading.Thread, traceback.StackSummary] = weakref.WeakKeyDictionary()
_commands: dict[tuple[str, ...], traceback.StackSummary] = {}
_here = os.path.dirname(__file__)
_inside = threading.local()


def stack(frame: FrameType | None) -> traceback.StackSummary:
    """Return the stack of a frame, outermost first, without the standard library's part of making a thing."""
    found = traceback.StackSummary.extract(traceback.walk_stack(frame), limit=DEPTH, lookup_lines=False)
    found.reverse()
    return found


def _hook(event: str, args: tuple[Any, ...]) -> None:
    if not _open or event not in _EVENTS or getattr(_inside, "on", False):
        return
    _inside.on = True
    try:
        _settle_sockets()
        _EVENTS[event](args, stack(sys._getframe(1)))
    except Exception:  # an audit hook that raises would forbid what it looks at
        pass
    finally:
        _inside.on = False


def _settle_sockets() -> None:
    """Ask the sockets that have been made for their numbers, which they got behind the event."""
    for reference, made in list(_sockets):
        sock = reference()
        if sock is None or sock.fileno() >= 0:
            _sockets.remove((reference, made))
            if sock is not None:
                _note(sock.fileno(), made)


def _note(number: int, made: traceback.StackSummary) -> None:
    try:
        _descriptors[number] = os.readlink(f"/proc/self/fd/{number}"), made
    except FileNotFoundError:
        pass  # it is closed already


def _connection(number: int) -> None:
    _note(number, stack(sys._getframe(1)))


def _opened(args: tuple[Any, ...], made: traceback.StackSummary) -> None:
    if not isinstance(args[0], int):
        _paths[os.path.realpath(os.fsdecode(args[0]))] = made


def _socket(args: tuple[Any, ...], made: traceback.StackSummary) -> None:
    _sockets.append((weakref.ref(args[0]), made))


def _noting_start(start: Any) -> Any:
    """Return a Thread.start() that notes where it is called: Python 3.11 has no audit event for it."""

    @functools.wraps(start)
    def note(self: threading.Thread) -> None:
        if _open:
            _threads[self] = stack(sys._getframe(1))
        start(self)

    return note


def _noting_descriptors(make: Any) -> Any:
    """Return a function that notes where it is called, and the descriptors that it returns: one, or a tuple of them."""

    @functools.wraps(make)
    def note(*args: Any, **kwargs: Any) -> Any:
        made = make(*args, **kwargs)
        for number in made if isinstance(made, tuple) else (made,):
            _note(number, stack(sys._getframe(1)))
        return made

    return note


# What makes descriptors without an audit event, and what stands there in the meantime.
_SILENT = {
    name: (getattr(os, name), _noting_descriptors(getattr(os, name)))
    for name in ("dup", "eventfd", "memfd_create", "openpty", "pipe", "pipe2")
    if hasattr(os, name)
}


def _exchange(now: int, then: int) -> None:
    for name, functions in _SILENT.items():
        if getattr(os, name) is functions[now]:  # else it is somebody else's by now
            setattr(os, name, functions[then])


def _process(args: tuple[Any, ...], made: traceback.StackSummary) -> None:
    command = args[1]
    words = [command] if isinstance(command, (str, bytes, os.PathLike)) else command
    _commands[tuple(os.fsdecode(word) for word in words)] = made


_EVENTS = {
    "open": _opened,
    "socket.__new__": _socket,
    "socket.bind": lambda args, made: None,  # by then the ones before have their numbers
    "socket.connect": lambda args, made: None,
    "subprocess.Popen": _process,
}


def of_descriptor(number: int, target: str) -> traceback.StackSummary | None:
    """Return where a descriptor was made. target: what /proc says that it is."""
    _settle_sockets()
    then, made = _descriptors.get(number, (None, None))
    return made if then == target else _paths.get(target)


def of_thread(thread: threading.Thread) -> traceback.StackSummary | None:
    """Return where a thread was started."""
    return _threads.get(thread)


def of_command(words: tuple[str, ...]) -> traceback.StackSummary | None:
    """Return where a child process with that command line was started."""
    return _commands.get(words)


def of_coroutine(coroutine: Any) -> traceback.StackSummary | None:
    """Return where a coroutine was made."""
    origin = getattr(coroutine, "cr_origin", None)
    if not origin:
        return None
    frames = [traceback.FrameSummary(file, line, name, lookup_line=False) for file, line, name in reversed(origin)]
    return traceback.StackSummary.from_list(frames)


class Watch:
    """Notes where things are made from start() to stop(). loop: the one that runs here, or None."""

    def __init__(self, loop: Any) -> None:
        self._loop = loop
        self._depth = 0
        self._timers: dict[int, tuple[weakref.ref[Any], traceback.StackSummary]] = {}

    def start(self) -> None:
        """Begin, in the thread that is to be watched."""
        global _open, _installed
        if not _installed:
            _installed = True
            sys.addaudithook(_hook)
            threading.Thread.start = _noting_start(threading.Thread.start)  # type: ignore[method-assign]
        if not _open:
            _exchange(0, 1)
            polldesc.trace(_connection)
        _open += 1
        self._depth = sys.get_coroutine_origin_tracking_depth()
        sys.set_coroutine_origin_tracking_depth(max(self._depth, DEPTH))
        timer_thread.trace(True)
        if self._loop is not None and "call_at" not in vars(self._loop):
            self._loop.call_at = self._noting(self._loop.call_at)
            self._loop.call_later = self._noting(self._loop.call_later)
        else:
            self._loop = None

    def stop(self) -> None:
        """End; what was noted can still be asked for until the last block ends."""
        global _open
        _open -= 1
        sys.set_coroutine_origin_tracking_depth(self._depth)
        timer_thread.trace(_open > 0)
        if self._loop is not None:
            del self._loop.call_at, self._loop.call_later
        if not _open:
            _exchange(1, 0)
            polldesc.trace(None)
            for notes in (_paths, _descriptors, _sockets, _commands):
                notes.clear()

    def _noting(self, method: Any) -> Any:
        def note(when: float, callback: Any, *args: Any, context: Any = None) -> Any:
            handle = method(when, callback, *args, context=context)
            self._timers[id(handle)] = weakref.ref(handle), stack(sys._getframe(1))
            return handle

        return note

    def of_timer(self, handle: Any) -> traceback.StackSummary | None:
        """Return where a timer of the loop was set."""
        reference, made = self._timers.get(id(handle), (None, None))
        if reference is not None and reference() is handle:
            return made
        return getattr(handle, "_source_traceback", None)
