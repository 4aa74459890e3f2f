# cython: language_level=3, boundscheck=False, wraparound=False
"""Coroutines that are thrown away (GeneratorExit) in Cond.async_wait() while another actor has the lock.

Such a coroutine cannot wait for the lock, and unlocks on its way out what is not its own: that unlock counts for
nothing. Each lock has a list of its orphans: for each, the coroutines that waited one in another, of which any may be
the one that unlocks. An orphan that unlocks nothing stays in the list until the next one comes, and has no effect.
Guard of the lists: the GIL.
"""

from sys import exception as _exception

from cpython.ref cimport Py_DECREF, PyObject


cdef extern from "Python.h":
    ctypedef struct PyFrameObject:
        pass
    PyFrameObject *PyEval_GetFrame()                    # borrowed
    PyFrameObject *PyFrame_GetBack(PyFrameObject *frame)
    PyObject *PyFrame_GetGenerator(PyFrameObject *frame)


cdef object owner(object frame):
    """The coroutine or generator that runs in the frame; None: it is a function's, or that of one that has ended."""
    cdef PyObject *generator = PyFrame_GetGenerator(<PyFrameObject *>frame)
    if generator is NULL:
        return None
    found = <object>generator
    Py_DECREF(found)            # that of the call
    return found


cdef object caller(object frame):
    cdef PyFrameObject *back = PyFrame_GetBack(<PyFrameObject *>frame)
    if back is NULL:
        return None
    found = <object>back
    Py_DECREF(found)
    return found


cdef object current_frame():
    cdef PyFrameObject *frame = PyEval_GetFrame()
    return <object>frame if frame is not NULL else None


cdef list awaiting_frames():
    """The frames of the coroutine that runs, and of those that await it. They do not keep the coroutines alive."""
    cdef list frames = []
    frame = current_frame()
    while frame is not None and owner(frame) is not None:
        frames.append(frame)
        frame = caller(frame)
    return frames


cdef bint has_ended(object coroutine):
    for name in ("cr_frame", "gi_frame", "ag_frame"):
        if hasattr(coroutine, name):
            return getattr(coroutine, name) is None
    return True


cdef list with_orphan(list orphans, list frames):
    """A new list of orphans, with the coroutines of awaiting_frames() that are thrown away now.

    One that runs at this moment is not thrown away: it closes the others.
    """
    cdef list running = []
    frame = current_frame()
    while frame is not None:
        running.append(owner(frame))
        frame = caller(frame)
    orphan = [owner(frame) for frame in frames if owner(frame) not in running]
    left = [each for each in orphans or () if not all([has_ended(coroutine) for coroutine in each])]
    return [*left, orphan] if orphan else left


cdef bint consume(list orphans) except -1:
    """Whether it is one of the orphans that unlocks now, which is taken out then."""
    if not isinstance(_exception(), GeneratorExit):
        return False
    frame = current_frame()
    while frame is not None:
        coroutine = owner(frame)
        if coroutine is not None:
            for i, orphan in enumerate(orphans):
                if coroutine in <list>orphan:
                    del orphans[i]
                    return True
        frame = caller(frame)
    return False
