"""no_leaks(): what a block leaves behind, each with the stack of its making (Go: goleak)."""

from __future__ import annotations

import asyncio
import dataclasses
import gc
import os
import re
import socket
import threading
import time
import traceback
import types
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from goloop.core.poll import pollset
from goloop.core.sched import goroutine, scheduler
from goloop.core.sched.bubble import async_settle, bubble, settle
from goloop.core.sched.goroutine_api import sleep as park
from goloop.core.sync import timer_thread
from goloop.errors import LeakError
from goloop.testing import _origins

_OURS = ("goloop-",)  # threads of the runtime, which end by themselves


@dataclasses.dataclass(frozen=True)
class Leak:
    """One thing that a no_leaks() block has left behind. To be read in any thread.

    kind: "task", "goroutine", "timer", "descriptor", "connection" (a socket), "child process" or "thread". what: a
    description (str). stack: where it was made, a traceback.StackSummary, outermost frame first; None where that is not
    known.
    """

    kind: str
    what: str
    stack: traceback.StackSummary | None

    def __str__(self) -> str:
        if not self.stack:
            return f"{self.kind}: {self.what}\n    (where it was made is not known)"
        return f"{self.kind}: {self.what}\n  made at:\n{''.join(self.stack.format()).rstrip()}"


_Found = dict[tuple[str, Any], Any]  # by kind and a key
_Allow = str | Callable[[Leak], bool]


class no_leaks:
    """`with no_leaks():` LeakError at the end if the block leaves something behind (Go: goleak.VerifyNone).

    Looked for are tasks of the running loop and of workers, goroutines, timers, descriptors, connections, child
    processes and threads that were not there before; the error's text says of each where it was made. goloop's own
    threads do not count. allow: what may be left: regular expressions that are searched in a leak's text, or functions
    that get the Leak. patience: seconds that what is on its way out has for that. If the block raises, nothing is
    looked for. To note where files, sockets and processes are made there is an audit hook, which stays.

    In a plain thread, a goroutine or a coroutine; `async with` lets the loop go on while what is on its way out leaves.
    In a bubble the end waits until all others are at rest.
    """

    def __init__(self, *, allow: Iterable[_Allow] = (), patience: float = 1.0) -> None:
        self._allow = [allow] if isinstance(allow, str) else list(allow)
        for rule in self._allow:
            if isinstance(rule, str):
                re.compile(rule)
            elif not callable(rule):
                raise TypeError(f"allow takes regular expressions and functions, got {rule!r}")
        if not patience >= 0:
            raise ValueError(f"patience is a number of seconds, and not negative, got {patience!r}")
        self._patience = patience
        self._watch: _origins.Watch | None = None
        self._loop: Any = None
        self._before: _Found = {}
        self._loops: dict[str, int] = {}

    def __enter__(self) -> None:
        if self._watch is not None:
            raise RuntimeError("a no_leaks() block is entered once: make another one")
        gc.collect()
        self._loop = asyncio._get_running_loop() or bubble()
        self._watch = _origins.Watch(self._loop)
        self._before = self._find()
        self._loops = _loops_own()
        self._watch.start()

    def __exit__(
        self, kind: type[BaseException] | None, raised: BaseException | None, trace: types.TracebackType | None
    ) -> None:
        assert self._watch is not None
        try:
            if raised is None:
                if bubble() is not None and asyncio._get_running_loop() is None:
                    settle()
                for pause in self._pauses():
                    self._pause(pause)
                self._complain()
        finally:
            self._watch.stop()

    async def __aenter__(self) -> None:
        self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, raised: BaseException | None, trace: types.TracebackType | None
    ) -> None:
        assert self._watch is not None
        try:
            if raised is None:
                if bubble() is not None:
                    await async_settle()
                for pause in self._pauses():
                    await asyncio.sleep(pause)
                self._complain()
        finally:
            self._watch.stop()

    def _pauses(self) -> Iterator[float]:
        """Yield pauses to wait, as long as something is left and there is patience."""
        if bubble() is not None:
            return  # all are at rest
        until = time.monotonic() + self._patience
        pause = 0.0005
        while self._leaks() and time.monotonic() < until:
            yield pause
            pause = min(2 * pause, 0.02)

    def _pause(self, seconds: float) -> None:
        if scheduler.this_worker() is None:
            time.sleep(seconds)
        elif asyncio._get_running_loop() is None:
            park(seconds)
        # else: a coroutine goroutine, which cannot wait here

    def _complain(self) -> None:
        leaks = self._leaks()
        if leaks:
            texts = "\n".join(str(leak) for leak in leaks)
            raise LeakError(f"{len(leaks)} left behind:\n{texts}", leaks)

    # ------------------------------------------------------------ what there is
    def _leaks(self) -> list[Leak]:
        found = self._find()
        if found.keys() - self._before.keys():
            gc.collect()  # what only garbage keeps is no leak: but it has to be told
            found = self._find()
        spare = {target: n - self._loops[target] for target, n in _loops_own().items()}
        leaks = []
        for key, thing in found.items():
            if key in self._before:
                continue
            if key[0] == "descriptor" and spare.get(thing, 0) > 0:
                spare[thing] -= 1
                continue
            leak = self._describe(key[0], key[1], thing)
            if not any(self._allows(rule, leak) for rule in self._allow):
                leaks.append(leak)
        return leaks

    @staticmethod
    def _allows(rule: _Allow, leak: Leak) -> bool:
        return re.search(rule, str(leak)) is not None if isinstance(rule, str) else bool(rule(leak))

    def _find(self) -> _Found:
        found: _Found = {}
        loops = [worker.loop for worker in scheduler.all_workers()]
        if self._loop is not None:
            loops.append(self._loop)
            for handle in getattr(self._loop, "_scheduled", ()):
                entry = getattr(handle._callback, "__self__", None)
                if isinstance(entry, timer_thread.TimerEntry):  # of goloop.timer, in a bubble
                    found["timer", id(entry)] = entry
                elif not handle.cancelled() and not _is_a_wait(handle):
                    found["timer", id(handle)] = handle
        own = set()  # goroutines that are coroutines
        for g in goroutine.all_goroutines():
            found["goroutine", g.id] = g
            own.add(goroutine.task_of(g))
        for loop in loops:
            for task in asyncio.all_tasks(loop):
                if task not in own:
                    found["task", id(task)] = task
        for entry in timer_thread.entries():
            found["timer", id(entry)] = entry
        for thread in threading.enumerate():
            if not thread.name.startswith(_OURS):
                found["thread", id(thread)] = thread
        for number, target in _descriptors():
            found["descriptor", (number, target)] = target
        for child in _children():
            found["child process", child] = child
        return found

    def _describe(self, kind: str, key: Any, thing: Any) -> Leak:
        assert self._watch is not None
        if kind == "descriptor":
            number, target = key
            made = _origins.of_descriptor(number, target)
            if target.startswith("socket:"):
                return Leak("connection", f"descriptor {number}, {_addresses(number)}", made)
            return Leak(kind, f"descriptor {number}, {target}", made)
        if kind == "child process":
            words = _command(thing)
            what = " ".join(words) or "it has ended, and nobody has waited for it"
            return Leak(kind, f"process {thing}: {what}", _origins.of_command(words))
        if kind == "goroutine":
            return Leak(kind, repr(thing), thing.spawn_stack)
        if kind == "task":
            return Leak(kind, repr(thing), _origins.of_coroutine(thing.get_coro()))
        if kind == "thread":
            return Leak(kind, repr(thing), _origins.of_thread(thing))
        if isinstance(thing, timer_thread.TimerEntry):
            return Leak(kind, repr(thing), timer_thread.origin_of(thing))
        return Leak(kind, repr(thing), self._watch.of_timer(thing))


def _is_a_wait(handle: Any) -> bool:
    """Whether a timer only ends the wait of a task or a goroutine, which is found itself."""
    callback = handle._callback
    name = getattr(callback, "__name__", "")
    return name == "_set_result_unless_cancelled" or (name == "_expire" and "Waiter" in repr(callback))


def _loops_own() -> dict[str, int]:
    """Return how many descriptors there are of the kinds that goloop's poll sets and its netpoller have."""
    n = int(pollset.stats()["pollsets"])
    return {"anon_inode:[eventpoll]": n + (n > 0), "anon_inode:[eventfd]": n + 2 * (n > 0)}


def _descriptors() -> Iterator[tuple[int, str]]:
    for name in os.listdir("/proc/self/fd"):
        try:
            yield int(name), os.readlink(f"/proc/self/fd/{name}")
        except FileNotFoundError:
            pass  # that of the directory itself


def _addresses(number: int) -> str:
    try:
        with socket.socket(fileno=os.dup(number)) as sock:
            text = f"socket {sock.getsockname()!r}"
            try:
                return f"{text} to {sock.getpeername()!r}"
            except OSError:
                return f"{text}, not connected"
    except OSError:
        return "socket"


def _children() -> set[int]:
    found: set[int] = set()
    if not os.path.exists(f"/proc/self/task/{os.getpid()}/children"):
        return _children_by_parent()
    for thread in os.listdir("/proc/self/task"):
        try:
            with open(f"/proc/self/task/{thread}/children") as file:
                found.update(map(int, file.read().split()))
        except (FileNotFoundError, ProcessLookupError):
            pass  # the thread has ended: its children are those of another one
    return found


def _children_by_parent() -> set[int]:
    """As _children(), where the kernel does not list them."""
    found = set()
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{name}/stat") as file:
                parent = file.read().rpartition(")")[2].split()[1]
            if int(parent) == os.getpid():
                found.add(int(name))
        except (FileNotFoundError, ProcessLookupError):
            pass
    return found


def _command(pid: int) -> tuple[str, ...]:
    """Return the command line of a process; nothing for one that has ended."""
    try:
        for _ in range(100):
            with open(f"/proc/{pid}/cmdline", "rb") as file:
                words = file.read().split(b"\0")[:-1]
            if words or _state(pid) in "ZX":
                return tuple(map(os.fsdecode, words))
            time.sleep(0.001)  # it is in execve(), and has its command line in a moment
    except OSError:
        pass
    return ()


def _state(pid: int) -> str:
    with open(f"/proc/{pid}/stat") as file:
        return file.read().rpartition(")")[2].split()[0]
