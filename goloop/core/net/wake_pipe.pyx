# cython: language_level=3, boundscheck=False, wraparound=False
"""WakePipe: how a plain thread that waits for a descriptor is woken for another reason. For polldesc.pyx."""

import signal
import threading

cimport cython
from cpython.exc cimport PyErr_CheckSignals
from libc.errno cimport errno

from goloop.core.system.posix cimport os_error


cdef extern from "Python.h":
    unsigned long PyThread_get_thread_ident() nogil

cdef extern from *:
    """
    #include <fcntl.h>
    #include <unistd.h>
    """
    int pipe2(int *ends, int flags) nogil
    int O_CLOEXEC
    int O_NONBLOCK
    ssize_t write(int fd, const void *data, size_t n) nogil
    int close(int fd) nogil

cdef object _main_thread = threading.main_thread
cdef object _set_wakeup_fd = signal.set_wakeup_fd


@cython.final
cdef class WakePipe:
    """The `lock` of a Waiter whose thread sleeps in poll(2): a pipe.

    In the main thread signals end the sleep, too. The kernel may give one to any thread, and may do so just before we
    sleep; Python's C handler then writes to the wake-up descriptor, which is the pipe unless the program has set one.
    """

    def __cinit__(self):
        cdef int ends[2]
        self.fd = self.writing = -1
        if pipe2(ends, O_CLOEXEC | O_NONBLOCK) < 0:
            raise os_error(errno)
        self.fd, self.writing = ends[0], ends[1]

    def __dealloc__(self):
        self.put_away()

    cdef int become_wakeup_fd(self) except -1:
        if PyThread_get_thread_ident() == _main_thread().ident:
            before = _set_wakeup_fd(self.writing, warn_on_full_buffer=False)
            self.is_wakeup_fd = before == -1
            if not self.is_wakeup_fd:
                _set_wakeup_fd(before)
            PyErr_CheckSignals()      # those that came before
        return 0

    cdef int close(self) except -1:
        """The sleep is over."""
        if self.is_wakeup_fd:
            self.is_wakeup_fd = False
            before = _set_wakeup_fd(-1)
            if before not in (-1, self.writing):
                _set_wakeup_fd(before)      # a signal's handler has put one in
        self.put_away()
        return 0

    cdef void put_away(self) noexcept:
        if self.fd >= 0:
            close(self.fd)
            close(self.writing)
            self.fd = self.writing = -1

    def release(self):
        """Wake it; one that is awake already may have put it away."""
        if self.fd >= 0:
            write(self.writing, <const char *>b"!", 1)
