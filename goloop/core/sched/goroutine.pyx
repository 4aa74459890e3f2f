# cython: language_level=3, boundscheck=False, wraparound=False, annotation_typing=False
"""Goroutine: the handle that go() returns for what it starts.

The worker's thread runs it and finishes it; the handle may be used from every thread. Its scheduling is scheduler.pyx's
matter, and goroutine_api.pyx has the functions that it can call for itself.
"""

import asyncio
import sys
import traceback
import types
import weakref
from asyncio import events as _events
from asyncio.log import logger as _logger
from collections.abc import Coroutine
from contextvars import ContextVar

from cpython.ref cimport PyObject, Py_XDECREF
from libc.stdint cimport int64_t, uint64_t

from goloop.core.loop.steps cimport step_of
from goloop.core.sched.scheduler cimport (
    DONE, PARKED, RUNNABLE, UNSTARTED, G, Worker, bubble_here, bubbles, current_g, enqueue_new, here, take_cancellation,
)
from goloop.core.sched.waiter cimport (
    CANCELLED, TIMED_OUT, WaitNode, WaitQueue, Waiter, async_waiter, blocking_waiter, new_wait_node, raise_outcome,
    seconds_of,
)


cdef extern from "Python.h":
    int PyContext_Enter(object ctx) except -1
    int PyContext_Exit(object ctx) except -1
    object PyContext_CopyCurrent()
    bint PyCoro_CheckExact(object o)
    object PyObject_Call(object callable, object args, PyObject *kwargs)
    ctypedef struct PyThreadState:
        pass
    ctypedef struct PyFrameObject:
        pass
    ctypedef struct PyCodeObject:
        pass
    PyThreadState *PyThreadState_Get()
    PyFrameObject *PyThreadState_GetFrame(PyThreadState *tstate)
    PyFrameObject *PyFrame_GetBack(PyFrameObject *frame)
    PyCodeObject *PyFrame_GetCode(PyFrameObject *frame)
    int PyFrame_GetLasti(PyFrameObject *frame)

cdef extern from *:
    """
    #include <features.h>
    #include <stdio.h>
    #include <stdlib.h>
    #include <unistd.h>
    static int gl_failed;
    #ifdef __GLIBC__
    static void gl_at_exit(int status, void *unused) {
        (void)unused;
        if (status == 0)
            exit(1); /* glibc goes on with the handlers that are left */
    }
    static void gl_fail_at_exit(void) {
        if (!gl_failed && on_exit(gl_at_exit, NULL) == 0)
            gl_failed = 1;
    }
    #else
    static void gl_fail_at_exit(void) { gl_failed = 1; }
    __attribute__((destructor)) static void gl_at_exit(void) {
        if (gl_failed) {
            fflush(NULL);
            _exit(1);
        }
    }
    #endif
    """
    void gl_fail_at_exit()

cdef extern from "../system/native/sealed.h":
    int gl_seal(object type, const char *reason) except -1

cdef enum:
    ORIGIN_FRAMES = 10       # remembered of the stack that called go()

cdef double ANNOUNCE = 1.0        # seconds of waiting for a cancelled goroutine after which the log says so

cdef long long last_id = 0
cdef set alive = set()            # every goroutine that is not done
cdef list stacks = []             # greenlets of abandoned goroutines: letting go of one would run it
cdef object report_unobserved = None      # runtime.unhandled's
cdef object panic = None          # runtime.unhandled's
cdef set failures = set()         # weak references to goroutines that have raised, also to observed ones
cdef object _Coroutine = Coroutine
cdef object _origin_loop = ContextVar("goloop.origin_loop")  # set in coroutine goroutines, for the tasks that they make


class GoExit(BaseException):
    """Ends a goroutine from inside; see goexit()."""


_STATES = ("not started", "runnable", "running", "parked", "done")


cdef list origin_here():
    """The code and position of the Python frames from here outwards: lines are looked up later, in spawn_stack."""
    cdef list frames = []
    cdef PyFrameObject *frame = PyThreadState_GetFrame(PyThreadState_Get())
    cdef PyFrameObject *back
    cdef PyObject *code
    while frame != NULL and len(frames) < ORIGIN_FRAMES:
        code = <PyObject *>PyFrame_GetCode(frame)
        frames.append((<object>code, PyFrame_GetLasti(frame)))
        Py_XDECREF(code)
        back = PyFrame_GetBack(frame)
        Py_XDECREF(<PyObject *>frame)
        frame = back
    Py_XDECREF(<PyObject *>frame)
    return frames


cdef object stack_of(list origin):
    """What origin_here() has remembered as a traceback.StackSummary, outermost frame first."""
    frames = []
    for code, instruction in reversed(origin):
        line = code.co_firstlineno
        for start, end, number in code.co_lines():
            if start <= instruction < end and number is not None:
                line = number
        frames.append(traceback.FrameSummary(code.co_filename, line, code.co_name, lookup_line=False))
    return traceback.StackSummary.from_list(frames)


cdef object origin_loop_here():
    """The loop that a goroutine started here belongs to."""
    cdef Goroutine g = goroutine_here()
    if g is not None:
        return g.origin_loop
    if here() is None:
        return _events._get_running_loop()
    return _origin_loop.get(None) if bubble_here() is None else bubble_here()


cdef Goroutine goroutine_here():
    cdef Worker worker = here()
    if worker is None:
        return None
    if worker.current is not None:
        return <Goroutine>worker.current
    if worker.tasks:
        task = asyncio.current_task(worker.loop)
        if task is not None:
            return worker.tasks.get(task)
    return None


cdef class Goroutine(G):
    """A goroutine; made by go(). Await it, join it, or ask for its result, from any thread.

    It is Go's goroutine with the methods of an asyncio.Task, as Go has no handle. In a goroutine and a plain thread
    result() and join() wait; in a coroutine, `await goroutine`.

    Attributes: id: a number (int), larger than those of older goroutines; to be read only. name: a str for repr() and
    for the Task of a coroutine goroutine, or None; it may be set. origin_loop: the loop from whose thread it was
    started, directly or by goroutines, None for no loop; to be read only.
    """

    __class_getitem__ = classmethod(types.GenericAlias)

    def __repr__(self):
        named = f" {self.name!r}" if self.name is not None else ""
        what = f" {self.what()}" if self.function is not None else ""
        return f"<Goroutine {self.id}{named}{what} [{self.state}]>"

    cdef object what(self):
        if isinstance(self.function, str):
            return self.function
        return getattr(self.function, "__qualname__", None) or repr(self.function)

    cdef uint64_t number(self) noexcept:
        return self.id

    cdef object runs(self):
        return type(self) if isinstance(self.function, str) else self.function

    # -------------------------------------------------------------- execution
    cdef int execute(self) except -1:
        cdef object result = None
        cdef bint failed = False
        PyContext_Enter(self.context)
        try:
            result = PyObject_Call(self.function, self.args, <PyObject *>self.kwargs if self.kwargs else NULL)
            # (asyncio.iscoroutine() is true for generators, too, up to Python 3.11.)
            if result is not None and (PyCoro_CheckExact(result) or isinstance(result, _Coroutine)):
                self.begin_task(result)
        except GoExit:
            result = None
        except BaseException as exc:
            result, failed = exc, True
        finally:
            PyContext_Exit(self.context)
        return self.finish(result, failed) if self.task is None else 0

    cdef int begin_task(self, object coroutine) except -1:
        """A coroutine: the loop runs it from here on. It counts as live on its worker until it is done."""
        cdef Worker worker = self.worker
        _origin_loop.set(self.origin_loop)
        aside = worker.enter_loop()     # an eager task factory runs it up to its first await
        try:
            self.task = worker.loop.create_task(coroutine, name=self.name)
        finally:
            worker.leave_loop(self, aside)
        worker.live += 1
        worker.tasks[self.task] = self
        self.task.add_done_callback(self._task_done)
        if take_cancellation(self):
            self.task.cancel()
        return 0

    def _task_done(self, task):
        if self.status == DONE or self.task is None:      # abandoned
            return
        self.worker.live -= 1
        del self.worker.tasks[task]
        self.task = None
        if task.cancelled():
            try:
                task.result()
            except BaseException as exc:
                self.finish(exc, True)
            return
        exc = task.exception()
        if exc is None:
            self.finish(task.result(), False)
        elif isinstance(exc, GoExit):
            self.finish(None, False)
        else:
            self.finish(exc, True)

    cdef int finish(self, object outcome, bint failed) except -1:
        """Make it done, and tell the waiters. Once; on its worker's thread, or before it was started on any."""
        cdef list callbacks = None if self.callbacks is None else list(self.callbacks)
        cdef bint heard = callbacks is not None or self.observed or (
            self.joiners is not None and self.joiners.waiting()
        )
        self.outcome = outcome
        if failed:
            self.failed = True
            self.cancelled_ = isinstance(outcome, asyncio.CancelledError)
            self.trace = outcome.__traceback__
        self.status = DONE
        self.reason = None
        self.cancelling = False
        self.callbacks = None
        if self.locks:
            self.worker.locked -= self.locks
            self.locks = 0
        alive.discard(self)
        if self.joiners is not None:
            self.joiners.complete_all()
        if callbacks is not None:
            self.call_all(callbacks)
        self.function = self.what() if failed else None       # a name for the report of the failure
        self.args = self.kwargs = self.context = None
        if failed and not self.cancelled_ and not self.observed:
            failures.add(weakref.ref(self, failures.discard))
            if self.worker is not None and self.worker.failed is not None:
                self.worker.failed.append(self)
            if not heard and panic is not None:
                panic(outcome, self)
        return 0

    cdef int call_all(self, list callbacks) except -1:
        """Run the done callbacks. Outside of any goroutine: this one cannot park any more."""
        cdef Worker worker = here()
        cdef G current = None
        if worker is not None:
            current = worker.current
            worker.current = None
        try:
            for callback, loop, context in callbacks:
                try:
                    self.call(callback, loop, context)
                except BaseException as exc:
                    report_unobserved("Exception in a goroutine's done callback", exc, self, None)
        finally:
            if worker is not None:
                worker.current = current
        return 0

    cdef int call(self, object callback, object loop, object context) except -1:
        """Run a done callback: on the loop where it was added, or else here."""
        if loop is None:
            context.run(callback, self)
            return 0
        try:
            loop.call_soon_threadsafe(callback, self, context=context)
        except RuntimeError:
            if not loop.is_closed():      # then there is nothing left for a callback to be run by
                raise
        return 0

    def __del__(self):
        if self.failed and not self.observed and not self.cancelled_ and report_unobserved is not None:
            report_unobserved("Goroutine exception was never retrieved", self.outcome, self, self.origin_loop)

    # ----------------------------------------------------------------- waiting
    cdef object get(self):
        if self.failed:
            self.observed = True
            # With the traceback that it came with: each of several waiters would add its own to one object.
            raise self.outcome.with_traceback(self.trace)
        return self.outcome

    cdef int check_here(self) except -1:
        if self not in alive:
            raise RuntimeError("this goroutine belongs to the parent process: it does not run after a fork")
        if bubbles and (None if self.worker is None else self.worker.bubble) is not bubble_here():
            raise RuntimeError(f"waiting for {self!r} crosses the edge of a bubble")
        return 0

    cdef int wait_done(self, str what, object timeout) except -1:
        cdef Waiter waiter
        cdef WaitNode node
        cdef double seconds
        if self.status == DONE:
            return 0
        seconds = seconds_of(timeout)
        waiter = blocking_waiter(f"Goroutine.{what}()", "await goroutine")
        if waiter.g is self:
            raise RuntimeError("a goroutine cannot wait for its own end")
        waiter.gives_back_on_cancel = True  # the result stays where it is
        node = new_wait_node(waiter, 0, None)
        if self.joiners is None:
            self.joiners = WaitQueue()
        if self.status == DONE:
            return 0
        self.check_here()
        waiter.on = self
        self.joiners.join(node)
        try:
            waiter.block("goroutine join", seconds)
        finally:
            node.unlink()
        raise_outcome(waiter.outcome, what)
        return 0

    def result(self, timeout: float | None = None) -> Any:
        """Wait for the end; return the result, or raise the goroutine's exception (concurrent.futures: Future.result).

        timeout: seconds, None for no end; TimeoutError when it is over, and the goroutine goes on. CancelledError if it
        was cancelled. Parks a goroutine, which raises asyncio.CancelledError when it is cancelled itself; blocks a
        plain thread. RuntimeError in the goroutine itself, and on the thread of a running loop outside of a goroutine:
        `await goroutine` there.
        """
        self.wait_done("result", timeout)
        return self.get()

    def join(self, timeout: float | None = None) -> None:
        """Wait for the end, and raise the goroutine's exception, if any; return nothing.

        timeout: seconds, None for no end; TimeoutError when it is over, and the goroutine goes on. CancelledError if it
        was cancelled. Parks a goroutine, which raises asyncio.CancelledError when it is cancelled itself; blocks a
        plain thread. RuntimeError in the goroutine itself, and on the thread of a running loop outside of a goroutine:
        `await goroutine` there.
        """
        self.wait_done("join", timeout)
        self.get()

    def exception(self) -> BaseException | None:
        """Return the goroutine's exception, None if it returned (asyncio: Task.exception). From any thread.

        InvalidStateError while it is not done, CancelledError if it was cancelled. The exception counts as observed
        from now on, and is not reported.
        """
        if self.status != DONE:
            raise asyncio.InvalidStateError("the goroutine is not done")
        if self.cancelled_:
            raise self.outcome.with_traceback(self.trace)
        self.observed = True
        return self.outcome if self.failed else None

    async def _join(self):
        cdef Waiter waiter
        cdef WaitNode node
        cdef object cancelled = None
        cdef double seconds = -1
        if goroutine_here() is self:
            raise RuntimeError("a goroutine cannot wait for its own end")
        while self.status != DONE:
            waiter = async_waiter("goroutine join", self)
            waiter.gives_back_on_cancel = True
            node = new_wait_node(waiter, 0, None)
            if self.joiners is None:
                self.joiners = WaitQueue()
            if self.status == DONE:
                break
            self.check_here()
            self.joiners.join(node)
            try:
                await waiter.suspend(seconds)
            except asyncio.CancelledError as exc:
                if not self.cancel():         # it has just ended, or its loop has
                    raise
                seconds = ANNOUNCE if cancelled is None else seconds
                cancelled = exc
            finally:
                node.unlink()
            if waiter.outcome == TIMED_OUT:
                seconds = -1
                _logger.warning(
                    "a cancelled coroutine waits for a goroutine, which has not ended either: %r\n%s",
                    self, "".join(self.stack().format()).rstrip(),
                )
        if cancelled is not None and self.cancelled_:
            raise cancelled
        return self.get()

    def _awaited_by(self, task):
        """A task was made to await the goroutine. One that is cancelled before it has begun cancels the goroutine."""
        task.add_done_callback(self._give_up)

    def _give_up(self, task):
        if task.cancelled():
            self.cancel()

    def __await__(self):
        """Wait for the end in a coroutine, on any loop; return the result, or raise the goroutine's exception.

        As with a Task, cancelling the coroutine that waits cancels the goroutine, and waits for its end;
        asyncio.shield() keeps it from that. RuntimeError in the goroutine itself.
        """
        return self._join().__await__()

    # ------------------------------------------------------------------ state
    def done(self) -> bool:
        """Return True when it has ended, however (asyncio: Task.done). From any thread."""
        return self.status == DONE

    def cancelled(self) -> bool:
        """Return True if it ended by CancelledError (asyncio: Task.cancelled). From any thread."""
        return self.cancelled_

    @property
    def state(self):
        """Its state (str): "not started", "runnable", "running", "done", or the reason it is parked for ("sleep").

        A coroutine that awaits something is in the state "await".
        """
        if self.task is not None and self.waiting_for is not None:
            return "await"
        return self.reason if self.status == PARKED else _STATES[self.status]

    @property
    def waiting_for(self):
        """What it waits for: a Chan, a lock, a Goroutine, a future; the cases of a select; None for time, or nothing.
        """
        cdef Waiter waiter = self.waiter
        if self.status == PARKED:
            return waiter.on if waiter is not None and waiter.waits() else None
        return None if self.task is None else getattr(self.task, "_fut_waiter", None)

    @property
    def waiting_since(self):
        """Since when it waits, in seconds of time.monotonic(), some ms less or more; None if it does not wait."""
        cdef Waiter waiter = self.waiter
        cdef int64_t since = 0
        if self.status == PARKED:
            since = waiter.since if waiter is not None and waiter.waits() else 0
        elif self.task is not None and self.waiting_for is not None:
            since = step_of(<void *>self.task)
        return since / 1e9 if since else None

    def cancel(self) -> bool:
        """Raise asyncio.CancelledError in it, where it is parked or at its next park (asyncio: Task.cancel).

        From any thread. A goroutine that has not started never runs, and is done when this returns. Returns False if it
        is done already. It is always CancelledError: an exception of the canceller's choice would come out of any park,
        where the code expects that call's own exceptions, and be taken for one. A reason is a Context's matter:
        goloop.context.with_cancel_cause().
        """
        cdef Waiter waiter
        if self.status == DONE or self not in alive:      # not alive: the parent's, in a forked child
            return False
        if self.status == UNSTARTED:
            self.finish(asyncio.CancelledError(), True)   # the backlog lets go of it in its turn
            return True
        if self.task is not None:
            if here() is self.worker:
                self.task.cancel()
            else:
                try:
                    self.worker.loop.call_soon_threadsafe(self.task.cancel)
                except RuntimeError:
                    return False          # closed: nothing runs the task, and abandon() ends it
            return True
        self.cancels += 1
        waiter = self.waiter
        if waiter is not None and not waiter.shielded and waiter.claim(CANCELLED):
            waiter.wake()
        else:
            self.cancelling = True
        return True

    def add_done_callback(
        self, callback: Callable[[Goroutine[Any]], object], *, context: Context | None = None
    ) -> None:
        """Call callback(goroutine) when it is done (asyncio: Task.add_done_callback). From any thread.

        callback: a function; TypeError unless callable. It is called in the running loop of the thread that adds it,
        or, where there is none and in a goroutine, in the thread that ends the goroutine, where it must not wait. If
        the goroutine is done, it is called at once, or in the loop's next iteration. context: the contextvars.Context
        to call it in; None: a copy of the caller's.
        """
        if not callable(callback):
            raise TypeError(f"a callable object was expected, got {callback!r}")
        if context is None:
            context = PyContext_CopyCurrent()
        self.call_when_done(callback, None if current_g() is not None else _events._get_running_loop(), context)

    def remove_done_callback(self, callback: Callable[[Goroutine[Any]], object]) -> int:
        """Remove a callback that add_done_callback() added, however often (asyncio: Task.remove_done_callback).

        From any thread. callback: the function. Returns how many were removed (int). A callback that is about to be
        called still is.
        """
        cdef Py_ssize_t removed = 0
        cdef list entries = self.callbacks
        if entries is not None:
            for entry in list(entries):
                if entry[0] == callback and entry in entries:
                    entries.remove(entry)
                    removed += 1
        return removed

    cdef int call_when_done(self, object callback, object loop, object context) except -1:
        cdef list entry = [(callback, loop, context)]      # now: no other code may run between the look and the entry
        if self.status == DONE:
            self.call(callback, loop, context)
        elif self.callbacks is None:
            self.callbacks = entry
        else:
            self.callbacks.extend(entry)
        return 0

    def stack(self) -> traceback.StackSummary:
        """Return the stack where it is, as a traceback.StackSummary, outermost frame first (asyncio: Task.get_stack).

        It is empty before the goroutine's start and after its end. From any thread.
        """
        cdef list frames = []
        cdef object frame = None
        cdef object coroutine = None if self.task is None else self.task.get_coro()
        if self.status == DONE or self.status == UNSTARTED:
            pass
        elif coroutine is not None:
            while getattr(coroutine, "cr_frame", None) is not None:
                frames.append((coroutine.cr_frame, coroutine.cr_frame.f_lineno))
                coroutine = coroutine.cr_await
        elif self.greenlet is not None:
            frame = self.greenlet.gr_frame
        elif self.worker.current is self:
            frame = sys._current_frames().get(self.worker.thread)
        while frame is not None:
            frames.insert(0, (frame, frame.f_lineno))
            frame = frame.f_back
        return traceback.StackSummary.extract(iter(frames), lookup_lines=False)

    @property
    def spawn_stack(self):
        """The stack of the go() that started it, as a traceback.StackSummary, outermost frame first."""
        return stack_of(self.origin or [])


gl_seal(Goroutine, b"goroutines are made by go()")


# ------------------------------------------------------------------- functions
def go(function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Goroutine[Any]:
    """Start function(*args, **kwargs) as a goroutine and return its Goroutine at once (Go: the go statement).

    function: a plain function, which runs in a greenlet on a thread of the worker pool, where blocking calls of goloop
    park; or a coroutine function, which runs as a Task on that worker's own loop. args, kwargs: its arguments. It runs
    in a copy of the caller's contextvars context. TypeError unless callable, RuntimeError or OSError if no thread can
    be started. From any thread, goroutine or coroutine; a program without a loop may call it, too.
    """
    return start(function, args, kwargs, PyContext_CopyCurrent(), origin_here(), origin_loop_here())


cdef Goroutine start(
    object function, tuple args, dict kwargs, object context, list origin, object origin_loop, object on_end=None,
):
    """go(), on behalf of the caller whose context, origin_here() and origin_loop_here() these are.

    on_end(goroutine) is called in the thread that ends it. It is there before the goroutine starts: that may end, with
    an exception, before the caller goes on.
    """
    global last_id
    cdef Goroutine g
    check_function(function, "go")
    g = Goroutine.__new__(Goroutine)
    last_id += 1
    g.id = last_id
    g.function = function
    g.args = args
    g.kwargs = kwargs
    g.context = context
    g.origin = origin
    g.origin_loop = origin_loop
    if on_end is not None:
        g.callbacks = [(on_end, None, PyContext_CopyCurrent())]
    alive.add(g)
    try:
        enqueue_new(g)
    except BaseException:
        g.callbacks = None
        if g.status == UNSTARTED:
            g.finish(asyncio.CancelledError(), True)      # go() has failed, and so it does not start later
        raise
    return g


cdef Goroutine adopt(Worker worker, object greenlet, str name):
    """A goroutine of a bubble's worker for what a greenlet runs, which is not the worker's; it is ready to go on."""
    global last_id
    cdef Goroutine g = Goroutine.__new__(Goroutine)
    last_id += 1
    g.id = last_id
    g.function = name
    g.origin = origin_here()
    g.origin_loop = worker.bubble
    g.worker = worker
    g.greenlet = greenlet
    g.status = RUNNABLE
    alive.add(g)
    worker.live += 1
    worker.runnable.push(g)
    return g


cdef int check_function(object function, str name) except -1:
    if callable(function):
        return 0
    if asyncio.iscoroutine(function):
        function.close()
        raise TypeError(f"{name}() takes a function and its arguments: {name}(f, x), not {name}(f(x))")
    raise TypeError(f"{name}() takes a function, got {function!r}")


def on_end(Goroutine g not None, callback):
    """Call callback(g) in the thread that ends it; at once if it is done. For those that take goroutines of others."""
    g.call_when_done(callback, None, PyContext_CopyCurrent())


def go_then(on_end, function, tuple args not None, dict kwargs not None):
    """For errgroup: go(function, *args, **kwargs); on_end(goroutine) is called in the thread that ends it."""
    return start(function, args, kwargs, PyContext_CopyCurrent(), origin_here(), origin_loop_here(), on_end)


def failure(Goroutine g not None):
    """For errgroup: what a goroutine that is done has raised, None if nothing. It still counts as unobserved."""
    return g.outcome if g.failed else None


def current() -> Goroutine[Any] | None:
    """Return the Goroutine that runs here, None outside of one. From any thread, and in a coroutine goroutine, too."""
    return goroutine_here()


def num_goroutine() -> int:
    """Return how many goroutines there are: not started, running or parked (Go: runtime.NumGoroutine). From any thread.
    """
    return len(alive)


# ---------------------------------------------------------------- for runtime
def set_reporter(reporter, at_once):
    """Set the functions for exceptions that are not retrieved.

    reporter(message, exception, goroutine, loop) is called for one that cannot be observed any more,
    at_once(exception, goroutine) for one that has no waiter when the goroutine ends.
    """
    global report_unobserved, panic
    report_unobserved = reporter
    panic = at_once


def unobserved():
    """Return the goroutines with exceptions that were not retrieved, and with handles that are held, oldest first."""
    cdef Goroutine g
    found = []
    for reference in list(failures):
        g = reference()
        if g is not None and not g.observed:
            found.append(g)
    return sorted(found, key=_by_id)


def fail_at_exit():
    """Let the process exit with status 1 if it would with 0; the interpreter has no way to say so at its end."""
    gl_fail_at_exit()


def all_goroutines():
    """Return every goroutine that is not done, oldest first."""
    return all_alive()


def goroutines() -> list[Goroutine[Any]]:
    """Return the goroutines that are not done, oldest first (Go: the goroutine profile); a list of their handles.

    From any thread. goloop.debug.dump() says what they wait for.
    """
    return all_alive()


cdef list all_alive():
    return sorted(alive, key=_by_id)


def count_states():
    """Return how many goroutines there are that are not done, by their state, as Goroutine.state has it."""
    cdef dict counts = {}
    for g in list(alive):
        state = g.state
        counts[state] = counts.get(state, 0) + 1
    return counts


def goroutines_of(loop):
    """Return those that were started from a loop, directly or by goroutines, and are not done."""
    cdef Goroutine g
    cdef list found = []
    for g in list(alive):
        if g.origin_loop is loop:
            found.append(g)
    return found


def task_of(Goroutine g not None):
    """Return the task of a coroutine goroutine; None if it has none."""
    return g.task


def last_goroutine_id():
    """Return the id of the newest goroutine; ids grow."""
    return last_id


def _by_id(Goroutine g not None):
    return g.id


def abandon(Worker worker not None):
    """Its loop has ended for good, with goroutines that did not: let no waiter wait for them in vain.

    They are done, with a RuntimeError that says so. The rest of their stacks is never run again. Returns them.
    """
    cdef Goroutine g
    cdef Waiter waiter
    left = [g for g in all_goroutines() if (<Goroutine>g).worker is worker]
    for g in left:
        waiter = g.waiter
        if waiter is not None:
            waiter.claim(CANCELLED)
        if g.greenlet is not None:
            stacks.append(g.greenlet)
        g.observed = True                 # runtime.unhandled reports it
        g.finish(RuntimeError("the goroutine was left behind: it had not ended when its worker's loop did"), True)
    return left


def after_fork_in_child():
    """In a forked child: the goroutines, and the reports of their exceptions, are the parent's. The goroutine that
    forked is none here: it goes on as a plain thread's code."""
    cdef Goroutine g
    alive.clear()
    for g in unobserved():
        g.observed = True
