# cython: language_level=3, boundscheck=False, wraparound=False
"""Goroutine: the handle that go() returns, and what a goroutine can do for itself.

The worker's thread runs it and finishes it; the handle may be used from every thread. How it is scheduled is
sched.pyx's matter.
"""

import asyncio
import traceback
import types
from asyncio import events as _events

from cpython.ref cimport PyObject, Py_XDECREF

from goloop.core.sched cimport DONE, PARKED, G, Worker, backlog, current_g, here, submit, wake_one
from goloop.core.waiter cimport (
    CANCELLED, COMPLETED, Place, Places, Waiter, async_waiter, blocking_waiter, new_place, raise_outcome, seconds_of,
)

import time as _time


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

cdef enum:
    ORIGIN_FRAMES = 10       # remembered of the stack that called go()

cdef long long last_id = 0
cdef set alive = set()            # every goroutine that is not done
cdef object report_unobserved = None      # runtime.pool's


class GoExit(BaseException):
    """Ends a goroutine from inside; see goexit()."""


_STATES = ("not started", "runnable", "running", "parked", "done")


cdef list origin_here():
    """The code and place of the Python frames from here outwards: lines are looked up when somebody asks."""
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


cdef object home_here():
    """The loop that a goroutine started here belongs to."""
    cdef Goroutine g = goroutine_here()
    if g is not None:
        return g.home
    return None if here() is not None else _events._get_running_loop()


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
    """A goroutine started by go(). Await it, join it, or ask for its result, from any thread."""

    def __init__(self, *args, **kwargs):
        raise TypeError("goroutines are made by go()")

    __class_getitem__ = classmethod(types.GenericAlias)

    def __repr__(self):
        what = getattr(self.function, "__qualname__", None) or repr(self.function)
        state = self.reason if self.status == PARKED else _STATES[self.status]
        named = f" {self.name!r}" if self.name is not None else ""
        return f"<Goroutine {self.id}{named} {what if self.function is not None else ''} [{state}]>".replace("  ", " ")

    # -------------------------------------------------------------- execution
    cdef int execute(self) except -1:
        cdef object result = None
        cdef bint failed = False
        if self.cancelling:                 # before it began
            self.cancelling = False
            return self.finish(asyncio.CancelledError(), True)
        PyContext_Enter(self.context)
        try:
            result = PyObject_Call(self.function, self.args, <PyObject *>self.kwargs if self.kwargs else NULL)
            if result is not None and (PyCoro_CheckExact(result) or asyncio.iscoroutine(result)):
                self.task = self.worker.loop.create_task(result)
        except GoExit:
            result = None
        except BaseException as exc:
            result, failed = exc, True
        finally:
            PyContext_Exit(self.context)
        if self.task is None:
            return self.finish(result, failed)
        # A coroutine: the loop runs it from here on. It counts as live on its worker until it is done.
        self.worker.live += 1
        self.worker.tasks[self.task] = self
        if self.name is not None:
            self.task.set_name(self.name)
        self.task.add_done_callback(self._task_done)
        if self.cancelling:
            self.cancelling = False
            self.task.cancel()
        return 0

    def _task_done(self, task):
        self.worker.live -= 1
        del self.worker.tasks[task]
        self.task = None
        if task.cancelled():
            self.finish(asyncio.CancelledError(), True)
            return
        exc = task.exception()
        if exc is None:
            self.finish(task.result(), False)
        elif isinstance(exc, GoExit):
            self.finish(None, False)
        else:
            self.finish(exc, True)

    cdef int finish(self, object outcome, bint failed) except -1:
        cdef list callbacks = self.callbacks
        self.outcome = outcome
        self.failed = failed
        self.cancelled_ = failed and isinstance(outcome, asyncio.CancelledError)
        self.status = DONE
        self.reason = None
        self.callbacks = None
        alive.discard(self)
        if self.joiners is not None:
            self.joiners.complete_all()
        if callbacks is not None:
            for callback, loop in callbacks:
                self.call(callback, loop)
        self.function = self.args = self.kwargs = self.context = None
        return 0

    cdef int call(self, object callback, object loop) except -1:
        """Run a done callback: on the loop where it was added, or else here."""
        if loop is not None:
            try:
                loop.call_soon_threadsafe(callback, self)
            except RuntimeError:          # closed
                pass
            return 0
        try:
            callback(self)
        except BaseException as exc:
            report_unobserved("Exception in a goroutine's done callback", exc, self, None)
        return 0

    def __del__(self):
        if self.failed and not self.observed and not self.cancelled_ and report_unobserved is not None:
            report_unobserved("Goroutine exception was never retrieved", self.outcome, self, self.home)

    # ----------------------------------------------------------------- waiting
    cdef object get(self):
        if self.failed:
            self.observed = True
            raise self.outcome
        return self.outcome

    cdef int wait_done(self, str what, object timeout) except -1:
        cdef Waiter waiter
        cdef Place place
        cdef double seconds
        if self.status == DONE:
            return 0
        seconds = seconds_of(timeout)
        waiter = blocking_waiter(f"Goroutine.{what}()", "await goroutine")
        if waiter.g is self:
            raise RuntimeError("a goroutine cannot wait for its own end")
        place = new_place(waiter, 0, None)
        if self.joiners is None:
            self.joiners = Places()
        if self.status == DONE:
            return 0
        self.joiners.join(place)
        try:
            waiter.block("goroutine join", seconds)
        finally:
            place.leave()
        raise_outcome(waiter.outcome, what)
        return 0

    def result(self, timeout=None):
        """Wait for the end; return the result, or raise what the goroutine raised.

        timeout: seconds; TimeoutError when it is over, and the goroutine goes on. CancelledError if it was
        cancelled. In a goroutine this parks, in a plain thread it blocks; RuntimeError on the thread of a running
        loop, where `await goroutine` is the way.
        """
        self.wait_done("result", timeout)
        return self.get()

    def join(self, timeout=None):
        """Wait for the end, and raise what the goroutine raised; as result(), but returns nothing."""
        self.wait_done("join", timeout)
        self.get()

    def exception(self):
        """Return what the goroutine raised, None if it returned. InvalidStateError while it is not done,
        CancelledError if it was cancelled. From any thread."""
        if self.status != DONE:
            raise asyncio.InvalidStateError("the goroutine is not done")
        if self.cancelled_:
            raise self.outcome
        self.observed = True
        return self.outcome if self.failed else None

    async def _join(self):
        cdef Waiter waiter
        cdef Place place
        if self.status != DONE:
            waiter = async_waiter()
            place = new_place(waiter, 0, None)
            if self.joiners is None:
                self.joiners = Places()
            if goroutine_here() is self:
                raise RuntimeError("a goroutine cannot wait for its own end")
            if self.status != DONE:
                self.joiners.join(place)
                try:
                    await waiter.suspend(-1)
                finally:
                    place.leave()
        return self.get()

    def __await__(self):
        """Wait for the end in a coroutine, on any loop; as result(). Cancelling the coroutine that waits does not
        cancel the goroutine."""
        return self._join().__await__()

    # ------------------------------------------------------------------ state
    def done(self):
        """Return True when it has ended, however. From any thread."""
        return self.status == DONE

    def cancelled(self):
        """Return True if it ended by CancelledError."""
        return self.cancelled_

    @property
    def state(self):
        """What it does: "not started", "runnable", "running", "done", or the reason it is parked for."""
        return self.reason if self.status == PARKED else _STATES[self.status]

    def cancel(self):
        """Raise asyncio.CancelledError in it, where it is parked or at its next park. From any thread.

        One that has not started never runs. Returns False if it is done already.
        """
        cdef Waiter waiter
        if self.status == DONE:
            return False
        if self.task is not None:
            loop = self.worker.loop
            if here() is self.worker:
                self.task.cancel()
            else:
                try:
                    loop.call_soon_threadsafe(self.task.cancel)
                except RuntimeError:
                    return False
            return True
        waiter = self.waiter
        if waiter is not None and waiter.claim(CANCELLED):
            waiter.wake()
        else:
            self.cancelling = True
        return True

    def add_done_callback(self, callback):
        """Call callback(goroutine) when it is done: in the running loop of the thread that adds it, or, where
        there is none, in the thread that ends the goroutine. One that is done calls at once, or in the loop's
        next iteration. From any thread."""
        if not callable(callback):
            raise TypeError(f"a callable object was expected, got {callback!r}")
        loop = None if current_g() is not None else _events._get_running_loop()
        if self.status == DONE:
            self.call(callback, loop)
        elif self.callbacks is None:
            self.callbacks = [(callback, loop)]
        else:
            self.callbacks.append((callback, loop))

    def creator(self):
        """Return the stack of the go() that started it, as a traceback.StackSummary, outermost frame first."""
        frames = []
        for code, instruction in reversed(self.origin or ()):
            line = code.co_firstlineno
            for start, end, number in code.co_lines():
                if start <= instruction < end and number is not None:
                    line = number
            frames.append(traceback.FrameSummary(code.co_filename, line, code.co_name, lookup_line=False))
        return traceback.StackSummary.from_list(frames)


# ------------------------------------------------------------------- functions
def go(function, /, *args, **kwargs):
    """Start function(*args, **kwargs) as a goroutine and return its Goroutine at once (Go: the go statement).

    A plain function runs in a greenlet on a thread of the worker pool, where what would block parks. A coroutine
    function runs as a Task on that worker's own loop. It runs in a copy of the caller's context. From any
    thread; works in coroutines, goroutines, and programs without a loop.
    """
    global last_id
    cdef Goroutine g
    if not callable(function):
        if asyncio.iscoroutine(function):
            function.close()
            raise TypeError("go() takes a function and its arguments: go(f, x), not go(f(x))")
        raise TypeError(f"go() takes a function, got {function!r}")
    g = Goroutine.__new__(Goroutine)
    last_id += 1
    g.id = last_id
    g.function = function
    g.args = args
    g.kwargs = kwargs
    g.context = PyContext_CopyCurrent()
    g.origin = origin_here()
    g.home = home_here()
    alive.add(g)
    submit(g)
    return g


def current():
    """Return the Goroutine that runs here, None outside of one. In a coroutine goroutine, too."""
    return goroutine_here()


def num_goroutine():
    """Return how many goroutines there are: not started, running or parked (Go: runtime.NumGoroutine)."""
    return len(alive)


def goexit():
    """End the goroutine that calls, running its finally blocks; that is no error (Go: runtime.Goexit).

    RuntimeError outside of a goroutine.
    """
    if goroutine_here() is None:
        raise RuntimeError("goexit() ends a goroutine, and this is none")
    raise GoExit


def gosched():
    """Let others run first (Go: runtime.Gosched). In a plain thread: give up the processor.

    RuntimeError on the thread of a running loop outside of a goroutine: use `await asyncio.sleep(0)`.
    """
    cdef G g = current_g()
    if g is not None:
        if g.cancelling:
            g.cancelling = False
            raise asyncio.CancelledError()
        g.worker.yield_(g)
    elif _events._get_running_loop() is not None:
        raise RuntimeError("gosched() would block the event loop: use await asyncio.sleep(0) here")
    else:
        _time.sleep(0)


def sleep(seconds):
    """Park the goroutine for that many seconds (Go: time.Sleep); a plain thread sleeps. 0 yields.

    RuntimeError on the thread of a running loop outside of a goroutine: use `await asyncio.sleep()`.
    """
    cdef double wanted = seconds_of(seconds)
    cdef Waiter waiter
    if seconds is None:
        raise TypeError("sleep() takes a number of seconds")
    if wanted == 0:
        gosched()
        return
    if current_g() is None:
        if _events._get_running_loop() is not None:
            raise RuntimeError("sleep() would block the event loop: use await asyncio.sleep() here")
        _time.sleep(wanted)
        return
    waiter = blocking_waiter("sleep()", "await asyncio.sleep()")
    waiter.block("sleep", wanted)
    if waiter.outcome == CANCELLED:
        raise asyncio.CancelledError()


def _complete(Waiter waiter, future):
    if waiter.claim(COMPLETED):
        waiter.wake()


def wait(awaitable, timeout=None):
    """Park the goroutine until an awaitable is done, on its worker's loop; return the result, or raise its exception.

    timeout: seconds; when it is over the awaitable is cancelled and TimeoutError raised, as asyncio.wait_for()
    does. Cancelling the goroutine cancels the awaitable, too. A Goroutine may be waited for as well, and
    is not cancelled. RuntimeError outside of a plain goroutine; a coroutine simply awaits.
    """
    cdef G g = current_g()
    cdef Waiter waiter
    cdef double seconds = seconds_of(timeout)
    if isinstance(awaitable, Goroutine):
        return awaitable.result(timeout)
    if g is None:
        if asyncio.iscoroutine(awaitable):
            awaitable.close()
        raise RuntimeError(
            "wait() parks a goroutine, and this is none: await it in a coroutine, or start what calls wait() with "
            "go(). Plain code called by a coroutine cannot wait; call it with `await go(f, ...)`"
        )
    future = asyncio.ensure_future(awaitable, loop=g.worker.loop)
    if not future.done():
        waiter = blocking_waiter("wait()", "await")
        future.add_done_callback(lambda future: _complete(waiter, future))
        waiter.block("wait", seconds)
        if waiter.outcome != COMPLETED:
            future.cancel()
            how = waiter.outcome
            if not future.done():         # its clean-up is part of it
                waiter = blocking_waiter("wait()", "await")
                future.add_done_callback(lambda future: _complete(waiter, future))
                waiter.block("wait", -1, False)
            if how == CANCELLED:
                if not future.cancelled():
                    future.exception()
                raise asyncio.CancelledError()
            if future.cancelled():
                raise TimeoutError("wait: timed out")
    return future.result()


class blocking:
    """`with blocking():` marks a call that may block the thread, so that nobody waits behind it.

    In a goroutine: those that have not started go to another worker at once, without waiting for the monitor to
    see that this one is stuck (Go: entersyscall). Elsewhere it does nothing. Nests.
    """

    def __enter__(self):
        cdef Worker worker = here()
        self._worker = worker
        if worker is not None:
            worker.blocked += 1
            if backlog.count:
                wake_one()
        return self

    def __exit__(self, *exc):
        cdef Worker worker = self._worker
        if worker is not None:
            worker.blocked -= 1


class lock_os_thread:
    """Keep other goroutines from starting on this goroutine's thread, until it ends or unlock() (Go:
    runtime.LockOSThread). A goroutine never changes its thread; this makes the thread its own, but for those that
    run there already. Also a context manager. RuntimeError outside of a goroutine."""

    def __init__(self):
        cdef Worker worker = here()
        if worker is None or worker.current is None:
            raise RuntimeError("lock_os_thread() locks a goroutine's thread, and this is no goroutine")
        self._worker = worker
        worker.locked += 1
        if backlog.count:
            wake_one()

    def unlock(self):
        """Let others start here again; once for each lock."""
        cdef Worker worker = self._worker
        if worker is not None:
            self._worker = None
            worker.locked -= 1

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.unlock()


# ------------------------------------------------------------- for runtime.pool
def set_reporter(reporter):
    """Say who is told of an exception that nobody can observe: reporter(message, exception, goroutine, loop)."""
    global report_unobserved
    report_unobserved = reporter


def all_goroutines():
    """Return every goroutine that is not done, oldest first."""
    return sorted(alive, key=_by_id)


def _by_id(Goroutine g):
    return g.id


def forget():
    """In a forked child: the parent's goroutines are not here, but for the one that forked."""
    cdef Goroutine g = goroutine_here()
    alive.clear()
    if g is not None:
        alive.add(g)
