"""Traces: what every loop, task and goroutine does over a stretch of time, as a file for Perfetto and Chrome.

The events are collected by core/system/trace.pyx. This file begins and ends that, and has the spans of the program;
_chrome.py makes the file's contents of them.
"""

from __future__ import annotations

import _thread
import atexit
import gc
import gzip
import itertools
import os
import tempfile
import threading
import time
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Protocol

from goloop.core.loop import run_trace
from goloop.core.system import trace as core
from goloop.debug import _chrome
from goloop.runtime import fork

EVENTS = 2**18  # of each thread
_MOST = 2**28


class Writable(Protocol):
    """A binary file that is open: whatever has its write()."""

    def write(self, data: bytes, /) -> object:
        """Take all of the data."""


_lock = _thread.allocate_lock()  # begins and ends
_begun: _Begun | None = None  # guarded by _lock
_span_numbers = itertools.count(1)


class _Begun:
    """A trace that is being made."""

    def __init__(self, target: Any) -> None:
        self.target = target  # where it goes at exit; None: nowhere
        self.pid = os.getpid()
        self.wall = time.time()
        self.start = time.monotonic_ns()


class Trace:
    """What has happened in a stretch of time. Made by stop_trace(); it does not change. From any thread.

    Attributes: started: when it was begun, in seconds since the epoch. seconds: how long it took. events: how many
    events there are. dropped: how many older ones had to make room for these, and how many found no memory. pid: the
    process.
    """

    def __init__(self, recording: _chrome.Recording) -> None:
        self._recording = recording
        self.started = recording.wall
        self.seconds = (recording.stop - recording.start) / 1e9
        self.events = sum(len(data) for _, _, data in recording.tracks) // _chrome.EVENT_SIZE
        self.dropped = sum(made for _, made, _ in recording.tracks) + recording.lost - self.events
        self.pid = recording.pid

    def __repr__(self) -> str:
        return f"<Trace of {self.seconds:.3f} s, {self.events} events, {self.dropped} dropped>"

    def chunks(self) -> Iterator[str]:
        """Iterate over the text of the file, piece by piece: JSON in Chrome's Trace Event Format. From any thread."""
        return _chrome.chunks(self._recording)

    def write(self, file: str | os.PathLike[str] | Writable) -> None:
        """Write the trace as JSON in Chrome's Trace Event Format, which https://ui.perfetto.dev and about:tracing open.

        file: a path, or a binary file that is open. A path that ends in ".gz" is compressed. What was under a path is
        replaced when all is written, and stays if that fails. Raises what the file raises, OSError when the disk is
        full; the trace is still here then, to be written elsewhere. It takes about two seconds for each 100,000 events,
        in which other threads and loops run; from any thread, but on a loop's thread the loop waits for it: use
        asyncio.to_thread().
        """
        if isinstance(file, (str, os.PathLike)):
            self._write_path(os.fspath(file))
        else:
            for chunk in self.chunks():
                file.write(chunk.encode())

    def _write_path(self, path: str) -> None:
        if os.path.exists(path) and not os.path.isfile(path):  # a pipe or a device
            with open(path, "wb") as special:
                self.write(special)
            return
        folder, name = os.path.split(os.path.abspath(path))
        handle, temporary = tempfile.mkstemp(prefix=f".{name}.", dir=folder)
        try:
            with os.fdopen(handle, "wb") as raw:
                os.fchmod(handle, 0o666 & ~_umask())
                if name.endswith(".gz"):
                    with gzip.GzipFile(name.removesuffix(".gz"), "wb", 6, raw) as packed:
                        self.write(packed)
                else:
                    self.write(raw)
            os.replace(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise


def _umask() -> int:
    """The permissions that new files are not to have; asking for it changes it for a moment, /proc does not."""
    try:
        with open("/proc/self/status") as status:
            for line in status:
                if line.startswith("Umask:"):
                    return int(line.split()[1], 8)
    except (OSError, ValueError):
        pass
    return 0o077


def start_trace(*, events: int = EVENTS) -> None:
    """Begin to collect what all loops, tasks and goroutines of the process do, until stop_trace().

    events: how many are kept of each thread, the newest ones, at least 1,024 (else ValueError; TypeError for what is no
    int); rounded up to a power of two. One takes 32 bytes, and a request of a web server makes about ten. RuntimeError
    while another trace is made: there is one at a time. From any thread, goroutine or coroutine. A forked child makes
    none.
    """
    _start(events, None)


def stop_trace(file: str | os.PathLike[str] | Writable | None = None) -> Trace:
    """End what start_trace() has begun, and return it as a Trace.

    file: where to write it at once, as Trace.write() takes it; None: nowhere. RuntimeError: no trace is made. What
    Trace.write() raises has the trace in its attribute `trace`. From any thread, goroutine or coroutine.
    """
    recording = _stop(None)
    made = Trace(recording)
    if file is not None:
        _write(made, file)
    return made


def is_tracing() -> bool:
    """Return whether a trace is made. From any thread."""
    return core.on()


def _write(trace: Trace, file: Any) -> None:
    try:
        trace.write(file)
    except BaseException as exc:
        exc.trace = trace  # type: ignore[attr-defined]
        raise


def _start(events: int, target: Any) -> _Begun:
    global _begun
    if not isinstance(events, int) or isinstance(events, bool):
        raise TypeError(f"the number of events is an int, got {events!r}")
    if not 1024 <= events <= _MOST:
        raise ValueError(f"the number of events is between 1024 and {_MOST}, got {events}")
    with _lock:
        if _begun is not None:
            raise RuntimeError("a trace is made already, and there is one at a time: end that with stop_trace()")
        begun = _Begun(target)  # before every event
        core.start(1 << (events - 1).bit_length())
        _begun = begun
        gc.callbacks.append(_on_gc)
        atexit.register(_at_exit)
        fork.add(_after_fork_in_child)
    return begun


def _stop(begun: _Begun | None) -> _chrome.Recording:
    """End the trace that is made; begun: only if it is this one."""
    global _begun
    with _lock:
        if _begun is None or (begun is not None and _begun is not begun):
            raise RuntimeError("no trace is made")
        current, _begun = _begun, None
        _clean_up()
        atexit.unregister(_at_exit)
        tracks, names, lost = core.stop()
        stop = time.monotonic_ns()  # behind every event
    return _chrome.Recording(
        pid=current.pid,
        wall=current.wall,
        start=current.start,
        stop=stop,
        tracks=tracks,
        names=names,
        lost=lost,
        threads=_thread_names(),
        tasks=dict(run_trace.names_of_tasks()),
    )


def _clean_up() -> None:
    if _on_gc in gc.callbacks:
        gc.callbacks.remove(_on_gc)


def _thread_names() -> dict[int, str]:
    names = {}
    for tid in os.listdir("/proc/self/task"):
        try:
            with open(f"/proc/self/task/{tid}/comm") as file:
                names[int(tid)] = file.read().strip()
        except OSError:
            pass  # it has just ended
    for thread in threading.enumerate():
        if thread.native_id is not None:
            names[thread.native_id] = thread.name
    return names


def _on_gc(phase: str, info: dict[str, int]) -> None:
    if phase == "start":
        core.emit(core.KINDS["gc"], None, info["generation"])
    else:
        core.emit(core.KINDS["gc_end"], None, info["collected"])


def _at_exit() -> None:
    """The program ends inside of tracing(), in another thread for example: what there is goes to the file."""
    begun = _begun
    if begun is not None and begun.target is not None:
        Trace(_stop(begun)).write(begun.target)


def _after_fork_in_child() -> None:
    """The trace is the parent's, and so is its file."""
    global _begun, _lock
    _lock = _thread.allocate_lock()
    if _begun is not None:
        _begun = None
        _clean_up()
        atexit.unregister(_at_exit)
    core.after_fork_in_child()


class tracing:
    """`with tracing("trace.json"):` traces the block, and writes the file at its end.

    file: as Trace.write() takes it; the folder of a path must exist (else FileNotFoundError, at once). events: as
    start_trace() takes it. RuntimeError while another trace is made. What the write raises at the end of the block has
    the trace in its attribute `trace`; so has this object, when the block has ended. In a thread, goroutine or
    coroutine; all threads are traced. In a process that was forked inside the block nothing is written. Where the block
    ends on a loop's thread, the loop waits for the file: see Trace.write().
    """

    def __init__(self, file: str | os.PathLike[str] | Writable, *, events: int = EVENTS) -> None:
        self.file = os.path.abspath(file) if isinstance(file, (str, os.PathLike)) else file
        self.events = events
        self.trace: Trace | None = None
        self._begun: _Begun | None = None

    def __enter__(self) -> tracing:
        if isinstance(self.file, str):
            folder = os.path.dirname(self.file)
            if not os.path.isdir(folder):
                raise FileNotFoundError(f"there is no folder {folder!r} to write a trace to")
        self._begun = _start(self.events, self.file)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        begun = self._begun
        if begun is None or begun.pid != os.getpid():
            return
        self._begun = None
        self.trace = Trace(_stop(begun))
        _write(self.trace, self.file)


class span:
    """`with span("parse"):` shows the block in a trace, under that name, in the task or goroutine that it is in.

    name: a str; TypeError for anything else. While no trace is made it costs a look at a flag. A block in a coroutine
    may await. In a thread, goroutine or coroutine.
    """

    __slots__ = ("_name", "_number")

    def __init__(self, name: str) -> None:
        if not isinstance(name, str):
            raise TypeError(f"the name of a span is a str, got {name!r}")
        self._name = name
        self._number = 0

    def __enter__(self) -> span:
        if core.on():
            self._number = next(_span_numbers)
            core.emit(core.KINDS["span"], self._name, self._number, run_trace.lane_of_current_task())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._number and core.on():
            core.emit(core.KINDS["span_end"], self._name, self._number)
        self._number = 0
