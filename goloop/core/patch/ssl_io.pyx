# cython: language_level=3, boundscheck=False, wraparound=False
"""Handshake, reading, writing and closing of an ssl.SSLSocket in a goroutine. For goloop.monkey.

OpenSSL reads and writes the descriptor itself, and CPython asks the socket object underneath whether it may wait. No
flag makes that different for one call. So a goroutine makes its attempt in a *window*: as long as the call takes, some
microseconds, the timeout inside of the socket object is 0 and the descriptor in non-blocking mode; then both are what
the program made them. Another caller of a method for which that matters waits until the window is closed; calls that
were made before and wait in the kernel take no notice.

Guard of the table of windows: the GIL, which only the call itself gives up while one is open.
"""

import _socket
import _ssl

from libc.errno cimport errno
from libc.stdint cimport int64_t, uintptr_t

from goloop.core.patch.fd_wait cimport wait_fd
from goloop.core.patch.cpython_layout cimport swap_timeout
from goloop.core.patch.hook cimport cooperative, install
from goloop.core.system.posix cimport now_s, os_error


cdef extern from "fcntl.h" nogil:
    enum:
        F_GETFL
        F_SETFL
        O_NONBLOCK
    int fcntl(int fd, int command, ...)

cdef extern from "unistd.h" nogil:
    int usleep(unsigned int us)

cdef enum:
    A_WHILE = 20                      # us between looks at a window that another goroutine or thread has open

cdef dict windows = {}                # address of a socket object with an open window: its own timeout in ns
cdef Py_ssize_t open_windows = 0

cdef object WantRead = _ssl.SSLWantReadError
cdef object WantWrite = _ssl.SSLWantWriteError
cdef object fileno = vars(_socket.socket)["fileno"]
cdef dict originals = {}


cdef int until_closed(object sock) except -1:
    while <uintptr_t><void *>sock in windows:
        with nogil:
            usleep(A_WHILE)
    return 0


cdef object attempt(object sock, object call, tuple args):
    """Call it in a window: it does not wait."""
    global open_windows
    cdef uintptr_t address = <uintptr_t><void *>sock
    cdef int fd = fileno(sock)
    cdef int mode
    cdef int64_t before
    if fd < 0:
        return call(*args)                        # closed, and it says so
    until_closed(sock)
    mode = fcntl(fd, F_GETFL)
    if mode < 0:
        raise os_error(errno)
    before = swap_timeout(sock, 0)
    windows[address] = before
    open_windows += 1
    if not mode & O_NONBLOCK:
        fcntl(fd, F_SETFL, mode | O_NONBLOCK)
    try:
        return call(*args)
    finally:
        if not mode & O_NONBLOCK and fileno(sock) == fd:      # else closed meanwhile, and the number is another's
            fcntl(fd, F_SETFL, mode)
        swap_timeout(sock, before)
        open_windows -= 1
        del windows[address]


cdef object perform(object connection, str name, tuple args, str late):
    """Do it; late: what the TimeoutError says."""
    cdef object sock = connection.owner
    cdef object call = originals[name]
    cdef bint write
    cdef int fd
    cdef double until = -1
    args = (connection, *args)
    if not isinstance(sock, _socket.socket):      # it reads and writes memory
        return call(*args)
    until_closed(sock)
    timeout = originals["gettimeout"](sock)
    if timeout == 0 or not cooperative():
        return call(*args)
    while True:
        try:
            return attempt(sock, call, args)
        except WantRead:
            write = False
        except WantWrite:
            write = True
        fd = fileno(sock)
        if fd < 0:
            continue
        if until == -1:
            until = 0 if timeout is None else now_s() + <double>timeout
        if until != 0 and now_s() >= until or not wait_fd(fd, write, until):
            raise TimeoutError(late.format("write" if write else "read"))


def _do_handshake(connection):
    return perform(connection, "do_handshake", (), "_ssl.c: The handshake operation timed out")


def _read(connection, *args):
    return perform(connection, "read", args, "The read operation timed out")


def _write(connection, data, /):
    return perform(connection, "write", (data,), "The write operation timed out")


def _shutdown(connection):
    return perform(connection, "shutdown", (), "The {} operation timed out")


# ------------------------------- what else a window is in the way of, while one is open
def _gettimeout(sock):
    until_closed(sock)
    return originals["gettimeout"](sock)


def _getblocking(sock):
    until_closed(sock)
    return originals["getblocking"](sock)


def _settimeout(sock, value, /):
    until_closed(sock)
    return originals["settimeout"](sock, value)


def _setblocking(sock, flag, /):
    until_closed(sock)
    return originals["setblocking"](sock, flag)


cdef int _if_open() noexcept:
    return open_windows > 0


cdef int _if_concerned() noexcept:
    return open_windows > 0 or cooperative()


def patch():
    """Put them in the place of the methods of connections, for goroutines. fields.find_timeout() comes first. Once."""
    for name, replacement in (
        ("gettimeout", _gettimeout), ("getblocking", _getblocking),
        ("settimeout", _settimeout), ("setblocking", _setblocking),
    ):
        originals[name] = install(vars(_socket.socket)[name], replacement, _if_open)
    for name, replacement in (
        ("do_handshake", _do_handshake), ("read", _read), ("write", _write), ("shutdown", _shutdown),
    ):
        originals[name] = install(vars(_ssl._SSLSocket)[name], replacement, _if_concerned)


def after_fork_in_child():
    """In a forked child: the threads that had windows open are not here."""
    global open_windows
    windows.clear()
    open_windows = 0
