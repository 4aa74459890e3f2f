# cython: language_level=3, boundscheck=False, wraparound=False
"""Two fields of CPython's C objects that no function gives. For goloop.monkey.

What a poll object watches, and the timeout inside of a socket object, which a TLS connection looks at. Where the
second one is is found out, by find_timeout(), from a socket of known content; the first one was looked up in the
sources of 3.11 to 3.15, and newer versions are not asked.
"""

import _socket
import select

from cpython.dict cimport PyDict_CheckExact
from libc.stdint cimport int64_t
from libc.string cimport memcpy

cdef extern from "../system/native/known_python.h":
    bint GL_PYTHON_KNOWN

cdef enum:
    HEAD = 16                         # a count and a type
    MOST = 128                        # how far to look, in bytes

cdef Py_ssize_t timeout_at = 0        # offset in a socket object of its timeout in ns


cdef int64_t load(object o, Py_ssize_t offset) noexcept:
    cdef int64_t value
    memcpy(&value, <char *><void *>o + offset, sizeof(value))
    return value


cdef object words(object o):
    return range(HEAD, min(MOST, <Py_ssize_t>type(o).__basicsize__) - 7, 8)


def known_python():
    """Return whether goloop's knowledge of CPython's insides was checked with this version."""
    return GL_PYTHON_KNOWN


def find_timeout():
    """Find out where swap_timeout() finds it."""
    global timeout_at
    sock = _socket.socket()
    try:
        found = set(words(sock))
        for seconds in (1234567, 7654321):        # nothing else in there looks like these
            sock.settimeout(seconds)
            found = {offset for offset in found if load(sock, offset) == seconds * 1000000000}
    finally:
        sock.close()
    if len(found) != 1:
        raise SystemError("cannot patch: the socket objects of this Python have no timeout that can be found")
    timeout_at = found.pop()


cdef int64_t swap_timeout(object sock, int64_t ns) except? -2:
    """Set the timeout inside of a socket object, in ns, -1 for none, and nothing else; returns the one before."""
    cdef int64_t before
    if timeout_at == 0 or not isinstance(sock, _socket.socket):
        raise SystemError("find_timeout() comes first, and then sockets")
    before = load(sock, timeout_at)
    memcpy(<char *><void *>sock + timeout_at, &ns, sizeof(ns))
    return before


def watched(poll):
    """Return a copy of what a poll object watches, {descriptor: mask}; None if this Python is too new to know."""
    cdef object found
    if not GL_PYTHON_KNOWN:
        return None
    if type(poll) is not _Poll:
        raise TypeError(f"a poll object is needed, got {poll!r}")
    found = <object><void *>load(poll, HEAD)      # its first field
    if not PyDict_CheckExact(found):
        raise SystemError("the poll objects of this Python do not begin with a dictionary")
    return dict(found)


_Poll = type(select.poll())
