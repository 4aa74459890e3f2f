# cython: language_level=3, boundscheck=False, wraparound=False
"""recv(), recv_into(), send() and sendall() of a socket object in a goroutine. For goloop.monkey.

They try without waiting, by MSG_DONTWAIT, so that the descriptor's own mode is left alone, which plain threads and
other processes share; and park until it is worth another try. The timeout is the socket object's.
"""

import _socket

from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.exc cimport PyErr_CheckSignals
from libc.errno cimport EAGAIN, EINTR, errno

from goloop.core.patch.fd_wait cimport wait_after_eagain
from goloop.core.system.posix cimport now_s, os_error

from goloop.core.patch.hook import hook


cdef extern from "sys/time.h" nogil:
    struct timeval:
        long tv_sec
        long tv_usec

cdef extern from "sys/socket.h" nogil:
    enum:
        MSG_DONTWAIT
        MSG_ERRQUEUE
        MSG_WAITALL
        SOL_SOCKET
        SO_RCVTIMEO
        SO_SNDTIMEO
    ctypedef unsigned int socklen_t
    ssize_t c_recv "recv"(int fd, void *buf, size_t n, int flags)
    ssize_t c_send "send"(int fd, const void *buf, size_t n, int flags)
    int getsockopt(int fd, int level, int name, void *value, socklen_t *size)

cdef object gettimeout = vars(_socket.socket)["gettimeout"]
cdef object fileno = vars(_socket.socket)["fileno"]
cdef object in_thread = None          # offload(function, *args) of goloop.monkey
cdef object recv_ = None              # what the methods did before
cdef object recv_into_ = None
cdef object send_ = None
cdef object sendall_ = None


cdef class CallDeadline:
    """One call's timeout, which all its waits share."""
    cdef object sock
    cdef bint write
    cdef bint endless             # the socket object has no timeout, though the descriptor may (SO_RCVTIMEO)
    cdef double seconds           # the timeout; 0: the call is not to wait at all
    cdef double until             # in seconds of the monotonic clock, 0: never; -1: not set yet

    def step(self):
        self.wait()

    cdef int wait(self) except -1:
        """Park until another try is worth it. TimeoutError; BlockingIOError where the kernel would say so."""
        cdef int fd = fileno(self.sock)
        if fd < 0:
            return 0                  # closed: the next try says so
        if self.until < 0:
            if self.endless:
                self.seconds = kernel_timeout(fd, self.write)
            self.until = 0 if self.endless and self.seconds == 0 else now_s() + self.seconds
        if self.until != 0 and now_s() >= self.until or not wait_after_eagain(fd, self.write, self.until):
            if self.endless:
                raise BlockingIOError(EAGAIN, "Resource temporarily unavailable")
            raise TimeoutError("timed out")
        return 0


cdef double kernel_timeout(int fd, bint write):
    """SO_RCVTIMEO or SO_SNDTIMEO in seconds; 0: none."""
    cdef timeval value
    cdef socklen_t size = sizeof(value)
    if getsockopt(fd, SOL_SOCKET, SO_SNDTIMEO if write else SO_RCVTIMEO, &value, &size) < 0:
        return 0
    return value.tv_sec + value.tv_usec * 1e-6


cdef CallDeadline new_patience(object sock, bint write):
    cdef CallDeadline patience = CallDeadline.__new__(CallDeadline)
    cdef object timeout = gettimeout(sock)
    patience.sock = sock
    patience.write = write
    patience.endless = timeout is None
    patience.seconds = -1 if timeout is None else timeout
    patience.until = -1
    return patience


def patience(sock, write):
    """Return a function that parks until another try is worth it, within the socket object's timeout; None if that
    is 0."""
    cdef CallDeadline patience = new_patience(sock, write)
    return None if patience.seconds == 0 else patience.step


cdef CallDeadline patience_for(object sock, bint write, int flags):
    """None: the original neither waits nor blocks."""
    cdef CallDeadline patience = new_patience(sock, write)
    if patience.seconds == 0 or (patience.endless and flags & MSG_DONTWAIT):
        return None
    return patience


cdef Py_ssize_t receive(CallDeadline patience, char *room, Py_ssize_t size, int flags) except -1:
    cdef Py_ssize_t n
    while True:
        n = c_recv(fileno(patience.sock), room, size, flags | MSG_DONTWAIT)
        if n >= 0:
            return n
        if errno == EAGAIN:
            patience.wait()
        elif errno == EINTR:
            PyErr_CheckSignals()
        else:
            raise os_error(errno)


cdef Py_ssize_t transmit(CallDeadline patience, const char *data, Py_ssize_t size, int flags) except -1:
    cdef Py_ssize_t n
    while True:
        n = c_send(fileno(patience.sock), data, size, flags | MSG_DONTWAIT)
        if n >= 0:
            return n
        if errno == EAGAIN:
            patience.wait()
        elif errno == EINTR:
            PyErr_CheckSignals()
        else:
            raise os_error(errno)


def _recv(sock, Py_ssize_t bufsize, int flags=0, /):
    cdef CallDeadline patience
    cdef Py_ssize_t n
    if flags & (MSG_WAITALL | MSG_ERRQUEUE):      # whether that waits is a matter of the mode, and of the protocol
        return in_thread(recv_, sock, bufsize, flags)
    patience = patience_for(sock, False, flags) if bufsize > 0 else None
    if patience is None:
        return recv_(sock, bufsize, flags)
    data = PyBytes_FromStringAndSize(NULL, bufsize)
    n = receive(patience, PyBytes_AS_STRING(data), bufsize, flags)
    return data if n == bufsize else data[:n]


def _recv_into(sock, buffer, Py_ssize_t nbytes=0, int flags=0):
    cdef CallDeadline patience
    cdef Py_buffer view
    if flags & (MSG_WAITALL | MSG_ERRQUEUE):      # whether that waits is a matter of the mode, and of the protocol
        return in_thread(recv_into_, sock, buffer, nbytes, flags)
    patience = patience_for(sock, False, flags)
    if patience is None:
        return recv_into_(sock, buffer, nbytes, flags)
    try:
        PyObject_GetBuffer(buffer, &view, PyBUF_WRITABLE)
    except (TypeError, BufferError):
        return recv_into_(sock, buffer, nbytes, flags)       # it has the message
    try:
        if nbytes < 0 or nbytes > view.len or view.len == 0:
            return recv_into_(sock, buffer, nbytes, flags)
        return receive(patience, <char *>view.buf, nbytes if nbytes else view.len, flags)
    finally:
        PyBuffer_Release(&view)


def _send(sock, data, int flags=0, /):
    cdef CallDeadline patience = patience_for(sock, True, flags)
    cdef Py_buffer view
    if patience is None:
        return send_(sock, data, flags)
    try:
        PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    except (TypeError, BufferError):
        return send_(sock, data, flags)
    try:
        return transmit(patience, <const char *>view.buf, view.len, flags)
    finally:
        PyBuffer_Release(&view)


def _sendall(sock, data, int flags=0, /):
    cdef CallDeadline patience = patience_for(sock, True, flags)
    cdef Py_ssize_t sent = 0
    cdef Py_buffer view
    if patience is None:
        return sendall_(sock, data, flags)
    try:
        PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    except (TypeError, BufferError):
        return sendall_(sock, data, flags)
    try:
        while True:
            sent += transmit(patience, <const char *>view.buf + sent, view.len - sent, flags)
            if sent >= view.len:
                return
    finally:
        PyBuffer_Release(&view)


def recv_later(sock, Py_ssize_t bufsize):
    """As recv(bufsize) in a goroutine, which parks before the first try: the data is expected later, or it is the
    others' turn. Not for TLS, which may have data at hand that the descriptor does not tell of."""
    cdef CallDeadline patience = new_patience(sock, False)
    cdef Py_ssize_t n
    patience.wait()
    data = PyBytes_FromStringAndSize(NULL, bufsize)
    n = receive(patience, PyBytes_AS_STRING(data), bufsize, 0)
    return data if n == bufsize else data[:n]


def patch(offload):
    """Put them in the place of the methods of _socket.socket, for goroutines. Once."""
    global in_thread, recv_, recv_into_, send_, sendall_
    methods = vars(_socket.socket)
    in_thread = offload
    recv_ = hook(methods["recv"], _recv)
    recv_into_ = hook(methods["recv_into"], _recv_into)
    send_ = hook(methods["send"], _send)
    sendall_ = hook(methods["sendall"], _sendall)
