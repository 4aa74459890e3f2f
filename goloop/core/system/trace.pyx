# cython: language_level=3, boundscheck=False, wraparound=False, freethreading_compatible=True
"""The tracer: one session at a time, its names, and its events as bytes. goloop.debug makes a trace of them.

Any thread may emit events, by native/trace_ring.[ch]. The table of names is guarded by the GIL.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.errno cimport EBUSY
from libc.string cimport memcpy

from goloop.core.system.posix cimport os_error


cdef extern from "../system/native/trace_ring.h" nogil:
    ctypedef struct gl_event:
        pass
    ctypedef struct gl_trace_track:
        int tid
        uint64_t made
        uint64_t kept
        gl_event *events
        uint64_t room
    gl_tracer gl_the_tracer
    int gl_trace_start(uint64_t room)
    ptrdiff_t gl_trace_stop(gl_trace_track **tracks)
    void gl_trace_free(gl_trace_track *tracks, ptrdiff_t count)
    uint64_t gl_trace_lost()

cdef enum:
    NAMES = 100_000       # that are told apart: those of spans and wait reasons may be without end

# What the events are, for who reads them.
KINDS = {
    "run": GL_TRACE_RUN, "ran": GL_TRACE_RAN, "ready": GL_TRACE_READY, "sleep": GL_TRACE_SLEEP, "awake": GL_TRACE_AWAKE,
    "go": GL_TRACE_GO, "park": GL_TRACE_PARK, "span": GL_TRACE_SPAN, "span_end": GL_TRACE_SPAN_END, "gc": GL_TRACE_GC,
    "gc_end": GL_TRACE_GC_END, "netpoll": GL_TRACE_NETPOLL, "netpolled": GL_TRACE_NETPOLLED, "wake": GL_TRACE_WAKE,
    "handoff": GL_TRACE_HANDOFF, "handback": GL_TRACE_HANDBACK,
}
# One event in struct's words: nanoseconds, kind and loop (kind | loop << 8), name, a, b.
EVENT = "=qIIQQ"

cdef dict numbers = {}
cdef list names = ["", "(others)"]


cdef gl_tracer *the_tracer() noexcept nogil:
    return &gl_the_tracer


cdef uint32_t name_number(object text) except 0:
    """The number of a name in the table of this session."""
    cdef object number = numbers.get(text)
    if number is not None:
        return number
    if len(names) >= NAMES:
        return 1
    number = numbers[text] = len(names)
    names.append(text)
    return number


def start(uint64_t room):
    """Begin to collect events, the newest `room` (a power of two) of each thread. OSError (EBUSY): it is done already.

    From any thread.
    """
    global numbers, names
    cdef int error
    if gl_the_tracer.session:
        raise os_error(EBUSY)
    numbers, names = {}, ["", "(others)"]
    error = gl_trace_start(room)
    if error:
        raise os_error(error)


def stop():
    """End that. Returns the events of each thread, the names, and how many events there was no memory for.

    The first is a list of (tid, how many were made, bytes: the newest of them as EVENT, oldest first); the second a
    list, for the events' name. RuntimeError: there was nothing to end. From any thread.
    """
    global numbers, names
    cdef gl_trace_track *tracks = NULL
    cdef gl_trace_track *t
    cdef ptrdiff_t count, i
    cdef uint64_t first, upto
    cdef bytes data
    cdef char *room
    with nogil:
        count = gl_trace_stop(&tracks)
    if count < 0:
        raise RuntimeError("no trace is made, or there is no memory to end it")
    made = []
    try:
        for i in range(count):
            t = &tracks[i]
            data = PyBytes_FromStringAndSize(NULL, t.kept * sizeof(gl_event))
            room = PyBytes_AS_STRING(data)
            first = (t.made - t.kept) & (t.room - 1)
            upto = min(t.kept, t.room - first)
            memcpy(room, t.events + first, upto * sizeof(gl_event))
            memcpy(room + upto * sizeof(gl_event), t.events, (t.kept - upto) * sizeof(gl_event))
            made.append((t.tid, t.made, data))
    finally:
        gl_trace_free(tracks, count)
    found, numbers, names = names, {}, ["", "(others)"]
    return made, found, gl_trace_lost()


def on():
    """Return whether a trace is made. From any thread."""
    return gl_the_tracer.session != 0


def emit(int kind, str name, unsigned long long a=0, unsigned long long b=0):
    """Add an event of this thread, of now, if a trace is made. name: a str, or None."""
    cdef uint32_t number
    if gl_the_tracer.session:
        number = 0 if name is None else name_number(name)
        trace(&gl_the_tracer, kind, 0, number, a, b)


def after_fork_in_child():
    """In a forked child: the trace is the parent's."""
    global numbers, names
    numbers, names = {}, ["", "(others)"]
