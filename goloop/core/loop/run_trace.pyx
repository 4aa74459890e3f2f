# cython: language_level=3, boundscheck=False, wraparound=False, freethreading_compatible=True
"""What a trace says of callbacks and tasks: names, lanes, and what a task waits for. Only while a trace is made.

A task's lane is a number that no other task of the session has. Its address is what finds that, until the task is done;
so no task lives longer for being traced. Guard: the GIL.
"""

import asyncio

from cpython.dict cimport PyDict_GetItem
from cpython.long cimport PyLong_FromVoidPtr
from cpython.object cimport PyObject

from goloop.core.loop.accounts cimport code_of
from goloop.core.system.trace cimport gl_tracer, name_number, the_tracer


cdef extern from "Python.h":
    bint PyCoro_CheckExact(object o)
    bint PyGen_CheckExact(object o)

# What a coroutine awaits, and its name, without a look-up of the attributes: a trace asks after each step of each task.
cdef extern from *:
    """
    #include <string.h>
    static PyGetSetDef *gl_attribute(const char *name) {
        PyGetSetDef *d = PyCoro_Type.tp_getset;
        while (d != NULL && d->name != NULL && strcmp(d->name, name) != 0)
            d++;
        return d != NULL && d->name != NULL ? d : NULL;
    }
    static PyObject *gl_get(PyObject *coro, PyGetSetDef **known, const char *name) {
        if (*known == NULL && (*known = gl_attribute(name)) == NULL)
            return PyObject_GetAttrString(coro, name);
        return (*known)->get(coro, (*known)->closure);
    }
    static PyObject *gl_get_await(PyObject *coro) {
        static PyGetSetDef *known;
        return gl_get(coro, &known, "cr_await");
    }
    static PyObject *gl_get_name(PyObject *coro) {
        static PyGetSetDef *known;
        return gl_get(coro, &known, "__qualname__");
    }
    """
    object gl_get_await(object coro)
    object gl_get_name(object coro)

cdef enum:
    NAMED = 10_000        # tasks with names of the program's that are remembered beyond their end

cdef gl_tracer *tracer = the_tracer()
cdef object _current_task = asyncio.current_task
cdef dict lanes = {}              # address of a task that is not done -> lane
cdef dict task_names = {}         # lane -> name, of tasks that the program has named, the oldest first
cdef uint64_t last_lane = 0
cdef uint32_t session = 0         # which these belong to


cdef int begin_session() except -1:
    global session, last_lane, lanes, task_names
    session = tracer.session
    last_lane = 0
    lanes, task_names = {}, {}
    return 0


cdef uint32_t function_number(FunctionTime function) except 0:
    if function.trace_session != tracer.session:
        function.trace_name = name_number((function.name, function.kind, function.file, function.line))
        function.trace_session = tracer.session
    return function.trace_name


cdef Lane lane_of(object task, Accounts accounts):
    cdef object key = PyLong_FromVoidPtr(<void *>task)
    cdef PyObject *found
    if session != tracer.session:
        begin_session()
    found = PyDict_GetItem(lanes, key)
    return <Lane>found if found != NULL else add_lane(task, key, accounts)


cdef Lane add_lane(object task, object key, Accounts accounts):
    global last_lane
    cdef Lane lane = Lane.__new__(Lane)
    cdef object name = task.get_name()
    last_lane += 1
    lane.number = last_lane
    coro = task.get_coro()
    lane.coro = <PyObject *>coro
    lane.function = accounts.entry(code_of(coro), "coroutine")
    lanes[key] = lane
    if not (type(name) is str and name.startswith("Task-")):
        task_names[last_lane] = str(name)
        if len(task_names) > NAMED:
            del task_names[next(iter(task_names))]
    return lane


cdef uint64_t current_lane() except? 0:
    cdef PyObject *found
    try:
        task = _current_task()
    except RuntimeError:              # no loop runs here
        return 0
    if task is None or session != tracer.session:
        return 0
    found = PyDict_GetItem(lanes, PyLong_FromVoidPtr(<void *>task))
    return (<Lane>found).number if found != NULL else 0     # 0: the trace began in the middle of its turn


cdef int end_lane(object task) except -1:
    lanes.pop(PyLong_FromVoidPtr(<void *>task), None)
    return 0


cdef uint32_t wait_of(Lane lane, object task) except? 0:
    """The number of the name of its innermost coroutine."""
    cdef object coro = <object>lane.coro, inner
    cdef int depth
    for depth in range(64):
        if PyCoro_CheckExact(coro):
            inner = gl_get_await(coro)
        elif PyGen_CheckExact(coro):
            inner = coro.gi_yieldfrom
        else:
            inner = None              # compiled code's
        if inner is None and depth == 0 and task.done():
            return 0
        if not PyCoro_CheckExact(inner) and not PyGen_CheckExact(inner):
            break                     # a future, or how one is awaited
        coro = inner
    return name_number(gl_get_name(coro) if PyCoro_CheckExact(coro) else getattr(coro, "__qualname__", "await"))


def lane_of_current_task():
    """Return the lane of the task that runs in this thread; 0: none does. While a trace is made."""
    return current_lane()


def names_of_tasks():
    """Return the names of tasks that the program has named, by lane, for the session that is made or was made last."""
    return task_names
