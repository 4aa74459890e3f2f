"""snapshot(): the one place that looks at everything; the views read what it returns."""

from __future__ import annotations

import asyncio
import gc
import os
import platform
import sys
import threading
import time
from types import FrameType
from typing import Any

from goloop._eventloop import signals
from goloop.core.sched import goroutine, scheduler
from goloop.debug import _snapshot as data
from goloop.debug._snapshot import Snapshot, Stack

_PAGE = os.sysconf("SC_PAGE_SIZE")
_TICK = os.sysconf("SC_CLK_TCK")


def snapshot() -> Snapshot:
    """Return what the process does at this moment: loops, tasks, goroutines, what they wait for, and more.

    From any thread, goroutine or coroutine, also while every loop is stuck, in a signal handler and in a finalizer. It
    calls no code of the program's, and keeps nothing alive.
    """
    begun = time.perf_counter()
    now = time.monotonic()
    frames = sys._current_frames()
    tasks = _tasks()
    return Snapshot(
        time=time.time(),
        monotonic=now,
        process=_process(now),
        loops=_loops(),
        workers=_workers(),
        threads=_threads(frames),
        tasks=tasks,
        goroutines=_goroutines(),
        took=time.perf_counter() - begun,
    )


def _stack_of(frame: FrameType | None) -> Stack:
    places = []
    while frame is not None:
        places.append((frame.f_code, frame.f_lasti))
        frame = frame.f_back
    places.reverse()
    return Stack(tuple(places))


def _process(now: float) -> data.Process:
    started, rss, threads = _stat(now)
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
        uptime = time.clock_gettime(time.CLOCK_BOOTTIME) - int(fields[19]) / _TICK
        return now - uptime, int(fields[21]) * _PAGE, int(fields[17])
    except (OSError, ValueError, IndexError):
        return None, None, None


def _count_of(folder: str) -> int | None:
    try:
        return len(os.listdir(folder)) - 1  # one is for the look itself
    except OSError:
        return None


def loop_key(loop: Any) -> str:
    return "" if loop is None else f"loop-{id(loop):x}"


def _loops() -> tuple[data.Loop, ...]:
    workers = {id(worker.loop) for worker in scheduler.all_workers()}
    found = []
    for loop in signals.all_loops():
        stats = {} if loop.is_closed() else loop._stats()
        found.append(
            data.Loop(
                key=loop_key(loop),
                kind=f"{type(loop).__module__}.{type(loop).__qualname__}",
                worker=id(loop) in workers,
                state="closed" if loop.is_closed() else "running" if loop.is_running() else "stopped",
                thread=loop._thread_id or 0,
                running="",
                since=None,
                lag=0.0,
                ready=stats.get("ready", 0),
                timers=stats.get("timers", 0),
                descriptors=stats.get("descriptors", 0),
                iterations=0,
                handoffs=stats.get("handoffs", 0),
                away=stats.get("away", 0),
                watched=False,
                debug=loop.get_debug(),
                task="",
                stack=Stack(),
            )
        )
    return tuple(found)


def _workers() -> tuple[data.Worker, ...]:
    return tuple(
        data.Worker(
            key=f"worker-{worker.thread}",
            thread=worker.thread,
            loop=loop_key(worker.loop),
            state="running",
            goroutine="",
            live=worker.live,
            runnable=0,
            rounds=worker.rounds,
            locked=0,
            retired=worker.retired,
        )
        for worker in scheduler.all_workers()
    )


def _threads(frames: dict[int, FrameType]) -> tuple[data.Thread, ...]:
    main = threading.main_thread().ident
    workers = {worker.thread for worker in scheduler.all_workers()}
    known = dict(threading._active)  # type: ignore[attr-defined]  # enumerate() would wait for a lock
    found = []
    for ident, frame in frames.items():
        thread = known.get(ident)
        role = "main" if ident == main else "worker" if ident in workers else ""
        found.append(
            data.Thread(
                key=f"thread-{ident}",
                ident=ident,
                native_id=getattr(thread, "native_id", None),
                name=getattr(thread, "name", ""),
                daemon=bool(getattr(thread, "daemon", False)),
                role=role,
                wait=None,
                stack=_stack_of(frame),
            )
        )
    return tuple(found)


def _goroutines() -> tuple[data.Goroutine, ...]:
    found = []
    for g in goroutine.all_goroutines():
        parked = g.state not in ("not started", "runnable", "running", "done")
        found.append(
            data.Goroutine(
                key=f"goroutine-{g.id}",
                id=g.id,
                name=g.name or "",
                function="",
                state="parked" if parked else g.state,
                wait=data.WaitReason(g.state) if parked else None,
                since=None,
                worker="",
                task="",
                loop=loop_key(g.origin_loop),
                stack=Stack(),
                creator=Stack(),
                cancelling=False,
            )
        )
    return tuple(found)


def _tasks() -> tuple[data.Task, ...]:
    found = []
    for loop in signals.all_loops():
        for task in asyncio.all_tasks(loop):
            coroutine = task.get_coro()
            found.append(
                data.Task(
                    key=f"task-{id(task):x}",
                    name=task.get_name(),
                    coroutine=getattr(coroutine, "__qualname__", type(coroutine).__qualname__),
                    state="waiting",
                    loop=loop_key(loop),
                    goroutine="",
                    wait=None,
                    since=None,
                    stack=Stack(),
                    creator=Stack(),
                    parent="",
                    cancelling=task.cancelling(),
                )
            )
    return tuple(found)
