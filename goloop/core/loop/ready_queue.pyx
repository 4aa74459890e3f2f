# cython: language_level=3, boundscheck=False, wraparound=False, freethreading_compatible=True
"""ReadyQueue: the callbacks that wait to run, first in, first out.

A chain of blocks: it grows without copying, and one that empties begins at the same cells again, which are in the cache
then. The blocks are lists, so the collector sees what waits in a loop that does not run.
"""


cdef class ReadyQueue:
    def __cinit__(self):
        self.head = self.tail = [None] * BLOCK
        self.between = []

    cdef int add_block(self) except -1:
        """The tail's block is full."""
        cdef list fresh = self.spare
        if fresh is None:
            fresh = [None] * BLOCK
            if self.last != BLOCK:
                return 0      # the allocation ran the collector, a finalizer called call_soon, and that did this
        self.spare = None
        if self.tail is not self.head:
            self.between.append(self.tail)
        self.tail = fresh
        self.last = 0
        return 0

    cdef int drop_block(self) except -1:
        """The head's block is empty, and the queue goes on in another one."""
        self.spare = self.head
        self.head = self.between.pop(0) if self.between else self.tail
        return 0

    cdef list items(self):
        """What waits, oldest first."""
        cdef list blocks = [self.head, *self.between], found = []
        if self.tail is not self.head:
            blocks.append(self.tail)
        for block in blocks:
            found += block
        return found[self.first:self.first + self.count]
