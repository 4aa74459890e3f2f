from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF, Py_INCREF


cdef extern from "Python.h":
    ctypedef struct PyListObject:
        PyObject **ob_item


cdef enum:
    BLOCK = 512           # cells; 4 KiB


# All fields belong to the thread that runs the loop. Cells that are not used hold None.
cdef class ReadyQueue:
    cdef list head        # the block whose cells are taken, from `first` on
    cdef list tail        # the block whose cells are filled, up to `last`; the same one while the queue is short
    cdef list between     # the blocks between these, all full, oldest first
    cdef list spare       # an empty block, or None
    cdef Py_ssize_t first
    cdef Py_ssize_t last
    cdef Py_ssize_t count

    cdef int add_block(self) except -1
    cdef int drop_block(self) except -1
    cdef list items(self)


# Functions and not methods, so that they can be inline in other modules.
cdef inline int push(ReadyQueue q, object item) except -1:
    cdef PyObject **cell
    while q.last == BLOCK:
        q.add_block()
    cell = &(<PyListObject *>q.tail).ob_item[q.last]
    Py_INCREF(item)
    Py_DECREF(<object>cell[0])
    cell[0] = <PyObject *>item
    q.last += 1
    q.count += 1
    return 0


cdef inline object pop(ReadyQueue q):
    """Take the oldest item; there is one."""
    cdef PyObject **cell = &(<PyListObject *>q.head).ob_item[q.first]
    cdef object item = <object>cell[0]
    Py_DECREF(item)               # the cell's reference, now ours
    Py_INCREF(None)
    cell[0] = <PyObject *>None
    q.first += 1
    q.count -= 1
    if q.count == 0:
        q.first = q.last = 0      # both ends are in the same block, or the tail's is empty
        if q.head is not q.tail:
            q.drop_block()
    elif q.first == BLOCK:
        q.first = 0
        q.drop_block()
    return item
