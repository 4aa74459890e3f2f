"""Running a loop inside of one of its own callbacks, for nest_asyncio and nest_asyncio2.

asyncio forbids it. Those modules exchange tasks and futures in asyncio, and then the methods of a loop's class, which
would break every loop of ours: they know asyncio's queues. So they find that our loops nest already, and leave the
class alone. Our loops nest once asyncio has been exchanged, and not before.

While a callback runs the loop, its belongings wait: its transport or watcher, and callbacks in its context.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from asyncio import events, tasks
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from asyncio import BaseEventLoop as _Base
else:
    _Base = object


# Since 3.14 asyncio keeps the current task in two places: tasks in C have theirs in the thread, tasks in Python, which
# nest_asyncio makes, in this dict. Before that it was the only place.
_current_tasks: dict[asyncio.AbstractEventLoop, asyncio.Task[Any]] = tasks._current_tasks  # type: ignore[attr-defined]

_Outside = tuple[asyncio.AbstractEventLoop | None, "asyncio.Task[Any] | None", "asyncio.Task[Any] | None"]


def step_aside() -> _Outside:
    """Leave the loop and the task that run in this thread, if any; return them for come_back()."""
    loop = events._get_running_loop()
    task = in_python = None
    if loop is not None:
        task = asyncio.current_task(loop)
        if task is not None:
            tasks._leave_task(loop, task)
        in_python = _current_tasks.pop(loop, None)
    events._set_running_loop(None)
    return loop, task, in_python


def come_back(outside: _Outside) -> None:
    """Go on with what step_aside() left."""
    loop, task, in_python = outside
    events._set_running_loop(loop)
    if loop is None:
        return
    if in_python is not None:
        _current_tasks[loop] = in_python
    if task is not None:
        tasks._enter_task(loop, task)


def _show_tasks_in_python() -> None:
    """Let current_task() see the tasks that nest_asyncio makes, as it does before 3.14.

    Without that it tells the task outside, or none: asyncio.timeout() and aiohttp, in a run inside, fail or cancel the
    wrong task. Not while such a task runs: it leaves as it has entered.
    """
    if sys.version_info < (3, 14) or not hasattr(asyncio, "_nest_patched"):
        return
    module: Any = tasks
    if asyncio.Task is module._PyTask and asyncio.current_task is module._c_current_task and not _current_tasks:
        module._py_enter_task = module._c_enter_task
        module._py_leave_task = module._c_leave_task
        module._py_swap_current_task = module._c_swap_current_task


class Nesting(_Base):
    """Mixed into Loop."""

    _handoff: bool
    if TYPE_CHECKING:  # from Loop's other bases
        _stopping: bool
        _awaited_runs: int
        _check_closed: Any
        _on_own_thread: Any
        _begin_nested: Any
        _end_nested: Any
        _is_nested: Any
        _run_once: Any
    _awaited: asyncio.Future[Any] | None = None  # the outermost run_until_complete() waits for it

    @property
    def _nest_patched(self) -> bool:
        """The attribute that nest_asyncio looks for, at its end, before it exchanges the methods of a loop's class."""
        if not hasattr(asyncio, "_nest_patched"):
            raise AttributeError("nest_asyncio has not been applied")
        _show_tasks_in_python()
        return True

    def _may_nest(self) -> bool:
        return hasattr(asyncio, "_nest_patched") and self._on_own_thread()

    def _check_running(self) -> None:
        if self.is_running():
            raise RuntimeError("This event loop is already running")
        if not hasattr(asyncio, "_nest_patched") and events._get_running_loop() is not None:
            raise RuntimeError("Cannot run the event loop while another loop is running")
        _show_tasks_in_python()

    @contextlib.contextmanager
    def _nested(self) -> Iterator[None]:
        if self._handoff:
            raise RuntimeError("an event loop with handoff=True cannot run inside of itself")
        self._begin_nested()
        outside = step_aside()
        try:
            events._set_running_loop(self)
            yield
        finally:
            come_back(outside)
            self._end_nested()
            if self._awaited is not None and self._awaited.done():
                self._outermost_done(self._awaited)  # it was called inside, and did nothing

    def _run_forever_nested(self) -> None:
        with self._nested():
            self._run_once()
            while not self._stopping:
                self._run_once()
            self._stopping = False

    def run_until_complete(self, future: Any) -> Any:
        """Run until a future, or the task of a coroutine, is done; return its result (asyncio: run_until_complete).

        future: a future of this loop, or a coroutine; its exception is raised here. RuntimeError if the loop is closed,
        runs already, or is stopped before the future is done; goloop.errors.DeadlockError when nothing can end the
        wait any more. In a plain thread, which it blocks, or a goroutine's.
        """
        if not self._may_nest():
            self._awaited_runs += 1
            try:
                if not hasattr(asyncio, "_nest_patched"):
                    return super().run_until_complete(future)
                return self._run_outermost(future)
            finally:
                self._awaited_runs -= 1
        with self._nested():
            task = self._task_of(future)
            while not task.done():
                self._run_once()
                if self._stopping:
                    break  # which the run outside is to see as well
        return _result(task)

    def _run_outermost(self, future: Any) -> Any:
        """As asyncio's run_until_complete(), but that the future's end does not end runs that are inside this one."""
        self._check_closed()
        self._check_running()
        task = self._awaited = self._task_of(future)
        task.add_done_callback(self._outermost_done)
        try:
            self.run_forever()
        except BaseException:
            if task is not future and task.done() and not task.cancelled():
                task.exception()  # the caller has no other way to get at it
            raise
        finally:
            task.remove_done_callback(self._outermost_done)
            self._awaited = None
        return _result(task)

    def _outermost_done(self, future: asyncio.Future[Any]) -> None:
        if future is self._awaited and not self._is_nested():
            self.stop()

    def _task_of(self, future: Any) -> asyncio.Future[Any]:
        task: Any = asyncio.ensure_future(future, loop=self)
        if task is not future:
            task._log_destroy_pending = False  # an exception tells
        return task  # type: ignore[no-any-return]


def _result(task: asyncio.Future[Any]) -> Any:
    if not task.done():
        raise RuntimeError("Event loop stopped before Future completed.")
    return task.result()
