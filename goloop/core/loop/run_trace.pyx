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
    lane.function = accounts.entry(code_of(task.get_coro()), "coroutine")
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


cdef object wait_of(object task):
    """The name of its innermost coroutine."""
    cdef object coro = task.get_coro(), inner
    cdef int _depth
    for _depth in range(64):
        if PyCoro_CheckExact(coro):
            inner = coro.cr_await
        elif PyGen_CheckExact(coro):
            inner = coro.gi_yieldfrom
        else:
            return type(coro).__qualname__     # compiled code's
        if not PyCoro_CheckExact(inner) and not PyGen_CheckExact(inner):
            break                     # a future, or how one is awaited
        coro = inner
    return coro.__qualname__


def lane_of_current_task():
    """Return the lane of the task that runs in this thread; 0: none does. While a trace is made."""
    return current_lane()


def names_of_tasks():
    """Return the names of tasks that the program has named, by lane, for the session that is made or was made last."""
    return task_names
