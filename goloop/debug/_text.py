"""The dump as a text: what is stuck first, and like things once."""

from __future__ import annotations

import os
import sys
import sysconfig
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

from goloop.debug._circles import title_of_task
from goloop.debug._snapshot import Connection, Goroutine, Loop, Snapshot, Stack, Task, Thread, WaitReason

_T = TypeVar("_T")
TIMES = "\N{MULTIPLICATION SIGN}"
_FRAMES = 8  # of a stack that are shown, the innermost ones
_NAMES = 3  # of a group's members that are named
_GROUPS = 60  # of goroutines, and of tasks; of these the first ones
_LIBRARY = sysconfig.get_path("stdlib") + os.sep


def text_of(snapshot: Snapshot) -> str:
    """Return the dump of a snapshot as a text of several lines."""
    return "\n".join(_Dump(snapshot).lines()) + "\n"


def seconds(number: float) -> str:
    """Return a duration as one reads it: "0.25 s", "121 s", "2 h 5 min"."""
    if number < 10:
        return f"{number:.2g} s" if number >= 0.001 else "0 s"
    if number < 300:
        return f"{number:.0f} s"
    minutes = round(number / 60)
    if minutes < 300:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60} min" if minutes < 48 * 60 else f"{minutes // (24 * 60)} days"


def size(number: int) -> str:
    """Return a number of bytes as one reads it: "12 KiB"."""
    for unit in ("B", "KiB", "MiB"):
        if number < 10240:
            return f"{number} {unit}"
        number = round(number / 1024)
    return f"{number} GiB"


def _count(number: int, word: str) -> str:
    return f"{number} {word if number == 1 else word + 's'}"


def place_of_file(file: str) -> str:
    """Return a file's path as short as it is clear: below the working folder, the library, or a package."""
    for marker in ("/site-packages/", "/dist-packages/"):
        if marker in file:
            return file.rpartition(marker)[2]
    if file.startswith(_LIBRARY):
        return file[len(_LIBRARY) :]
    try:
        here = os.getcwd() + os.sep
    except OSError:  # it was removed
        return file
    return file[len(here) :] if file.startswith(here) else file


def stack_lines(stack: Stack, indent: str, limit: int = _FRAMES) -> list[str]:
    """Return the lines for a stack, the innermost frame first, as in Go's dumps."""
    frames = list(stack)[::-1]
    lines = [f"{indent}{place_of_file(frame.file)}:{frame.line} in {frame.function}" for frame in frames[:limit]]
    if len(frames) > limit:
        lines.append(f"{indent}… and {_count(len(frames) - limit, 'frame')} above")
    return lines


class _Dump:
    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        self.names = {thing.key: thing for thing in snapshot.primitives}
        self.titles = {thing.key: thing.name for thing in snapshot.primitives}
        self.titles.update((task.key, title_of_task(task.name)) for task in snapshot.tasks)
        self.titles.update((g.key, f"goroutine {g.id}") for g in snapshot.goroutines)
        self.titles.update((thread.key, f"thread {thread.name or thread.ident}") for thread in snapshot.threads)
        self.stuck = {key for deadlock in snapshot.deadlocks for key in deadlock.members}

    def lines(self) -> list[str]:
        lines = [*self._head(), ""]
        for deadlock in self.snapshot.deadlocks:
            lines += [f"deadlock: {deadlock.text}", ""]
        for title, part in (
            ("loops", self._loops()),
            ("threads", self._threads()),
            ("goroutines", self._goroutines()),
            ("tasks", self._tasks()),
            ("waited for", self._primitives()),
            ("servers and connections", self._connections()),
            ("child processes, timers, executors", self._rest()),
            ("not read", list(self.snapshot.problems)),
        ):
            if part:
                lines += [f"{title}:", *(f"  {line}" for line in part), ""]
        return lines[:-1]

    def _head(self) -> list[str]:
        process = self.snapshot.process
        age = self.snapshot.age(process.started)
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(self.snapshot.time))
        facts = [
            f"Python {process.python}",
            f"goloop {process.goloop}",
            *([f"up {seconds(age)}"] if age is not None else []),
            f"{seconds(process.cpu)} of processor time",
            *([size(process.rss)] if process.rss is not None else []),
            *([_count(process.threads, "thread")] if process.threads is not None else []),
            *([_count(process.descriptors, "descriptor")] if process.descriptors is not None else []),
        ]
        return [f"process {process.pid} {process.program}, {when}", f"  {', '.join(facts)}"]

    # ----------------------------------------------------------- loops, threads
    def _loops(self) -> list[str]:
        threads = {thread.ident: thread.name for thread in self.snapshot.threads}
        lines = []
        for loop in sorted(self.snapshot.loops, key=lambda loop: (loop.state == "idle", -loop.lag)):
            if loop.state == "closed" or (loop.state == "stopped" and not loop.ready):
                continue
            lines += self._loop(loop, threads)
        return lines

    def _loop(self, loop: Loop, threads: dict[int, str]) -> list[str]:
        where = f" in {threads.get(loop.thread, loop.thread)}" if loop.thread else ""
        what = f": {loop.running}" if loop.running else ""
        age = self.snapshot.age(loop.since)
        since = f" for {seconds(age)}" if age is not None and loop.state == "running" else ""
        facts = [
            *([f"lag {seconds(loop.lag)}"] if loop.lag >= 0.001 else []),
            *([f"{loop.ready} ready"] if loop.ready else []),
            _count(loop.timers, "timer"),
            _count(loop.descriptors, "descriptor"),
            *([_count(loop.handoffs, "handoff")] if loop.handoffs else []),
        ]
        kind = "worker's loop" if loop.worker else loop.kind
        return [f"{kind}{where} {loop.state}{since}{what}; {', '.join(facts)}", *stack_lines(loop.stack, "    ")]

    def _threads(self) -> list[str]:
        """The threads that do more than run a loop."""
        lines = []
        for thread in self.snapshot.threads:
            if thread.wait is not None:
                lines += [
                    f"{thread.name} [{self._reason(thread.wait, [thread.wait])}]",
                    *stack_lines(thread.stack, "    "),
                ]
            elif thread.role == "" or (thread.role == "main" and not self._runs_loop(thread)):
                lines += [thread.name or str(thread.ident), *stack_lines(thread.stack, "    ", 4)]
        return lines

    def _runs_loop(self, thread: Thread) -> bool:
        return any(loop.thread == thread.ident for loop in self.snapshot.loops)

    # --------------------------------------------------------- goroutines, tasks
    def _goroutines(self) -> list[str]:
        def like(g: Goroutine) -> tuple[object, ...]:
            return g.function, g.state, g.wait and g.wait.kind, g.stack.place, g.creator.place, self._knot(g)

        lines = []
        for group in self._ordered(_groups(self.snapshot.goroutines, like)):
            g = group[0]
            names = [f"{one.id}{f' {one.name}' if one.name else ''}" for one in group]
            lines.append(f"{_members(group, 'goroutine', names)} {g.function} [{self._state(group)}]")
            lines += stack_lines(g.stack, "    ")
            lines += [f"    started at {line.strip()}" for line in stack_lines(g.creator, "", 1)[:1]]
        return _limited(lines, len(self.snapshot.goroutines))

    def _tasks(self) -> list[str]:
        def like(task: Task) -> tuple[object, ...]:
            return task.coroutine, task.state, task.wait and task.wait.kind, task.stack.place, self._knot(task)

        lines = []
        tasks = [task for task in self.snapshot.tasks if not task.goroutine]
        for group in self._ordered(_groups(tasks, like)):
            task = group[0]
            names = [title_of_task(one.name).removeprefix("task ") for one in group]
            lines.append(f"{_members(group, 'task', names)} {task.coroutine} [{self._state(group)}]")
            lines += stack_lines(task.stack, "    ")
            lines += [f"    started at {line.strip()}" for line in stack_lines(task.creator, "", 1)[:1]]
        return _limited(lines, len(tasks))

    def _knot(self, one: Goroutine | Task) -> object:
        """What those in a deadlock are told apart by: each waits for something else."""
        return one.key if one.key in self.stuck else None

    def _ordered(self, groups: Iterable[list[_T]]) -> list[list[_T]]:
        """What is stuck first, then what runs, what waits without an end, the longest first, and what only sleeps."""

        def rank(group: list[_T]) -> tuple[object, ...]:
            one: Goroutine | Task = group[0]  # type: ignore[assignment]
            since = min((x.since for x in group if x.since is not None), default=self.snapshot.monotonic)  # type: ignore[attr-defined]
            if one.key in self.stuck:
                return 0, since
            if one.wait is None:
                return 1, since
            return 2 if one.wait.until is None else 3, since

        return sorted(groups, key=rank)[:_GROUPS]

    def _state(self, group: Sequence[Goroutine] | Sequence[Task]) -> str:
        reasons = [one.wait for one in group if one.wait is not None]
        if reasons:
            return self._reason(reasons[0], reasons)
        return group[0].state

    def _reason(self, one: WaitReason, group: Sequence[WaitReason]) -> str:
        """What a group of like waits waits for: the kind, the thing if it is the same, for how long."""
        ages = sorted(age for reason in group if (age := self.snapshot.age(reason.since)) is not None)
        text = one.kind
        details = {reason.detail for reason in group}
        if len(details) == 1 and one.detail:
            text += f" {one.detail}"
        things = {key for reason in group for key in reason.on}
        if len(things) == 1:
            text += self._thing(next(iter(things)))
        elif len(things) > 1:
            text += f": {len(things)} things"
        left = sorted(reason.until - self.snapshot.monotonic for reason in group if reason.until is not None)
        if ages:
            text += f", {_range(ages)}"
        return f"{text}, {_range(left)} left" if left else text

    def _thing(self, key: str) -> str:
        thing = self.names.get(key)
        if thing is None:
            title = self.titles.get(key)
            return "" if title is None or title.startswith("task ") else f": {title}"
        held = f" held by {thing.held_by}" if thing.held_by else ""
        return f": {thing.name}{held}"

    # ------------------------------------------------------------------ the rest
    def _primitives(self) -> list[str]:
        lines = []
        for thing in self.snapshot.primitives:
            facts = [
                *([thing.detail] if thing.detail else []),
                *([f"held by {thing.held_by}"] if thing.held_by else []),
                f"{len(thing.waiters)} waiting: {self._list(thing.waiters)}",
            ]
            lines.append(f"{thing.name} ({thing.kind}) {', '.join(facts)}")
        return lines[:_GROUPS]

    def _list(self, keys: Sequence[str]) -> str:
        names = [self.titles.get(key, key) for key in keys[:_NAMES]]
        return ", ".join(names) + (" …" if len(keys) > _NAMES else "")

    def _connections(self) -> list[str]:
        lines = []
        addresses = {}
        for server in self.snapshot.servers:
            addresses[server.key] = ", ".join(server.addresses)
            count = "" if server.connections is None else f", {_count(server.connections, 'connection')}"
            accepting = f", {server.accepting} being accepted" if server.accepting else ""
            lines.append(f"{server.kind} server at {addresses[server.key]}{count}{accepting}")

        def like(one: Connection) -> tuple[object, ...]:
            return one.kind, one.server, one.protocol, one.tls, "" if one.server else one.peer

        for group in sorted(_groups(self.snapshot.connections, like), key=len, reverse=True)[:_GROUPS]:
            one = group[0]
            end = f"to {addresses[one.server]}" if one.server in addresses else f"to {one.peer}" if one.peer else ""
            ages = sorted(age for each in group if (age := self.snapshot.age(each.since)) is not None)
            buffered = sum(each.buffered for each in group)
            kind = f"{one.kind}{' with TLS' if one.tls else ''} connection"
            facts = [
                *([f"{_range(ages)} old"] if ages else []),
                f"{size(sum(each.received or 0 for each in group))} received",
                f"{size(sum(each.sent or 0 for each in group))} sent",
                *([f"{size(buffered)} buffered"] if buffered else []),
                *_flags(group),
            ]
            protocol = f" ({one.protocol})" if one.protocol else ""
            lines.append(f"{_count(len(group), kind)} {end}{protocol}: {', '.join(facts)}")
        return lines

    def _rest(self) -> list[str]:
        lines = [f"process {child.pid} {child.program}, {child.waiters} waiting" for child in self.snapshot.children]
        timers = Counter(timer.callback for timer in self.snapshot.timers)
        lines += [f"{_count(n, 'timer')} {name}" for name, n in timers.most_common(_GROUPS)]
        for pool in self.snapshot.executors:
            limit = "" if pool.limit is None else f" of {pool.limit}"
            queued = f", {pool.queued} queued" if pool.queued else ""
            running = Counter(pool.running).most_common(_NAMES)
            names = "".join(f", {n} {TIMES} {text}" if n > 1 else f", {text}" for text, n in running)
            lines.append(f"{pool.kind}: {pool.threads}{limit} threads, {len(pool.running)} running{queued}{names}")
        return lines


def _groups(things: Iterable[_T], like: Callable[[_T], object]) -> list[list[_T]]:
    found: dict[object, list[_T]] = {}
    for thing in things:
        found.setdefault(like(thing), []).append(thing)
    return list(found.values())


def _members(group: Sequence[object], word: str, names: Sequence[str]) -> str:
    if len(group) == 1:
        return f"{word} {names[0]}"
    return f"{len(group)} {TIMES} {word} {', '.join(names[:_NAMES])}{' …' if len(names) > _NAMES else ''}"


def _range(ages: Sequence[float]) -> str:
    """The shortest and the longest of some durations."""
    least, most = max(0.0, ages[0]), max(0.0, ages[-1])
    if most - least < max(0.1, most / 50):
        return seconds(most)
    return f"{seconds(least).removesuffix(' s')} to {seconds(most)}"


def _flags(group: Sequence[Connection]) -> list[str]:
    counts = Counter()  # type: Counter[str]
    for one in group:
        counts["reading paused"] += one.reading_paused
        counts["writing paused"] += one.writing_paused
        counts["closing"] += one.closing
        counts["offloaded"] += one.offloaded
    return [f"{n} {word}" if len(group) > 1 else word for word, n in counts.items() if n]


def _limited(lines: list[str], total: int) -> list[str]:
    return [*lines, f"({total} in all)"] if total > 1 else lines


def write_all(file: Any, text: str) -> None:
    """Write a text to a file object or a descriptor, in characters that it takes. None: the standard error."""
    if isinstance(file, int):
        data = text.encode("utf-8", "backslashreplace")
        while data:
            data = data[os.write(file, data) :]
        return
    target = sys.stderr if file is None else file
    if target is None:  # a program without standard streams
        return
    encoding = getattr(target, "encoding", None)
    if encoding:
        text = text.encode(encoding, "backslashreplace").decode(encoding)
    target.write(text)
    flush = getattr(target, "flush", None)
    if flush is not None:
        flush()
