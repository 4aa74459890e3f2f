# cython: language_level=3, boundscheck=False, wraparound=False, freethreading_compatible=True
"""Accounts: what a loop has done and how long it took; on in every loop, always.

The loop looks at a clock when it looks at its poll set, so the time of its rounds costs an addition. The time of single
callbacks is a sample: one in OBSERVE_EVERY is timed, and counts for all. The thread that runs the loop writes; who
reads has the GIL.
"""

import asyncio
from functools import partial as _partial

from cpython.long cimport PyLong_FromVoidPtr
from cpython.object cimport PyObject

from goloop.core.loop.handles cimport Handle, Pollable


cdef extern from "Python.h":
    ctypedef struct PyTypeObject:
        const char *tp_name
    PyTypeObject *Py_TYPE(object o)
    bint PyObject_TypeCheck(PyObject *o, PyTypeObject *type)
    bint PyType_Check(object o)
    bint PyCoro_CheckExact(object o)
    bint PyCFunction_CheckExact(object o)
    bint PyMethod_Check(object o)
    bint PyFunction_Check(object o)
    PyObject *PyMethod_GET_FUNCTION(object o)      # borrowed, as are these
    PyObject *PyFunction_GET_CODE(object o)
    PyObject *PyMethod_GET_SELF(object o)
    PyObject *PyCFunction_GET_SELF(object o)

cdef extern from "string.h":
    char *strstr(const char *text, const char *part)

cdef enum:
    FUNCTIONS = 1000      # that are told apart; generated code may be without end

cdef object _Task = asyncio.Task
cdef object _PyTask = asyncio.tasks._PyTask
cdef object _others = object()


cdef class FunctionTime:
    def __cinit__(self, subject, str name, str kind, str file, int line):
        self.subject = subject
        self.name = name
        self.kind = kind
        self.file = file
        self.line = line


cdef object code_of(object coro):
    if PyCoro_CheckExact(coro):
        return coro.cr_code
    code = getattr(coro, "cr_code", None) or getattr(coro, "gi_code", None) or getattr(coro, "ag_code", None)
    return type(coro) if code is None else code


# These look at no attribute that the program could have defined: it is not to notice, and no goroutine may park here.
cdef object task_of(object callback):
    cdef PyObject *owner = NULL
    if PyFunction_Check(callback):
        return None
    if PyCFunction_CheckExact(callback):      # the wake-up by a future
        owner = PyCFunction_GET_SELF(callback)
        return <object>owner if owner != NULL and PyObject_TypeCheck(owner, <PyTypeObject *>_Task) else None
    if PyMethod_Check(callback):              # of a task in Python (nest_asyncio's)
        owner = PyMethod_GET_SELF(callback)
        return <object>owner if PyObject_TypeCheck(owner, <PyTypeObject *>_PyTask) else None
    return callback.__self__ if strstr(Py_TYPE(callback).tp_name, b"TaskStepMethWrapper") != NULL else None


cdef object subject_of(object callback):
    cdef PyObject *owner
    cdef int _depth
    for _depth in range(16):                  # partials of partials
        if PyMethod_Check(callback):
            callback = <object>PyMethod_GET_FUNCTION(callback)
        if PyFunction_Check(callback):
            return <object>PyFunction_GET_CODE(callback)
        if not PyObject_TypeCheck(<PyObject *>callback, <PyTypeObject *>_partial):
            break
        callback = callback.func
    if PyCFunction_CheckExact(callback):
        owner = PyCFunction_GET_SELF(callback)
        if owner != NULL:                     # for a function that is its module
            return <object>owner if PyType_Check(<object>owner) else <object>Py_TYPE(<object>owner)
    return callback if PyType_Check(callback) else <object>Py_TYPE(callback)


cdef tuple read_histogram(gl_histogram *h):
    cdef int i
    return tuple([h.counts[i] for i in range(GL_BUCKETS)]), h.total / 1e9, h.longest / 1e9


# Seconds: the upper bounds of all buckets but the last one.
BOUNDS = tuple([(1 << i) / 1e6 for i in range(GL_BUCKETS - 1)])


cdef class Accounts:
    def __cinit__(self):
        self.functions = {}

    cdef dict read(self, bint idle):
        """All of it, for LoopStats of _eventloop/stats.py. idle: the loop sleeps, if it runs."""
        cdef FunctionTime f
        cdef int64_t going = max(now_ns() - self.marked, 0) if self.marked else 0
        return {
            "busy": (self.busy + (0 if idle else going)) / 1e9, "asleep": (self.asleep + (going if idle else 0)) / 1e9,
            "behind": 0.0 if idle else going / 1e9, "sleeps": self.sleeps, "received": self.received,
            "written": self.written, "accepts": self.accepts, "lag": read_histogram(&self.lag),
            "timer_lag": read_histogram(&self.timer_lag), "callback_time": read_histogram(&self.callback_time),
            "functions": [
                (f.name, f.kind, f.file, f.line, f.calls, f.total / 1e9, f.longest / 1e9, f.samples)
                for f in list(self.functions.values())
            ],
        }

    cdef FunctionTime function_of(self, object item):
        """The entry for what an item of the ready queue runs; None: that is accounted for elsewhere."""
        cdef object callback, coro
        if not isinstance(item, Handle):
            subject = (<Pollable>item).runs()
            return None if subject is None else self.entry(subject, "transport")
        callback = (<Handle>item)._callback
        task = task_of(callback)
        if task is None:
            return self.entry(subject_of(callback), "callback")
        coro = task.get_coro()
        return self.entry(code_of(coro), "coroutine")

    cdef FunctionTime entry(self, object subject, str kind):
        cdef object key = PyLong_FromVoidPtr(<void *>subject)
        cdef FunctionTime function = <FunctionTime>self.functions.get(key)
        cdef object name
        if function is not None:
            return function
        if len(self.functions) >= FUNCTIONS:
            subject, kind = _others, "callback"
            key = PyLong_FromVoidPtr(<void *>subject)
            if key in self.functions:
                return <FunctionTime>self.functions[key]
        if subject is _others:
            name = "(others)"
        elif isinstance(subject, type):
            name = subject.__qualname__ if subject.__module__ == "builtins" else (
                f"{subject.__module__}.{subject.__qualname__}")
        else:
            name = getattr(subject, "co_qualname", None) or str(subject)
        function = FunctionTime(
            subject, name, kind, getattr(subject, "co_filename", ""), getattr(subject, "co_firstlineno", 0))
        self.functions[key] = function
        return function
