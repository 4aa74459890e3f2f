"""The watch: reports of callbacks and goroutines that keep others waiting, made while they do.

The monitor calls tell() with the stuck thread's stack; the report goes to the log and to the hooks in a thread of its
own. Enabled by goloop.run(..., watch=True), Loop(watch=True), GOLOOP_WATCH=1, and debug mode.
"""

from __future__ import annotations

import _thread
import asyncio
import dataclasses
import logging
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar

from goloop.core.patch.hook import plain
from goloop.core.sched.handoff import StuckCallback
from goloop.runtime import ports

logger: logging.Logger = logging.getLogger("goloop")

INTERVAL = 60.0  # seconds between two lines in the log for one call site
SITES = 4096  # call sites that are remembered


@dataclasses.dataclass(frozen=True)
class SlowCallback:
    """A report of a callback that keeps its loop from running others, or of a goroutine that does so to its worker.

    phase: "stuck" while it runs, "ended" afterwards. seconds: for how long it has run, in all. blocking: whether the
    thread waits in a call, rather than computes. handed_off: whether other callbacks run meanwhile. stack: the stack of
    the thread when the report was made, outermost frame first; the same for both phases. A function without Python code
    has the stack that scheduled or started it, if that is known, else that of the loop. callback: the name of the
    callback; task and coroutine: their names, None if it is no task. thread: its name. goroutine: its repr(), None if
    it is none. A report may be read in any thread.
    """

    phase: str
    seconds: float
    blocking: bool
    handed_off: bool
    stack: traceback.StackSummary
    callback: str
    task: str | None
    coroutine: str | None
    thread: str
    goroutine: str | None = None

    def __str__(self) -> str:
        what = self.goroutine or (self.callback if self.task is None else f"task {self.task!r} ({self.coroutine})")
        how = "blocks" if self.blocking else "computes"
        if self.phase == "ended":
            how = "blocked" if self.blocking else "computed"
            return f"{what} {how} for {self.seconds:.3f} s{' without the loop' if self.handed_off else ''}"
        waits = "its loop waits" if self.goroutine is None else "others wait behind it"
        meanwhile = "handed off; others run meanwhile" if self.handed_off else waits
        where = "".join(self.stack.format()).rstrip()
        text = f"{what} {how} since {self.seconds:.3f} s in thread {self.thread} ({meanwhile})"
        return f"{text}. Stack (most recent call last):\n{where}"


_Hook = TypeVar("_Hook", bound=Callable[[SlowCallback], object])

_lock = _thread.allocate_lock()  # guards all below; never held while something else runs
_hooks: list[Callable[[SlowCallback], object]] = []
_sites: dict[tuple[str, int | None], float] = {}  # when a call site was in the log last
_queue: deque[tuple[SlowCallback | str, bool]] = deque()  # the report, or text for the log alone; whether to log it
_used_up = False  # threads_used_up() has said so
_delivering = False  # a thread empties the queue


def on_slow(callback: _Hook) -> _Hook:
    """Call callback(report) with a SlowCallback for each report of the watch; usable as a decorator.

    callback: a function, which is called in a thread without a loop, once while a callback is stuck and once when it
    has ended; TypeError unless callable. It gets every report; the log has one a minute for one call site. Its
    exceptions are logged. Returns the callback. From any thread.
    """
    if not callable(callback):
        raise TypeError(f"a callable object was expected by on_slow(), got {callback!r}")
    with _lock:
        _hooks.append(callback)
    return callback


def remove_slow(callback: Callable[[SlowCallback], object]) -> bool:
    """Remove a callback that on_slow() added, once if it was added several times. From any thread.

    callback: the function. Returns whether it was there.
    """
    with _lock:
        if callback in _hooks:
            _hooks.remove(callback)
            return True
    return False


class _Running:
    """The report of a callback that has not ended."""

    def __init__(self, report: SlowCallback, logged: bool) -> None:
        self.report = report
        self.logged = logged

    def end(self, seconds: float) -> None:
        _post(dataclasses.replace(self.report, phase="ended", seconds=seconds), self.logged)


def tell(stuck: StuckCallback) -> _Running:
    """The monitor's report; returns the object that is told when the callback ends."""
    name = _name(stuck.item) if stuck.function is None else stuck.function
    stack = _stack(stuck.frame, stuck.base)
    site = (stack[-1].filename, stack[-1].lineno) if stack else (name, None)
    report = SlowCallback(
        phase="stuck",
        seconds=stuck.seconds,
        blocking=not stuck.computes,
        handed_off=stuck.handed_off,
        stack=stack or _origin(stuck),
        callback=name,
        task=None if stuck.task is None else stuck.task.get_name(),
        coroutine=_coroutine_name(stuck.task),
        thread=_thread_name(stuck.thread),
        goroutine=None if stuck.goroutine is None else repr(stuck.goroutine),
    )
    logged = _should_log(site)
    _post(report, logged)
    return _Running(report, logged)


def _should_log(site: tuple[str, int | None]) -> bool:
    """Whether to log a report for a call site: once in INTERVAL. True starts a new one."""
    now = time.monotonic()
    with _lock:
        last = _sites.get(site)
        if last is not None and now - last < INTERVAL:
            return False
        if len(_sites) >= SITES:
            _sites.clear()
        _sites[site] = now
    return True


def _stack(frame: Any, base: Any) -> traceback.StackSummary:
    """The frames above `base`, outermost first."""
    frames = []
    while frame is not None and frame is not base:
        frames.append((frame, frame.f_lineno))
        frame = frame.f_back
    return traceback.StackSummary.extract(iter(frames[::-1]), lookup_lines=False)


def _origin(stuck: StuckCallback) -> traceback.StackSummary:
    """A stack for a function without a Python frame of its own: where it comes from."""
    if stuck.goroutine is not None:
        return stuck.goroutine.spawn_stack
    scheduled = getattr(stuck.item, "_source_traceback", None)  # in debug mode
    return traceback.StackSummary.from_list(scheduled) if scheduled else _stack(stuck.base, None)


def threads_used_up(limit: int) -> None:
    """A goroutine waits for a thread, and there may be no more: say so once. From any thread."""
    global _used_up
    with _lock:
        if _used_up:
            return
        _used_up = True
    _post(
        f"GOLOOP_MAXTHREADS is reached: {limit} threads run goroutines or are stuck in what they call. "
        "Other goroutines start when one of them is free.",
        True,
    )


def abandoned(loop: Any, thread: int, frame: Any, item: Any) -> None:
    """run_forever() returns, and a callback is still stuck in another thread."""
    where = "".join(traceback.format_stack(frame)) if frame is not None else ""
    logger.error("%r stops while %s is stuck in a blocking call:\n%s", loop, _name(item), where.rstrip())


def _name(item: Any) -> str:
    """The name of an item that a loop runs, without the arguments, whose repr() might be anything."""
    callback = getattr(item, "_callback", None)
    if callback is None:
        return type(item).__name__
    while hasattr(callback, "func"):
        callback = callback.func
    return getattr(callback, "__qualname__", None) or type(callback).__name__


def _coroutine_name(task: asyncio.Task[Any] | None) -> str | None:
    if task is None:
        return None
    return getattr(task.get_coro(), "__qualname__", None) or repr(task.get_coro())


def _thread_name(ident: int) -> str:
    return next((thread.name for thread in threading.enumerate() if thread.ident == ident), str(ident))


def _post(report: SlowCallback | str, logged: bool) -> None:
    global _delivering
    with plain():  # a goroutine that is about to park must not park here
        with _lock:
            _queue.append((report, logged))
            if _delivering:
                return
            _delivering = True
        if not ports.current.carry(_deliver):
            with _lock:
                _delivering = False  # no thread to be had: with the next report


def _deliver() -> None:
    global _delivering
    while True:
        with _lock:
            if not _queue:
                _delivering = False
                return
            report, logged = _queue.popleft()
            hooks = list(_hooks)
        if logged:
            logger.warning("%s", report)
        if isinstance(report, str):
            continue
        for hook in hooks:
            try:
                hook(report)
            except Exception:
                logger.exception("a hook of on_slow() failed: %r", hook)


def after_fork_in_child() -> None:
    """In a forked child: the undelivered reports are the parent's."""
    global _lock, _delivering
    _lock = _thread.allocate_lock()
    _queue.clear()
    _delivering = False
