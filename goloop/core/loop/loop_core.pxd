from cpython.object cimport PyObject

from goloop.core.loop.handles cimport Handle, Pollable, TimerHandle
from goloop.core.loop.iteration cimport LoopIteration
from goloop.core.poll.pollset cimport Side


cdef class LoopCore(LoopIteration):
    cdef char *read_buffer                 # scratch for recv, READ_SIZE bytes, made on first use
    cdef public object _task_factory

    cdef Handle soon(self, object callback, object args, object context)
    cdef Handle call_soon_of(self, object callback, PyObject **args, Py_ssize_t nargs, object context)
    cdef Handle enqueue_handle(self, Handle handle)
    cdef char *scratch(self) except NULL
    cdef int forget_watchers(self, int fd) except -1
    cdef int own(self, int fd, Pollable owner) except -1
    cdef int attach(self, int fd, Pollable owner) except -1
    cdef int detach(self, int fd, Pollable owner) except -1
    cdef Handle add_watcher(self, object fileobj, Side side, object callback, object args)
    cdef bint remove_watcher(self, object fileobj, Side side) except -1
    cdef TimerHandle schedule(self, double when, object callback, object args, object context)
    cdef int check_thread(self) except -1
    cdef int check_callback(self, object callback, str method) except -1


cdef enum:
    READ_SIZE = 262144     # bytes per recv, asyncio's max_size
