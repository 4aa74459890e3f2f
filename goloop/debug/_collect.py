"""snapshot(): the one place that looks at everything; the views read what it returns.

It is called in signal handlers and finalizers, and while other threads are stuck: it takes no lock that they might
hold, and calls nothing of the program's. What only the core can see comes from goloop.core.look.
"""

from __future__ import annotations

import asyncio
import dataclasses
import gc
import os
import platform
import sys
import threading
import time
from asyncio import tasks as asyncio_tasks
from collections.abc import Callable
from concurrent.futures import thread as pools
from types import FrameType
from typing import Any

from goloop._eventloop import signals
from goloop.core.look import loops as look_loops
from goloop.core.look.chains import TaskLook, alive, loops_of
from goloop.core.look.parts import callable_name, frames_of
from goloop.core.sched import scheduler
from goloop.debug import _circles, _things
from goloop.debug import _snapshot as data
from goloop.debug._snapshot import Snapshot, Stack

_PAGE = os.sysconf("SC_PAGE_SIZE")
_TICK = os.sysconf("SC_CLK_TCK")
_EMPTY = Stack()
_HERE = os.path.dirname(__file__) + os.sep
_OURS = (_HERE, os.path.join(os.path.dirname(os.path.dirname(__file__)), "__init__.py"))  # lead here


def _names(cls: Any) -> tuple[str, ...]:
    return tuple(field.name for field in dataclasses.fields(cls))


_WAIT, _TASK, _GOROUTINE = _names(data.WaitReason), _names(data.Task), _names(data.Goroutine)


class Raw:
    """What was found, with the objects themselves, for those parts that are described last. Thrown away afterwards."""

    def __init__(self) -> None:
        self.now = time.monotonic()
        self.frames: dict[int, FrameType] = sys._current_frames()
        self._leave_out_own()
        self.problems: list[str] = []
        self.loops: list[Any] = signals.all_loops()
        self.workers = scheduler.all_workers()
        self.jobs = Jobs(self.frames)
        self.look = TaskLook(data.WaitReason, _WAIT, Stack, data.Frame, self.jobs.of_future)
        self.of_tasks: dict[int, Any] = {}  # the loops of all tasks, by id
        self.states: dict[int, dict[str, Any]] = {}  # id of a loop: what look_loops.loop_state() said

    def _leave_out_own(self) -> None:
        """Leave out what this thread does here: it is of no interest."""
        me = threading.get_ident()
        frame: FrameType | None = self.frames.get(me)
        while frame is not None and frame.f_code.co_filename.startswith(_OURS):
            frame = frame.f_back
        if frame is not None:
            self.frames[me] = frame

    def attempt(self, what: str, part: Callable[[], Any], otherwise: Any) -> Any:
        """Do a part. If it fails, the rest of the snapshot says so, and is still of use."""
        try:
            return part()
        except Exception as exc:
            self.problems.append(f"{what}: {type(exc).__name__}: {exc}")
            return otherwise


def snapshot() -> Snapshot:
    """Return what the process does at this moment: loops, tasks, goroutines, what they wait for, and more.

    From any thread, goroutine or coroutine, also while every loop is stuck, in a signal handler and in a finalizer. It
    calls no code of the program's, keeps nothing alive, and never waits. What cannot be read is named in `problems`.
    """
    begun = time.perf_counter()
    raw = Raw()
    try:
        return _assemble(raw, begun)
    finally:
        raw.frames.clear()  # this frame is in there: a circle


def _assemble(raw: Raw, begun: float) -> Snapshot:
    waits: dict[int, data.WaitReason]
    waits, _ = raw.attempt("waits", raw.look.threads, ({}, 0))
    all_tasks = raw.attempt("tasks", lambda: _all_tasks(raw), [])
    all_tasks = [task for task in all_tasks if not hasattr(task.get_loop(), "looks_inside")]  # those of the page
    raw.of_tasks = loops_of(all_tasks)
    loops = raw.attempt("loops", lambda: _loops(raw), ())
    tasks: list[data.Task] = raw.attempt("tasks", lambda: _tasks(raw, all_tasks), [])
    goroutines: list[data.Goroutine] = raw.attempt(
        "goroutines", lambda: raw.look.goroutines(data.Goroutine, _GOROUTINE, raw.frames), []
    )
    threads = raw.attempt("threads", lambda: _threads(raw, waits), ())
    names = _circles.Titles(raw.look, threads)
    primitives = raw.attempt("primitives", lambda: _circles.primitives(raw.look, names), ())
    servers, connections = raw.attempt("connections", lambda: _things.connections(raw), ((), ()))
    return Snapshot(
        time=time.time(),
        monotonic=raw.now,
        process=_process(raw),
        loops=loops,
        workers=raw.attempt("workers", lambda: _workers(raw), ()),
        threads=threads,
        tasks=tuple(tasks),
        goroutines=tuple(goroutines),
        primitives=primitives,
        servers=servers,
        connections=connections,
        children=raw.attempt("children", lambda: _things.children(raw), ()),
        timers=raw.attempt("timers", lambda: _things.timers(raw), ()),
        executors=raw.attempt("executors", lambda: _things.executors(raw), ()),
        deadlocks=raw.attempt("deadlocks", lambda: _circles.find(raw.look, primitives, names), ()),
        problems=tuple(raw.problems),
        took=time.perf_counter() - begun,
    )


# -------------------------------------------------------------------- process
def _process(raw: Raw) -> data.Process:
    started, rss, threads = _stat(raw.now)
    return data.Process(
        pid=os.getpid(),
        program=os.path.basename(sys.argv[0]) if getattr(sys, "argv", None) else "",
        python=platform.python_version(),
        goloop=getattr(sys.modules.get("goloop"), "__version__", ""),
        started=started,
        cpu=time.process_time(),
        rss=rss,
        threads=threads,
        descriptors=_count_of("/proc/self/fd"),
        gomaxprocs=scheduler.get_procs(),
        backlog=scheduler.backlog_size(),
        gc=gc.isenabled(),
    )


def _stat(now: float) -> tuple[float | None, int | None, int | None]:
    """When the process began, its memory in RAM, its native threads."""
    try:
        with open("/proc/self/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
        age = time.clock_gettime(time.CLOCK_BOOTTIME) - int(fields[19]) / _TICK
        return now - age, int(fields[21]) * _PAGE, int(fields[17])
    except (OSError, ValueError, IndexError):
        return None, None, None


def _count_of(folder: str) -> int | None:
    try:
        return len(os.listdir(folder)) - 1  # one is for the look itself
    except OSError:
        return None


# ---------------------------------------------------------------------- loops
def loop_key(loop: Any) -> str:
    """Return the key of a loop, "" for None."""
    return "" if loop is None else f"loop-{id(loop):x}"


def task_key(task: Any) -> str:
    """Return the key of a task, "" for None."""
    return "" if task is None else f"task-{id(task):x}"


def _loops(raw: Raw) -> tuple[data.Loop, ...]:
    workers = {id(worker.loop) for worker in raw.workers}
    found = []
    for loop in raw.loops:
        state = dict(look_loops.loop_state(loop, raw.now))
        raw.states[id(loop)] = dict(state)
        base = state.pop("base")
        task = state.pop("task")
        stack = _EMPTY
        if state["state"] == "running":
            stack = Stack(frames_of(raw.frames.get(state["thread"]), base))
        found.append(
            data.Loop(
                key=loop_key(loop),
                kind=_class_name(loop),
                worker=id(loop) in workers,
                debug=loop._debug,
                task=task_key(task),
                stack=stack,
                **state,
            )
        )
    known = {id(loop) for loop in raw.loops}
    found += [_foreign_loop(loop) for key, loop in raw.of_tasks.items() if key not in known]
    return tuple(found)


def _class_name(thing: Any) -> str:
    cls = type(thing)
    return "goloop.Loop" if cls.__module__ == "goloop._eventloop.loop" else f"{cls.__module__}.{cls.__qualname__}"


def _foreign_loop(loop: Any) -> data.Loop:
    thread = getattr(loop, "_thread_id", None) if isinstance(loop, asyncio.BaseEventLoop) else None
    return data.Loop(
        key=loop_key(loop),
        kind=_class_name(loop),
        worker=False,
        state="unknown",
        thread=thread or 0,
        running="",
        since=None,
        lag=0.0,
        ready=0,
        timers=0,
        descriptors=0,
        iterations=0,
        handoffs=0,
        away=0,
        watched=False,
        debug=False,
        task="",
        stack=_EMPTY,
    )


def _workers(raw: Raw) -> tuple[data.Worker, ...]:
    return tuple(
        data.Worker(key=f"worker-{worker.thread}", loop=loop_key(worker.loop), **look_loops.worker_state(worker))
        for worker in raw.workers
    )


# --------------------------------------------------------------------- threads
def _threads(raw: Raw, waits: dict[int, data.WaitReason]) -> tuple[data.Thread, ...]:
    main = threading.main_thread().ident
    workers = {worker.thread for worker in raw.workers}
    loops = {state["thread"] for state in raw.states.values()}
    known = dict(threading._active)  # type: ignore[attr-defined]  # enumerate() would wait for a lock
    found = []
    for ident, frame in raw.frames.items():
        thread = known.get(ident)
        name = getattr(thread, "_name", "")
        role = (
            "main"
            if ident == main
            else "worker"
            if ident in workers
            else "executor"
            if ident in raw.jobs.threads
            else "goloop"
            if name.startswith("goloop-")
            else "loop"
            if ident in loops
            else ""
        )
        found.append(
            data.Thread(
                key=f"thread-{ident}",
                ident=ident,
                native_id=getattr(thread, "_native_id", None),
                name=name,
                daemon=bool(getattr(thread, "_daemonic", False)),
                role=role,
                wait=waits.get(ident),
                stack=Stack(frames_of(frame)),
            )
        )
    return tuple(found)


class Jobs:
    """What the threads of ThreadPoolExecutors do."""

    def __init__(self, frames: dict[int, FrameType]) -> None:
        self.of_future: dict[int, str] = {}  # id of a concurrent future: what runs for it
        self.threads: dict[int, tuple[Any, str]] = {}  # ident: the queue of its executor, what it runs
        for ident, innermost in frames.items():
            frame: FrameType | None = innermost
            while frame is not None and frame.f_code is not pools._worker.__code__:
                frame = frame.f_back
            if frame is not None:
                self._look(ident, frame, innermost)

    def _look(self, ident: int, frame: FrameType, innermost: FrameType) -> None:
        local = frame.f_locals
        item, queue = local.get("work_item"), local.get("work_queue")
        if sys.version_info < (3, 13):
            local.clear()  # the frame would keep what it shows
        text = ""
        if item is not None and frame is not innermost:
            place = f"{os.path.basename(innermost.f_code.co_filename)}:{innermost.f_lineno}"
            text = f"{_function_of(item)} {place}"
            self.of_future[id(item.future)] = text
        self.threads[ident] = queue, text


def _function_of(item: Any) -> str:
    """The name of the function of a work item; of asyncio.to_thread(), the one that it was given."""
    task = getattr(item, "task", None)  # 3.14
    function = task[0] if isinstance(task, tuple) and task else getattr(item, "fn", None)
    arguments = getattr(function, "args", ())
    if callable_name(function) == "Context.run" and arguments:
        function = arguments[0]
    return callable_name(function)


# ----------------------------------------------------------------------- tasks
def _all_tasks(raw: Raw) -> list[Any]:
    """Every task of every loop, those that are done too."""
    if sys.version_info >= (3, 14):
        found = []
        for loop in {id(loop): loop for loop in [*raw.loops, asyncio._get_running_loop()] if loop is not None}.values():
            found += asyncio.all_tasks(loop)
        return found
    scheduled: Any = getattr(asyncio_tasks, "_scheduled_tasks", None)  # 3.12; an empty set is false
    references = scheduled if scheduled is not None else getattr(asyncio_tasks, "_all_tasks")  # noqa: B009
    found = list(alive(list(references.data)))
    eager = getattr(asyncio_tasks, "_eager_tasks", None)  # 3.12
    return found + list(eager or ())


def _running(raw: Raw) -> dict[int, Any]:
    """The ids of the tasks that run now, each with its frames."""
    found = {}
    threads = {}
    for loop in raw.loops:
        state = raw.states.get(id(loop))
        if state is not None and state["state"] == "running":
            threads[id(loop)] = state["thread"], state["base"]
    if sys.version_info >= (3, 14):
        pairs = [(loop, asyncio.current_task(loop)) for loop in raw.of_tasks.values()]
    else:
        pairs = list(dict(asyncio_tasks._current_tasks).items())  # type: ignore[attr-defined]
    for loop, task in pairs:
        if task is not None:
            thread, base = threads.get(id(loop), (getattr(loop, "_thread_id", None), None))
            found[id(task)] = frames_of(raw.frames.get(thread), base)
    return found


def _tasks(raw: Raw, tasks: list[Any]) -> list[data.Task]:
    goroutines = {}
    for worker in raw.workers:
        for task, g in dict(worker.tasks).items():
            goroutines[id(task)] = f"goroutine-{g.id}"
    return raw.look.tasks(data.Task, _TASK, tasks, _running(raw), goroutines)
