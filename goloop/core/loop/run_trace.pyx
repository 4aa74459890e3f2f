# cython: language_level=3, boundscheck=False, wraparound=False, freethreading_compatible=True
"""What a trace says of callbacks and tasks: names, lanes, and what a task waits for. Only while a trace is made.

A task's lane is a number that no other task of the session has. Its address is what finds that, until the task is done;
so no task lives longer for being traced. Guard: the GIL.
"""

import asyncio

from cpython.long cimport PyLong_FromVoidPtr

from goloop.core.system.trace cimport gl_tracer, name_number, the_tracer


cdef enum:
    NAMED = 10_000        # tasks with names of the program's that are remembered beyond their end

cdef gl_tracer *tracer = the_tracer()
cdef object _current_task = asyncio.current_task
cdef object _Future = asyncio.Future
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


cdef uint64_t task_number(object task) except 0:
    global last_lane
    cdef object key = PyLong_FromVoidPtr(<void *>task), lane, name
    if session != tracer.session:
        begin_session()
    lane = lanes.get(key)
    if lane is not None:
        return lane
    last_lane += 1
    lanes[key] = last_lane
    name = task.get_name()
    if not (type(name) is str and name.startswith("Task-")):
        task_names[last_lane] = str(name)
        if len(task_names) > NAMED:
            del task_names[next(iter(task_names))]
    return last_lane


cdef uint64_t current_lane() except? 0:
    try:
        task = _current_task()
    except RuntimeError:              # no loop runs here
        return 0
    return 0 if task is None else task_number(task)


cdef int end_lane(object task) except -1:
    lanes.pop(PyLong_FromVoidPtr(<void *>task), None)
    return 0


cdef object wait_of(object task):
    cdef object coro = task.get_coro(), inner
    cdef object name = None
    cdef int _depth
    for _depth in range(64):
        inner = getattr(coro, "cr_await", None)
        if inner is None:
            inner = getattr(coro, "gi_yieldfrom", None)
        name = getattr(coro, "__qualname__", name)
        if inner is None or isinstance(inner, _Future):
            break
        coro = inner
    return name or "await"


def lane_of_current_task():
    """Return the lane of the task that runs in this thread; 0: none does. While a trace is made."""
    return current_lane()


def names_of_tasks():
    """Return the names of tasks that the program has named, by lane, for the session that is made or was made last."""
    return task_names
