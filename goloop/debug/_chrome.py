"""A trace as text: JSON in Chrome's Trace Event Format, which Perfetto, Chrome and others read.

The threads are lanes of the real process. Tasks and goroutines are lanes of two processes that are made up, as a lane
belongs to one: they show when each ran, what it waited for, and how long it then waited for its turn. A flow arrow goes
from what woke a task, a goroutine or a loop to it.
"""

from __future__ import annotations

import dataclasses
import json
import struct
from collections.abc import Callable, Iterator
from typing import Any

from goloop.core.system.trace import EVENT, KINDS

EVENT_SIZE = struct.calcsize(EVENT)
_BATCH = 1000  # events in a chunk of text
_TICK = 1  # ns; the length of what has none of its own
# What is added to the number of the process for those of tasks and goroutines; no real one is as large.
_TASKS, _GOROUTINES = 10_000_000, 20_000_000
_Handler = Callable[[int, int, int, int, int, int], None]  # time, tid, loop, name, a, b


@dataclasses.dataclass(frozen=True)
class Recording:
    """What was collected: the events of each thread as core/system/trace.pyx has them, and what explains them.

    start, stop: monotonic nanoseconds. tracks: of (tid, events made, the newest of them). names: a str, or (name, kind,
    file, line) of a function, by the number in the events. threads: their names by tid. tasks: names by lane.
    """

    pid: int
    wall: float
    start: int
    stop: int
    tracks: list[tuple[int, int, bytes]]
    names: list[Any]
    lost: int
    threads: dict[int, str]
    tasks: dict[int, str]


def chunks(recording: Recording) -> Iterator[str]:
    """Give the text piece by piece."""
    converter = _Converter(recording)
    head = {
        "displayTimeUnit": "ns",
        "otherData": {
            "program": "goloop",
            "started": recording.wall,
            "dropped": sum(made - len(data) // EVENT_SIZE for _, made, data in recording.tracks) + recording.lost,
        },
    }
    yield json.dumps(head)[:-1] + ', "traceEvents": [\n'
    separator = ""
    for batch in converter.convert():
        yield separator + ",\n".join(batch)
        separator = ",\n"
    yield "\n]}\n"


@dataclasses.dataclass
class _Slice:
    """Something that has begun on a thread and has not ended."""

    kind: int
    name: str
    start: int
    arguments: str
    lane: _Lane | None  # of the task or goroutine that runs in it


@dataclasses.dataclass
class _Lane:
    """A task or goroutine."""

    pid: int
    tid: int
    label: str
    since: int  # when it last gave way; 0: not in this trace
    reason: str  # what for


@dataclasses.dataclass
class _Ready:
    """Something was made ready, and has not run yet."""

    time: int
    place: tuple[int, int] | None  # what did that: process and lane, if a slice was open there
    tid: int


class _Converter:
    def __init__(self, recording: Recording) -> None:
        self.r = recording
        self.out: list[str] = []
        self.stacks: dict[int, list[_Slice]] = {}  # by tid
        self.begins: dict[int, int] = {}  # when the first event of a thread was that is kept
        self.tasks: dict[int, _Lane] = {}  # by lane
        self.goroutines: dict[int, _Lane] = {}  # by id
        self.loops: dict[int, set[int]] = {}  # the loops that a thread has run
        self.ready: dict[int, _Ready] = {}  # by the item
        self.wakes: dict[int, _Ready] = {}  # by the loop
        self.spans: dict[int, tuple[str, int, int, int]] = {}  # number: name, process, lane, start
        self.flows = 0
        self.names = [json.dumps(name if isinstance(name, str) else name[0]) for name in recording.names]
        self.places = ["" if isinstance(name, str) else self._place(*name) for name in recording.names]

    @staticmethod
    def _place(name: str, kind: str, file: str, line: int) -> str:
        place = {"kind": kind, "file": f"{file}:{line}"} if file else {"kind": kind}
        return json.dumps(place)[1:-1]

    def convert(self) -> Iterator[list[str]]:
        """Give the events as text, some at a time."""
        handlers: dict[int, _Handler] = {KINDS[name]: getattr(self, f"_on_{name}") for name in KINDS}
        for time, tid, kind, loop, name, a, b in self._events():
            handlers[kind](time, tid, loop, name, a, b)
            if len(self.out) >= _BATCH:
                batch, self.out = self.out, []
                yield batch
        self._finish()
        self._describe()
        yield self.out

    def _events(self) -> list[tuple[int, int, int, int, int, int, int]]:
        found = []
        for tid, _, data in self.r.tracks:
            self.stacks[tid] = []
            for time, kind, name, a, b in struct.iter_unpack(EVENT, data):
                self.begins.setdefault(tid, time)
                found.append((time, tid, kind & 0xFF, kind >> 8, name, a, b))
        found.sort(key=lambda event: event[0])  # those of one thread are in order, and stay so
        return found

    # ------------------------------------------------------------- the text
    def _ts(self, time: int) -> str:
        return f"{max(time - self.r.start, 0) / 1000:.3f}"

    def _complete(self, name: str, category: str, pid: int, tid: int, start: int, end: int, arguments: str) -> None:
        start = max(start, self.r.start)
        self.out.append(
            f'{{"ph":"X","name":{name},"cat":"{category}","pid":{pid},"tid":{tid},"ts":{self._ts(start)},'
            f'"dur":{max(end - start, 0) / 1000:.3f},"args":{{{arguments}}}}}'
        )

    def _instant(self, name: str, tid: int, time: int, arguments: str) -> None:
        self.out.append(
            f'{{"ph":"i","s":"t","name":{name},"cat":"handoff","pid":{self.r.pid},"tid":{tid},"ts":{self._ts(time)},'
            f'"args":{{{arguments}}}}}'
        )

    def _flow(self, source: tuple[int, int], start: int, target: tuple[int, int], end: int) -> None:
        self.flows += 1
        for phase, (pid, tid), time in (("s", source, start), ("f", target, end)):
            binding = '"bp":"e",' if phase == "f" else ""
            self.out.append(
                f'{{"ph":"{phase}",{binding}"id":{self.flows},"name":"wake-up","cat":"wake","pid":{pid},"tid":{tid},'
                f'"ts":{self._ts(time)}}}'
            )

    # ----------------------------------------------------- slices of threads
    def _open(self, tid: int, kind: int, name: str, time: int, arguments: str = "", lane: _Lane | None = None) -> None:
        self.stacks[tid].append(_Slice(kind, name, time, arguments, lane))

    def _close(self, tid: int, kind: int, category: str, time: int, arguments: str = "") -> _Slice | None:
        """End the innermost slice of that kind, and what is open inside of it: its end is not known."""
        stack = self.stacks[tid]
        if not any(opened.kind == kind for opened in stack):
            return None
        while True:
            opened = stack.pop()
            both = ",".join(each for each in (opened.arguments, arguments if opened.kind == kind else "") if each)
            self._complete(opened.name, category, self.r.pid, tid, opened.start, time, both)
            if opened.kind == kind:
                return opened

    def _here(self, tid: int) -> tuple[int, int] | None:
        """The lane of what runs in a thread: of its task or goroutine, or else its own; None: nothing does."""
        stack = self.stacks[tid]
        if not stack:
            return None
        for opened in reversed(stack):
            if opened.lane is not None:
                return opened.lane.pid, opened.lane.tid
        return self.r.pid, tid

    def _arrow(self, made: _Ready, name: str, target: tuple[int, int], tid: int, time: int) -> None:
        """From what made something ready to that, if it is known."""
        source = made.place
        if source is None:
            if made.tid == tid:
                return
            source = self.r.pid, made.tid  # a thread that runs no loop
            self._complete(name, "wake", *source, made.time, made.time + _TICK, "")
        self._flow(source, made.time, target, time)

    # ----------------------------------------------------- tasks, goroutines
    def _begin_turn(self, lane: _Lane, made: _Ready | None, tid: int, time: int) -> None:
        """A task or goroutine goes on: say what it has waited for until now, and who ended that."""
        start = lane.since
        if made is not None:
            if start and made.time > start:
                self._complete(lane.reason, "wait", lane.pid, lane.tid, start, made.time, "")
            self._complete('"runnable"', "wait", lane.pid, lane.tid, max(made.time, start), time, "")
            self._arrow(made, '"wake-up"', (lane.pid, lane.tid), tid, time)
        elif start:
            self._complete(lane.reason, "wait", lane.pid, lane.tid, start, time, "")

    def _end_turn(self, lane: _Lane, opened: _Slice, time: int) -> None:
        self._complete(opened.name, "run", lane.pid, lane.tid, opened.start, time, opened.arguments)

    def _task(self, number: int, name: str) -> _Lane:
        lane = self.tasks.get(number)
        if lane is None:
            label = self.r.tasks.get(number) or f"{json.loads(name)} #{number}"
            lane = self.tasks[number] = _Lane(self.r.pid + _TASKS, number, label, 0, '""')
        return lane

    def _goroutine(self, number: int, name: str) -> _Lane:
        lane = self.goroutines.get(number)
        if lane is None:
            lane = _Lane(self.r.pid + _GOROUTINES, number, f"{json.loads(name)} #{number}", 0, '""')
            self.goroutines[number] = lane
        return lane

    # -------------------------------------------------------------- the events
    def _on_run(self, time: int, tid: int, loop: int, name: int, a: int, b: int) -> None:
        made = self.ready.pop(a, None)
        self.loops.setdefault(tid, set()).add(loop)
        arguments = ",".join(each for each in (f'"loop":{loop}', self.places[name]) if each)
        lane = self._task(b, self.names[name]) if b else None
        self._open(tid, KINDS["run"], self.names[name], time, arguments, lane)
        if lane is not None:
            self._begin_turn(lane, made, tid, time)
        elif made is not None and made.tid != tid:
            self._arrow(made, '"call_soon_threadsafe"', (self.r.pid, tid), tid, time)

    def _on_ran(self, time: int, tid: int, loop: int, name: int, a: int, b: int) -> None:
        opened = self._close(tid, KINDS["run"], "run", time)
        if opened is not None and opened.lane is not None:
            self._end_turn(opened.lane, opened, time)
            opened.lane.since, opened.lane.reason = (0, '""') if b else (time, self.names[name])

    def _on_ready(self, time: int, tid: int, loop: int, name: int, a: int, b: int) -> None:
        self.ready[a] = _Ready(time, self._here(tid), tid)

    def _on_sleep(self, time: int, tid: int, loop: int, name: int, a: int, b: int) -> None:
        self.loops.setdefault(tid, set()).add(loop)
        where = '"for":"descriptors"' if a == 1 else '"for":"threads"'
        self._open(tid, KINDS["sleep"], '"asleep"', time, f'"loop":{loop},{where}')

    def _on_awake(self, time: int, tid: int, loop: int, name: int, a: int, b: int) -> None:
        made = self.wakes.pop(loop, None)
        opened = self._close(tid, KINDS["sleep"], "sleep", time)
        if made is not None and opened is not None and made.time >= opened.start:
            self._arrow(made, f'"wake loop {loop}"', (self.r.pid, tid), tid, time)

    def _on_go(self, time: int, tid: int, loop: int, name: int, a: int, b: int) -> None:
        made = self.ready.pop(a, None)
        lane = self._goroutine(b, self.names[name])
        self._open(tid, KINDS["go"], self.names[name], time, self.places[name], lane)
        self._begin_turn(lane, made, tid, time)

    def _on_park(self, time: int, tid: int, loop: int, name: int, a: int, b: int) -> None:
        opened = self._close(tid, KINDS["go"], "run", time)
        if opened is not None and opened.lane is not None:
            self._end_turn(opened.lane, opened, time)
        lane = self.goroutines.get(b)
        if lane is not None:
            lane.since, lane.reason = (time, self.names[name]) if name else (0, '""')

    def _on_span(self, time: int, tid: int, loop: int, name: int, a: int, b: int) -> None:
        pid, lane = (self.r.pid + _TASKS, b) if b else self._here(tid) or (self.r.pid, tid)
        self.spans[a] = (self.names[name], pid, lane, time)

    def _on_span_end(self, time: int, tid: int, loop: int, name: int, a: int, b: int) -> None:
        begun = self.spans.pop(a, None)
        if begun is not None:
            self._span(a, *begun, time)

    def _span(self, number: int, name: str, pid: int, tid: int, start: int, end: int) -> None:
        for phase, time in (("b", start), ("e", end)):
            self.out.append(
                f'{{"ph":"{phase}","id":{number},"name":{name},"cat":"span","pid":{pid},"tid":{tid},'
                f'"ts":{self._ts(time)},"args":{{}}}}'
            )

    def _on_gc(self, time: int, tid: int, loop: int, name: int, a: int, b: int) -> None:
        self._open(tid, KINDS["gc"], '"garbage collection"', time, f'"generation":{a}')

    def _on_gc_end(self, time: int, tid: int, loop: int, name: int, a: int, b: int) -> None:
        self._close(tid, KINDS["gc"], "gc", time, f'"collected":{a}')

    def _on_netpoll(self, time: int, tid: int, loop: int, name: int, a: int, b: int) -> None:
        self._open(tid, KINDS["netpoll"], '"netpoll"', time, f'"events":{a}')

    def _on_netpolled(self, time: int, tid: int, loop: int, name: int, a: int, b: int) -> None:
        self._close(tid, KINDS["netpoll"], "netpoll", time)

    def _on_wake(self, time: int, tid: int, loop: int, name: int, a: int, b: int) -> None:
        self.wakes[loop] = _Ready(time, self._here(tid), tid)

    def _on_handoff(self, time: int, tid: int, loop: int, name: int, a: int, b: int) -> None:
        self._instant('"handoff"', tid, time, f'"loop":{loop},"from":{json.dumps(self._thread(a))}')

    def _on_handback(self, time: int, tid: int, loop: int, name: int, a: int, b: int) -> None:
        self._instant('"handback"', tid, time, f'"loop":{loop}')

    # -------------------------------------------------------------- the rest
    def _finish(self) -> None:
        """What has not ended when the trace did."""
        end = self.r.stop
        for tid, stack in self.stacks.items():
            while stack:
                opened = stack.pop()
                arguments = ",".join(each for each in (opened.arguments, '"unfinished":true') if each)
                self._complete(opened.name, "run", self.r.pid, tid, opened.start, end, arguments)
                if opened.lane is not None:
                    self._end_turn(opened.lane, opened, end)
                    opened.lane.since = 0
        for lane in (*self.tasks.values(), *self.goroutines.values()):
            if lane.since:
                self._complete(lane.reason, "wait", lane.pid, lane.tid, lane.since, end, '"unfinished":true')
        for number, begun in self.spans.items():
            self._span(number, *begun, end)

    def _thread(self, tid: int) -> str:
        return self.r.threads.get(tid, f"thread {tid}")

    def _describe(self) -> None:
        """The names of processes and lanes."""
        self._name("process_name", self.r.pid, 0, f"threads of process {self.r.pid}")
        for tid in self.stacks:
            loops = sorted(self.loops.get(tid, ()))
            what = f": loop{'s' if len(loops) > 1 else ''} {', '.join(map(str, loops))}" if loops else ""
            self._name("thread_name", self.r.pid, tid, self._thread(tid) + what)
        for offset, title, lanes in (
            (_TASKS, "tasks", self.tasks),
            (_GOROUTINES, "goroutines", self.goroutines),
        ):
            if lanes:
                self._name("process_name", self.r.pid + offset, 0, title)
            for lane in lanes.values():
                self._name("thread_name", lane.pid, lane.tid, lane.label)

    def _name(self, kind: str, pid: int, tid: int, name: str) -> None:
        text = json.dumps(name)
        self.out.append(f'{{"ph":"M","name":"{kind}","pid":{pid},"tid":{tid},"ts":0,"args":{{"name":{text}}}}}')
