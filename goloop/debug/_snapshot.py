"""What a snapshot consists of: dataclasses without a reference to anything that runs.

goloop.debug._collect fills them in, and every view (text, JSON, the socket, the page) reads them. Things refer to each
other by their `key`, a str that is unique in a snapshot and stays the same in later ones as long as the thing lives.
Times are seconds of time.monotonic(); an age is `snapshot.monotonic - since`. None always means "not known".
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, overload

FORMAT = 1  # of to_dict(); grows when a field changes its meaning, not when one is added


class Frame(NamedTuple):
    """One line of a stack: file, line and function, as a traceback has them."""

    file: str
    line: int
    function: str


class Stack(Sequence[Frame]):
    """A stack, outermost frame first. Lines are looked up when they are asked for, and files are not read.

    Made by snapshot(). It keeps code objects, and no frame. From any thread.
    """

    __slots__ = ("_frames", "_places")

    def __init__(
        self, places: Sequence[tuple[Any, int]] = (), frames: Sequence[tuple[str, int, str]] | None = None
    ) -> None:
        self._places = places
        self._frames: tuple[Frame, ...] | None = None if frames is None else tuple(Frame(*frame) for frame in frames)

    def _resolved(self) -> tuple[Frame, ...]:
        if self._frames is None:
            self._frames = tuple(
                Frame(code.co_filename, line_at(code, instruction), code.co_qualname)
                for code, instruction in self._places
            )
        return self._frames

    @overload
    def __getitem__(self, index: int) -> Frame: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Frame, ...]: ...
    def __getitem__(self, index: int | slice) -> Frame | tuple[Frame, ...]:
        return self._resolved()[index]

    def __len__(self) -> int:
        return len(self._places if self._frames is None else self._frames)

    def __iter__(self) -> Iterator[Frame]:
        return iter(self._resolved())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Stack) and self.place == other.place

    def __hash__(self) -> int:
        return hash(self.place)

    def __repr__(self) -> str:
        return f"Stack({list(self)!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return _unpickled, (tuple(self),)

    @property
    def place(self) -> tuple[Any, ...]:
        """Where it is, as something to compare and to group by: equal for equal stacks of this process."""
        if self._places:
            return tuple([(id(code), instruction) for code, instruction in self._places])
        return self._frames or ()


def _unpickled(frames: tuple[Frame, ...]) -> Stack:
    return Stack((), frames)


def line_at(code: Any, instruction: int) -> int:
    """Return the line of an instruction, by its offset in bytes; the first line of the code if it has none."""
    line = code.co_firstlineno
    for start, end, number in code.co_lines():
        if start <= instruction < end:
            return int(line if number is None else number)
    return int(line)


@dataclasses.dataclass(frozen=True, slots=True)
class WaitReason:
    """What a goroutine, a task or a thread waits for. Made by snapshot().

    kind: the sort of wait, the same words for all that wait in the same way: "chan receive", "mutex lock", "sleep",
    "task", "goroutine join", "queue get", "IO read", "executor", "process", "future" and others. detail: what it is in
    this case ("3.2 s of 5 s", "127.0.0.1:5432", "held by task 17"), or "". on: the keys of what it waits for: locks,
    channels, tasks, goroutines, child processes; several for a select. since: when the wait began. until: when it ends
    by itself, because of its timeout or a timer; None for never.
    """

    kind: str
    detail: str = ""
    on: tuple[str, ...] = ()
    since: float | None = None
    until: float | None = None

    def __str__(self) -> str:
        return f"{self.kind} {self.detail}" if self.detail else self.kind


@dataclasses.dataclass(frozen=True, slots=True)
class Process:
    """The process. Made by snapshot().

    pid. program: the name of the program's file, without folder and arguments. python, goloop: versions. started: when
    the process began. cpu: seconds of processor time that it has used. rss: bytes of memory, in RAM. threads: native
    threads, of which Python knows some. descriptors: how many are open. gomaxprocs. backlog: goroutines that no worker
    has started. gc: whether the garbage collector is on.
    """

    pid: int
    program: str
    python: str
    goloop: str
    started: float | None
    cpu: float
    rss: int | None
    threads: int | None
    descriptors: int | None
    gomaxprocs: int
    backlog: int
    gc: bool


@dataclasses.dataclass(frozen=True, slots=True)
class Loop:
    """An event loop: goloop's, or another one that has tasks. Made by snapshot().

    key. kind: the name of its class. worker: whether it is a worker's. state: "idle" (it sleeps until something is to
    be done), "running" (a callback runs), "waiting for its thread" (its callback was handed off, and no thread has come
    yet), "stopped", "closed"; "unknown" for other loops. thread: the ident of the thread that runs it, or 0. running:
    the name of the callback that runs. since: when that began, as far as the monitor or an earlier snapshot has seen
    it. lag: seconds for which what is due waits. ready, timers, descriptors: how many. iterations, handoffs: counts.
    away: callbacks that were handed off and have not ended. watched, debug: switches. task: the key of the task that
    runs. stack: of the running callback.
    """

    key: str
    kind: str
    worker: bool
    state: str
    thread: int
    running: str
    since: float | None
    lag: float
    ready: int
    timers: int
    descriptors: int
    iterations: int
    handoffs: int
    away: int
    watched: bool
    debug: bool
    task: str
    stack: Stack


@dataclasses.dataclass(frozen=True, slots=True)
class Worker:
    """A thread that runs goroutines. Made by snapshot().

    key. thread: its ident. loop: the key of its loop. state: "idle", "running" or "blocked" (the goroutine has said so
    by blocking()). goroutine: the key of the one that runs. live: its goroutines that are not done. runnable: those
    that wait for their turn. rounds: turns so far. locked: how many lock_os_thread() hold it. retired: it starts none
    any more.
    """

    key: str
    thread: int
    loop: str
    state: str
    goroutine: str
    live: int
    runnable: int
    rounds: int
    locked: int
    retired: bool


@dataclasses.dataclass(frozen=True, slots=True)
class Thread:
    """A thread of Python's. Made by snapshot().

    key. ident, native_id, name, daemon: as in threading. role: "main", "worker", "loop", "goloop" (a helper of
    goloop's), "executor" (of a ThreadPoolExecutor) or "". wait: what it waits for in goloop. stack: where it is.
    """

    key: str
    ident: int
    native_id: int | None
    name: str
    daemon: bool
    role: str
    wait: WaitReason | None
    stack: Stack


@dataclasses.dataclass(frozen=True, slots=True)
class Task:
    """A task of any loop that is not done. Made by snapshot().

    key. name: as it was given, or asyncio's "Task-17". coroutine: the qualified name of its function. state: "running",
    "ready" (it will run soon), "waiting" or "not started". loop: the key of its loop. goroutine: the key of the
    goroutine that it is. wait: what it waits for. since: when it began to wait. stack: the frames that await one
    another, outermost first. creator: the stack that made it, in debug mode; empty if not known. parent: the key of the
    task or goroutine that made it. cancelling: requests to cancel it.
    """

    key: str
    name: str
    coroutine: str
    state: str
    loop: str
    goroutine: str
    wait: WaitReason | None
    since: float | None
    stack: Stack
    creator: Stack
    parent: str
    cancelling: int


@dataclasses.dataclass(frozen=True, slots=True)
class Goroutine:
    """A goroutine that is not done. Made by snapshot().

    key. id, name: its own. function: the qualified name of what it runs. state: "not started", "runnable", "running",
    "blocked" (it runs, and its thread is in blocking()) or "parked". wait: what it is parked for. since: when it began
    to be. worker, task, loop: the keys of its worker, of the task that it is, of the loop that it was started from.
    stack: where it is. creator: the stack that called go(). cancelling: a cancellation waits for its next park.
    """

    key: str
    id: int
    name: str
    function: str
    state: str
    wait: WaitReason | None
    since: float | None
    worker: str
    task: str
    loop: str
    stack: Stack
    creator: Stack
    cancelling: bool


@dataclasses.dataclass(frozen=True, slots=True)
class Primitive:
    """A channel, lock, queue or event that something waits for. Made by snapshot().

    key. kind: its class ("Chan", "Mutex", "asyncio.Lock", "asyncio.Queue" and others). name: what the dump calls it
    ("lock A"). detail: its state in words. holders: the keys of the goroutines, tasks or threads that have it, as far
    as that is known; one that has ended is in there all the same. held_by: the same in words ("goroutine 1, which has
    ended"). waiters: the keys of those that wait, the first in line first.
    """

    key: str
    kind: str
    name: str
    detail: str
    holders: tuple[str, ...]
    held_by: str
    waiters: tuple[str, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Server:
    """A listening socket. Made by snapshot().

    key. loop: the key of its loop; "" for one of goloop.net. kind: "tcp", "unix", "tls" or "goloop.net". addresses:
    where it listens. connections: how many are open, as far as the server counts them. accepting: how many are being
    accepted. backlog: of listen().
    """

    key: str
    loop: str
    kind: str
    addresses: tuple[str, ...]
    connections: int | None
    accepting: int
    backlog: int


@dataclasses.dataclass(frozen=True, slots=True)
class Connection:
    """A transport, or a connection of goloop.net. Made by snapshot().

    key. loop: the key of its loop. server: the key of the server that has accepted it. kind: "tcp", "unix", "udp",
    "pipe", "goloop.net". fd: its descriptor. local, peer: addresses. protocol: the name of the protocol's class. since:
    when it was made. received, sent: bytes. buffered: bytes that wait to be written. reading_paused: it was told to
    stop reading. writing_paused: the protocol was told to stop writing. closing: it is. offloaded: the netpoller has
    it. tls: whether it is TLS.
    """

    key: str
    loop: str
    server: str
    kind: str
    fd: int
    local: str
    peer: str
    protocol: str
    since: float | None
    received: int | None
    sent: int | None
    buffered: int
    reading_paused: bool
    writing_paused: bool
    closing: bool
    offloaded: bool
    tls: bool


@dataclasses.dataclass(frozen=True, slots=True)
class Child:
    """A child process that a loop waits for. Made by snapshot().

    key. pid. program: the name of its file, without arguments. loop: the key of its loop. since: when it was started.
    waiters: how many wait for its end.
    """

    key: str
    pid: int
    program: str
    loop: str
    since: float | None
    waiters: int


@dataclasses.dataclass(frozen=True, slots=True)
class Timer:
    """A timer that is more than the end of a wait, which has it in its `until`. Made by snapshot().

    key. loop: the key of its loop; "" for one of goloop.timer and goloop.context. when: when it is due. callback: its
    name.
    """

    key: str
    loop: str
    when: float
    callback: str


@dataclasses.dataclass(frozen=True, slots=True)
class Executor:
    """The default executor of a loop. Made by snapshot().

    key. loop: the key of its loop. kind: its class. limit: how many threads it may have. threads: how many it has.
    queued: jobs that wait for a thread. running: the names of the functions that run.
    """

    key: str
    loop: str
    kind: str
    limit: int | None
    threads: int
    queued: int | None
    running: tuple[str, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Deadlock:
    """A circle of waits, none of which can end. Made by snapshot().

    members: the keys, in order, each waiting for the next one and the last one for the first. text: the same in words
    ("task 17 → lock A → task 23 → lock B → task 17").
    """

    members: tuple[str, ...]
    text: str


@dataclasses.dataclass(frozen=True, slots=True)
class Snapshot:
    """All that a process does at one moment. Made by snapshot(); it may be read and kept in any thread.

    time: when, in seconds of time.time(). monotonic: the same of time.monotonic(). took: seconds that it took. process,
    loops, workers, threads, tasks, goroutines, primitives, servers, connections, children, timers, executors: see their
    classes. deadlocks: circles of waits. problems: what could not be read, in words. omitted: {kind: how many} of
    things beyond the limit.
    """

    time: float
    monotonic: float
    took: float
    process: Process
    loops: tuple[Loop, ...] = ()
    workers: tuple[Worker, ...] = ()
    threads: tuple[Thread, ...] = ()
    tasks: tuple[Task, ...] = ()
    goroutines: tuple[Goroutine, ...] = ()
    primitives: tuple[Primitive, ...] = ()
    servers: tuple[Server, ...] = ()
    connections: tuple[Connection, ...] = ()
    children: tuple[Child, ...] = ()
    timers: tuple[Timer, ...] = ()
    executors: tuple[Executor, ...] = ()
    deadlocks: tuple[Deadlock, ...] = ()
    problems: tuple[str, ...] = ()
    omitted: dict[str, int] = dataclasses.field(default_factory=dict)

    def age(self, since: float | None) -> float | None:
        """Return for how many seconds something lasts that began at `since`; None for None. From any thread."""
        return None if since is None else max(0.0, self.monotonic - since)

    def to_dict(self) -> dict[str, Any]:
        """Return it as dicts, lists, numbers and texts alone, as json.dumps() takes them. From any thread.

        The names are those of the attributes. "format" is a number that grows when one changes its meaning.
        """
        return {"format": FORMAT, **_plain(self)}


def _plain(x: Any) -> Any:
    """A piece of a snapshot as JSON has it."""
    if isinstance(x, Stack):
        return [frame._asdict() for frame in x]
    if isinstance(x, (tuple, list)):
        return [_plain(item) for item in x]
    if isinstance(x, dict):
        return {str(name): _plain(item) for name, item in x.items()}
    names = _names(type(x))
    return {name: _plain(getattr(x, name)) for name in names} if names else x


_fields: dict[type, tuple[str, ...]] = {}


def _names(cls: type) -> tuple[str, ...]:
    names = _fields.get(cls)
    if names is None:
        names = tuple(field.name for field in dataclasses.fields(cls)) if dataclasses.is_dataclass(cls) else ()
        _fields[cls] = names
    return names
