# cython: language_level=3, boundscheck=False, wraparound=False, freethreading_compatible=True
"""LoopCore: scheduling, and the doors to the poll set. LoopIteration, its base, runs what is scheduled.

goloop._eventloop.loop.Loop puts it in front of asyncio.BaseEventLoop. All methods belong to the thread that runs the
loop, except call_soon_threadsafe(). Which thread that is, ownership.pyx knows.
"""

import asyncio

cimport cython
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.math cimport isnan
from libc.stdint cimport uint64_t
from libc.stdlib cimport free, malloc

from goloop.core.loop.handles cimport (
    SharedHandle, TimerHandle, hide, new_handle, new_handle_of, new_shared_handle, new_timer, trace_source,
)
from goloop.core.loop.ready_queue cimport ReadyQueue, push
from goloop.core.loop.steps cimport note_step
from goloop.core.poll.pollset cimport READ, WRITE, PollSet, gl_node
from goloop.core.system.posix cimport fd_of
from goloop.core.system.trace cimport GL_TRACE_READY, gl_tracer, the_tracer, trace


cdef extern from "Python.h":
    unsigned long PyThread_get_thread_ident() nogil
    ctypedef struct PyTypeObject:
        PyObject *tp_dict
    ctypedef PyObject *(*PyCFunction)(PyObject *, PyObject *)
    ctypedef struct PyMethodDef:
        const char *ml_name
        PyCFunction ml_meth
        int ml_flags
        const char *ml_doc
    enum:
        METH_FASTCALL
        METH_KEYWORDS
    object PyDescr_NewMethod(PyTypeObject *type, PyMethodDef *method)
    int PyDict_SetItemString(PyObject *dict, const char *key, object value) except -1
    void PyType_Modified(PyTypeObject *type)

cdef gl_tracer *tracer = the_tracer()
cdef object _Future = asyncio.Future
cdef object _tasks = asyncio.tasks      # by its name there: tests put other classes in its place
cdef object _create_task = asyncio.BaseEventLoop.create_task
cdef object _coroutines = asyncio.coroutines
# The public name warns from Python 3.14 on, where the private one is what asyncio itself uses.
cdef object _iscoroutinefunction = (
    getattr(_coroutines, "_iscoroutinefunction", None) or _coroutines.iscoroutinefunction
)


def _nothing():
    """A bare wake-up runs this."""


def _run_asyncio_handle(handle):
    """Run a handle of asyncio's own class, which enters its context itself."""
    if not handle._cancelled:
        handle._run()


cdef int tell_awaitable(object coro, object task) except -1:
    """asyncio.ensure_future() made a task for an awaitable: let the awaitable know, if it has _awaited_by().

    A task that is cancelled before it has begun never calls __await__().
    """
    cdef object frame = getattr(coro, "cr_frame", None) or getattr(coro, "gi_frame", None)    # generators: 3.11
    if frame is not None:
        awaited_by = getattr(frame.f_locals.get("awaitable"), "_awaited_by", None)
        if awaited_by is not None:
            awaited_by(task)
    return 0


@cython.auto_pickle(False)        # a loop is not copied: LoopIteration refuses
cdef class LoopCore(LoopIteration):
    def __dealloc__(self):
        free(self.read_buffer)

    # ----------------------------------------------------------------- checks
    # A new future asks for get_debug(), whatever is done for a connection for the others.
    def get_debug(self):
        """Return True in debug mode (asyncio: get_debug). From any thread."""
        return self._debug

    def is_closed(self):
        """Return True once the loop has been closed (asyncio: is_closed). From any thread."""
        return self._closed

    def is_running(self):
        """Return True while a thread runs the loop (asyncio: is_running). From any thread."""
        return self._thread_id is not None

    cdef int check_thread(self) except -1:
        if self._ownership.owner_ident and self._ownership.owner_ident != PyThread_get_thread_ident():
            raise RuntimeError("Non-thread-safe operation invoked on an event loop other than the current one")
        return 0

    def _on_own_thread(self):
        """Return whether the calling thread runs the loop."""
        return self._ownership.owner_ident == PyThread_get_thread_ident()

    cdef int check_callback(self, object callback, str method) except -1:
        if self._debug and (_coroutines.iscoroutine(callback) or _iscoroutinefunction(callback)):
            raise TypeError(f"coroutines cannot be used with {method}()")
        if not callable(callback):
            raise TypeError(f"a callable object was expected by {method}(), got {callback!r}")
        return 0

    # ------------------------------------------------------------- scheduling
    cdef Handle soon(self, object callback, object args, object context):
        self.check_closed()
        return self.enqueue_handle(new_handle(callback, args, self, context))

    cdef Handle enqueue_handle(self, Handle handle):
        if self.gc_untracks_handles:
            hide(handle)
        if not self.pollset.inbox_empty():
            self.drain()      # a callback that another thread posted before this call also runs before it
        push(self.ready, handle)
        if tracer.session:
            trace(tracer, GL_TRACE_READY, self.number, 0, <uint64_t><void *>handle)
        return handle

    cdef Handle call_soon_of(self, object callback, PyObject **args, Py_ssize_t nargs, object context):
        cdef Handle handle
        if self._debug:
            self.check_closed()
            self.check_thread()
        if self._debug or not callable(callback):
            self.check_callback(callback, "call_soon")
        self.check_closed()
        handle = self.enqueue_handle(new_handle_of(callback, args, nargs, self, context))
        if self._debug:
            trace_source(handle)
        return handle

    def call_soon_threadsafe(self, callback, *args, context=None):
        """Run callback(*args) in the next iteration, and wake the loop. From any thread.

        context: the contextvars.Context to run in; None: a copy of the current one. Returns a Handle. RuntimeError once
        the loop is closed; a callback that was accepted before is never lost while the loop runs on.
        """
        cdef SharedHandle handle
        self.check_closed()
        if self._debug or not callable(callback):
            self.check_callback(callback, "call_soon_threadsafe")
        handle = new_shared_handle(callback, args, self, context)
        if self._debug:
            trace_source(handle)
        if self._ownership.owner_ident == PyThread_get_thread_ident():
            return self.enqueue_handle(handle)
        if self.gc_untracks_handles:
            hide(handle)
        handle.annex.node.item = <void *>handle
        Py_INCREF(handle)         # the inbox's reference; drain() drops it
        if tracer.session:
            trace(tracer, GL_TRACE_READY, self.number, 0, <uint64_t><void *>handle)
        if not self.pollset.post(&handle.annex.node):
            Py_DECREF(handle)
            raise RuntimeError("Event loop is closed")
        return handle

    def call_later(self, delay, callback, *args, context=None):
        """Run callback(*args) after delay seconds (int or float). Returns a TimerHandle. context: the
        contextvars.Context to run in; None: a copy of the current one. In the loop's thread."""
        if delay is None:
            raise TypeError("delay must not be None")
        return self.schedule(self.now() + delay, callback, args, context)

    def call_at(self, when, callback, *args, context=None):
        """Run callback(*args) at the time `when`, in seconds on the loop's clock. Returns a TimerHandle. context: the
        contextvars.Context to run in; None: a copy of the current one. In the loop's thread."""
        if when is None:
            raise TypeError("when cannot be None")
        cdef TimerHandle handle = self.schedule(when, callback, args, context)
        handle.annex.integral = type(when) is int
        return handle

    cdef TimerHandle schedule(self, double when, object callback, object args, object context):
        cdef TimerHandle timer
        self.check_closed()
        if self._debug:
            self.check_thread()
        if self._debug or not callable(callback):
            self.check_callback(callback, "call_at")
        if isnan(when):
            raise ValueError("a timer's time cannot be NaN")
        timer = new_timer(self.timers, when, callback, args, self, context)
        if self._debug:
            trace_source(timer)
        self.timers.push(when, &timer.annex.heap_index, timer)
        if when * 1e9 < self.looked + self._look_ns:
            self.pollset.changed = True        # due before the next look: then the next iteration is to see it
        if self.gc_untracks_handles:
            timer.untrack()
        return timer

    def create_future(self):
        """Return a new asyncio.Future attached to this loop (asyncio: create_future). In the loop's thread."""
        return _Future(loop=self)

    def create_task(self, coro, **kwargs):
        """Run coro, a coroutine, as an asyncio.Task, and return that (asyncio: create_task). In the loop's thread.

        kwargs: the task's name, context and, from Python 3.12 on, eager_start. A task factory gets them as
        BaseEventLoop.create_task() of the running Python hands them on. RuntimeError once the loop is closed.
        """
        if self._task_factory is not None:
            task = _create_task(self, coro, **kwargs)
        else:
            self.check_closed()
            # In debug mode a task keeps the stack of its making. Compiled code has no frame in it to take out.
            task = _tasks.Task(coro, loop=self, **kwargs) if kwargs else _tasks.Task(coro, loop=self)
        note_step(<void *>task)
        if getattr(coro, "__name__", None) == "_wrap_awaitable":
            tell_awaitable(coro, task)
        return task

    def _write_to_self(self):
        """Make the loop run an iteration, from any thread."""
        if not self._closed:
            self.call_soon_threadsafe(_nothing)

    # ---------------------------------------------------------------- polling
    cdef char *scratch(self) except NULL:
        if self.read_buffer == NULL:
            self.read_buffer = <char *>malloc(READ_SIZE)
            if self.read_buffer == NULL:
                raise MemoryError
        return self.read_buffer

    cdef int forget_watchers(self, int fd) except -1:
        """Whatever watched a descriptor that gets an owner is a leftover of a closed file."""
        self.check_closed()
        if self.pollset.find(fd) >= 0:
            self.remove_watcher(fd, READ)
            self.remove_watcher(fd, WRITE)
        return 0

    cdef int own(self, int fd, Pollable owner) except -1:
        """Give a descriptor to a transport, which says with pollset.resume() from when on it is watched."""
        self.forget_watchers(fd)
        return self.pollset.own(fd, owner)

    cdef int attach(self, int fd, Pollable owner) except -1:
        """Give a descriptor to an owner, and watch it."""
        self.forget_watchers(fd)
        return self.pollset.attach(fd, owner)

    cdef int detach(self, int fd, Pollable owner) except -1:
        return 0 if self._closed else self.pollset.detach(fd, owner)

    cdef Handle add_watcher(self, object fileobj, Side side, object callback, object args):
        cdef int fd = fd_of(fileobj)
        cdef Handle handle
        cdef object before
        self.check_closed()
        handle = new_handle(callback, args, self, None)
        if self._debug:
            trace_source(handle)
        before = self.pollset.add_watcher(fd, side, handle, None if isinstance(fileobj, int) else fileobj)
        if before is not None:
            before.cancel()
        return handle

    cdef bint remove_watcher(self, object fileobj, Side side) except -1:
        cdef int fd
        cdef object before
        if self._closed:
            return False
        try:
            fd = fd_of(fileobj)
        except ValueError:
            fd = self.pollset.fd_of(fileobj)
            if fd < 0:
                raise
        before = self.pollset.remove_watcher(fd, side)
        if before is None:
            return False
        before.cancel()
        return True

    def _ensure_fd_no_transport(self, fd):
        """RuntimeError if an open transport owns the descriptor."""
        cdef object owner
        cdef int fileno
        if isinstance(fd, int):
            fileno = fd if -1 <= fd <= 0x7fffffff else -1
        else:
            try:
                fileno = int(fd.fileno())
            except (AttributeError, TypeError, ValueError):
                raise ValueError(f"Invalid file object: {fd!r}") from None
        owner = None if self._closed else self.pollset.owner_of(fileno)
        if owner is not None and not owner.is_closing():
            raise RuntimeError(f"File descriptor {fd!r} is used by transport {owner!r}")

    def _add_reader(self, fd, callback, *args):
        return self.add_watcher(fd, READ, callback, args)

    def _remove_reader(self, fd):
        return self.remove_watcher(fd, READ)

    def _add_writer(self, fd, callback, *args):
        return self.add_watcher(fd, WRITE, callback, args)

    def _remove_writer(self, fd):
        return self.remove_watcher(fd, WRITE)

    def add_reader(self, fd, callback, *args):
        """Call callback(*args) once an iteration while fd is readable; replaces the callback before. fd: an int or an
        object with fileno(); RuntimeError for the descriptor of an open transport. In the loop's thread."""
        self._ensure_fd_no_transport(fd)
        if not callable(callback):
            self.check_callback(callback, "add_reader")
        self.add_watcher(fd, READ, callback, args)

    def remove_reader(self, fd):
        """Stop watching fd for readability. Returns whether there was a callback to remove. In the loop's thread."""
        self._ensure_fd_no_transport(fd)
        return self.remove_watcher(fd, READ)

    def add_writer(self, fd, callback, *args):
        """Call callback(*args) once an iteration while fd is writable; replaces the callback before. fd: an int or an
        object with fileno(); RuntimeError for the descriptor of an open transport. In the loop's thread."""
        self._ensure_fd_no_transport(fd)
        if not callable(callback):
            self.check_callback(callback, "add_writer")
        self.add_watcher(fd, WRITE, callback, args)

    def remove_writer(self, fd):
        """Stop watching fd for writability. Returns whether there was a callback to remove. In the loop's thread."""
        self._ensure_fd_no_transport(fd)
        return self.remove_watcher(fd, WRITE)

    # ------------------------------------------------------------------ close
    def _shutdown_core(self):
        """Release everything native; close() calls it once, on a loop that does not run."""
        cdef gl_node *node
        cdef PollSet ps = self.pollset
        cdef list owners = ps.owners
        cdef object item
        self.outbox.flush()
        for item in list(ps.owners):
            if item is not None:
                (<Pollable>item).take_back_conn()
        node = ps.shut()
        self._ownership.close()
        while node != NULL:
            item = <object>node.item
            node = node.next
            Py_DECREF(item)
            item = None
        self.ready = ReadyQueue()
        self.timers.clear()
        for item in owners:
            if item is not None:
                (<Pollable>item).loop_closed()

    def _add_callback(self, handle):
        """Run a handle in the next iteration, as often as it is added; asyncio.Handle objects do as well."""
        if isinstance(handle, Handle):
            push(self.ready, handle)
        elif not handle._cancelled:
            self.soon(_run_asyncio_handle, (handle,), None)

    def _add_callback_signalsafe(self, handle):
        self._add_callback(handle)

    def _is_foreign(self):
        """True in a forked child for a loop that the parent made."""
        return not self._closed and self.pollset.foreign()

    def _check_not_foreign(self):
        if not self._closed:
            self.pollset.check_not_foreign()

    def _use_io(self, mode):
        """Go over to a mode of GOLOOP_IO; each stream follows at its next turn."""
        self.offload_policy.use(mode)

    def _stats(self):
        """Counters of this loop: ready callbacks, pending timers, watched descriptors, parks; connections for which
        the netpoller receives and sends, how often one was given to it, how often this loop began or ceased to.
        """
        return {"ready": self.ready.count, "timers": self.timers.size, "descriptors": len(self.pollset),
                "parks": self.pollset.parks, "handoffs": self._ownership.handoffs, "away": len(self._ownership.away),
                "offloaded": self.offload_policy.offloaded, "offloads": self.offload_policy.offloads,
                "io_switches": self.offload_policy.switches}

    def _account(self):
        """What _eventloop/stats.py makes a LoopStats of. From any thread."""
        return self._stats() | self.accounts.read(self._ownership.stall.idle) | {
            "iterations": self._ownership.iteration, "callbacks": self._ownership.stall.beat,
            "worker": bool(self._ownership.worker),
        }


# call_soon() in the form in which the interpreter calls without making a tuple of the arguments: Cython's own entry for
# *args makes one: some 190 of 2,600 instructions for a callback with one argument.
cdef object _call_soon(PyObject *self, PyObject **args, Py_ssize_t nargs, PyObject *names):
    cdef object callback, context = None, name
    cdef Py_ssize_t i, first = 1
    callback = <object>args[0] if nargs else None
    if names != NULL:
        for i, name in enumerate(<tuple>names):
            if name == "context":
                context = <object>args[nargs + i]
            elif name == "callback" and not nargs:
                callback = <object>args[nargs + i]
                first = 0
            else:
                raise TypeError(f"call_soon() got an unexpected keyword argument {name!r}")
    if not nargs and first:
        raise TypeError("call_soon() missing 1 required positional argument: 'callback'")
    return (<LoopCore>self).call_soon_of(callback, args + first, nargs - first if nargs else 0, context)


cdef PyMethodDef _call_soon_method = PyMethodDef(
    "call_soon", <PyCFunction><void *>_call_soon, METH_FASTCALL | METH_KEYWORDS,
    """call_soon($self, callback, *args, context=None)
--

Run callback(*args) in the next iteration (asyncio: call_soon), in the order of the calls.

context: the contextvars.Context to run in; None: a copy of the current one. Returns a Handle. TypeError unless
the callback is a plain function. From another thread, use call_soon_threadsafe()."""
)
PyDict_SetItemString((<PyTypeObject *>LoopCore).tp_dict, "call_soon",
                     PyDescr_NewMethod(<PyTypeObject *>LoopCore, &_call_soon_method))
PyType_Modified(<PyTypeObject *>LoopCore)
