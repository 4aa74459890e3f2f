# cython: language_level=3, boundscheck=False, wraparound=False, freethreading_compatible=True
"""A loop's timers: a binary heap whose entries know their place, so a cancelled timer leaves at once.

Keys are native; the timers themselves stand in a Python list, in the same places, where the garbage
collector sees them. Only the thread that runs the loop calls in.
"""

cimport cython
from cpython.ref cimport PyObject
from libc.stdlib cimport free, realloc


cdef extern from "Python.h":
    ctypedef struct PyListObject:
        PyObject **ob_item


@cython.final
cdef class TimerHeap:
    def __cinit__(self):
        self.items = []

    def __dealloc__(self):
        free(self.keys)

    def __len__(self):
        return self.size

    cdef bint before(self, const Key *a, const Key *b) noexcept:
        return a.when < b.when or (a.when == b.when and a.order < b.order)

    cdef void put(self, Py_ssize_t at, Key key, PyObject *item) noexcept:
        # Moves a reference that the list holds already: no count changes.
        self.keys[at] = key
        key.index[0] = at
        (<PyListObject *>self.items).ob_item[at] = item

    cdef Py_ssize_t up(self, Py_ssize_t at) noexcept:
        cdef PyObject **items = (<PyListObject *>self.items).ob_item
        cdef Key key = self.keys[at]
        cdef PyObject *item = items[at]
        cdef Py_ssize_t parent
        while at > 0:
            parent = (at - 1) >> 1
            if not self.before(&key, &self.keys[parent]):
                break
            self.put(at, self.keys[parent], items[parent])
            at = parent
        self.put(at, key, item)
        return at

    cdef Py_ssize_t down(self, Py_ssize_t at) noexcept:
        cdef PyObject **items = (<PyListObject *>self.items).ob_item
        cdef Key key = self.keys[at]
        cdef PyObject *item = items[at]
        cdef Py_ssize_t child
        while True:
            child = 2 * at + 1
            if child >= self.size:
                break
            if child + 1 < self.size and self.before(&self.keys[child + 1], &self.keys[child]):
                child += 1
            if not self.before(&self.keys[child], &key):
                break
            self.put(at, self.keys[child], items[child])
            at = child
        self.put(at, key, item)
        return at

    cdef int push(self, double when, Py_ssize_t *index, object item) except -1:
        cdef Py_ssize_t want
        cdef Key *keys
        if self.size == self.room:
            want = max(2 * self.room, 64)
            keys = <Key *>realloc(self.keys, want * sizeof(Key))
            if keys == NULL:
                raise MemoryError
            self.keys = keys
            self.room = want
        self.items.append(item)
        self.order += 1
        self.keys[self.size] = Key(when, self.order, index)
        self.size += 1
        self.up(self.size - 1)
        return 0

    cdef int remove(self, Py_ssize_t at) except -1:
        cdef PyObject **items = (<PyListObject *>self.items).ob_item
        cdef Py_ssize_t last = self.size - 1
        cdef PyObject *item = items[at]
        self.keys[at].index[0] = -1
        self.size = last
        if at != last:
            self.put(at, self.keys[last], items[last])
            items[last] = item
            if self.up(at) == at:
                self.down(at)
        if self.room > 1024 and self.size < self.room >> 2:
            self.shrink()
        self.items.pop()    # drops the reference, and may run code: last
        return 0

    cdef object pop(self):
        cdef object item = self.items[0]
        self.remove(0)
        return item

    cdef int shrink(self) noexcept:
        cdef Py_ssize_t want = self.room >> 1
        cdef Key *keys = <Key *>realloc(self.keys, want * sizeof(Key))
        if keys != NULL:
            self.keys = keys
            self.room = want
        return 0

    cdef double first(self) noexcept:
        return self.keys[0].when

    cdef int clear(self) except -1:
        cdef Py_ssize_t i
        cdef list items = self.items
        for i in range(self.size):
            self.keys[i].index[0] = -1
        self.size = 0
        self.untracked = NULL
        self.items = []
        items.clear()
        return 0
