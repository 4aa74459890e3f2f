# cython: language_level=3, boundscheck=False, wraparound=False, freethreading_compatible=True
"""Outbox: what the streams of a loop write in one iteration, sent in one go at its end.

A send also wakes the peer, and the writes of an iteration cost less in a row than between stretches of Python. Nothing
waits for long: the loop sends between two callbacks what is older than a millisecond, and the netpoller sends for a
loop whose callback goes on (poll/native/outbox.h). HACKING.md, protocol "outbox".

What offloaded streams write is with the netpoller at once. Only the nudge that ends its sleep is collected.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.stdint cimport uint32_t

from goloop.core.poll.pollset cimport GL_WRITES, gl_outbox_add, gl_outbox_begin, gl_outbox_empty, gl_write
from goloop.core.system.posix cimport now_ns


cdef enum:
    MOST = 65536            # bytes that one stream collects; with more it sends at once

    KICKS = 12              # writes for which the netpoller is woken: fewer cost more each, more begin late

cdef long long PATIENCE = 1_000_000     # nanoseconds: longer brings nothing, half of it costs 2 % of a busy server
cdef long long KICK_PATIENCE = 500_000


cdef class Outbox:
    def __cinit__(self, PollSet pollset not None):
        self.pollset = pollset

    cdef bint add(self, Pollable owner, int fd, bytes data) except -1:
        """Collect what a stream writes. False: this cannot wait, and the stream has nothing in the batch any more."""
        cdef uint32_t place
        cdef bint first = not self.waiting
        if self.delivering or self.pollset.foreign():
            self.settle(owner)
            return False
        if first:
            self.begin()
        elif self.count == GL_WRITES and not owner.collected:
            self.flush()
            return False
        place = gl_outbox_add(
            self.box, owner.collected, fd, <void *>owner, <void *>data, PyBytes_AS_STRING(data),
            PyBytes_GET_SIZE(data), MOST,
        )
        if place == 0:
            self.settle(owner)
            return False
        Py_INCREF(data)           # the batch's references, which deliver() drops
        if not owner.collected:
            Py_INCREF(owner)
            owner.collected = place
            self.count = place
            if first and self.pollset.begin_batch():
                self.flush()      # there is no thread to look after it
        return True

    cdef int begin(self) except -1:
        if self.box == NULL:
            self.box = self.pollset.open_outbox()
            if self.box == NULL:
                raise MemoryError
        self.since = now_ns()
        self.waiting = True
        gl_outbox_begin(self.box)
        return 0

    cdef int kick(self) except -1:
        """An offloaded stream has written: see that the netpoller is woken soon."""
        if not self.waiting:
            self.begin()
        self.kicks += 1
        # Each time, and not for the first one alone: the netpoller may have ceased to tick in a callback that goes on.
        if self.kicks == KICKS or self.pollset.begin_batch():
            self.tell_netpoller()
        return 0

    cdef int tell_netpoller(self) except -1:
        self.kicks = 0
        self.waiting = self.count != 0
        self.pollset.nudge()
        return 0

    cdef int settle(self, Pollable owner) except -1:
        """Send now what a stream has collected, and tell it the outcome."""
        cdef uint32_t place = owner.collected
        if place:
            self.pollset.send_one(self.box, place - 1)
            self.deliver(place - 1)
        return 0

    cdef int deliver(self, unsigned int i) except -1:
        """A write was sent: let go of it, and tell its stream if something of it was not."""
        cdef gl_write *w = &self.box.writes[i]
        cdef object owner
        cdef int k
        if w.owner == NULL:
            return 0
        owner = <object>w.owner
        w.owner = NULL
        Py_DECREF(owner)          # the batch's reference; `owner` is another one
        (<Pollable>owner).collected = 0
        try:
            if <size_t>w.sent < w.length:
                (<Pollable>owner).not_sent(w)
        finally:
            for k in range(w.pieces):
                Py_DECREF(<object>w.held[k])
            w.pieces = 0
        return 0

    cdef int flush(self) except -1:
        """Send the batch, and tell the streams of what the kernel did not take."""
        cdef uint32_t i
        cdef object failure = None
        if self.kicks:
            self.tell_netpoller()
        if self.delivering or self.count == 0:
            return 0
        self.delivering = True
        self.pollset.send_batch(self.box)
        for i in range(self.count):
            try:
                self.deliver(i)
            except BaseException as exc:      # SystemExit, KeyboardInterrupt: after the others
                failure = exc
        self.count = 0
        self.waiting = self.kicks != 0
        gl_outbox_empty(self.box)
        self.delivering = False
        if failure is not None:
            raise failure
        return 0

    cdef int flush_if_due(self) except -1:
        """Between two callbacks: send what has waited long enough."""
        if now_ns() - self.since >= (KICK_PATIENCE if self.kicks else PATIENCE):
            self.flush()
        return 0
