# cython: language_level=3, boundscheck=False, wraparound=False
"""Waiting for a descriptor of which nothing is known but its number, in a goroutine. For goloop.monkey.

The first waiter makes a PollDesc for it, others share that, and the last one closes it. So nothing is left
registered with a loop under a number that is another file's tomorrow. A close of the descriptor wakes the
waiters: socket.close(), socket.detach() and os.close() say so first. Guard of the table: the GIL.
"""

import _socket
import os

from libc.errno cimport EBADF

from goloop.core.patch.hook cimport install
from goloop.core.net.polldesc cimport Direction, PollDesc
from goloop.core.system.posix cimport now_s

from goloop.errors import ClosedError


cdef class Shared:
    cdef PollDesc desc
    cdef Py_ssize_t users         # goroutines that wait through it


cdef dict table = {}                  # descriptor: Shared
cdef Py_ssize_t used = 0              # entries in there; 0: a close has no waiter to wake

cdef object close_ = None             # what the functions did before
cdef object sock_close_ = None
cdef object sock_detach_ = None
cdef object fileno = vars(_socket.socket)["fileno"]


cdef Shared enter(int fd):
    global used
    cdef Shared shared = Shared.__new__(Shared)
    shared.desc = PollDesc(fd)
    if fd in table:                   # since making one
        shared.desc.close()
        shared = <Shared>table[fd]
    else:
        table[fd] = shared
        used += 1
    return shared


cdef int leave(int fd, Shared shared) except -1:
    global used
    shared.users -= 1
    if shared.users == 0:
        shared.desc.close()
        if table.get(fd) is shared:
            del table[fd]
            used -= 1
    return 0


cdef bint wait_fd(int fd, bint write, double until) except -1:
    """Park until the descriptor can be read (written); False: the time is over. OSError if it is closed."""
    cdef Shared shared = <Shared>table.get(fd)
    if shared is None:
        shared = enter(fd)
    shared.users += 1
    try:
        shared.desc.wait_for(
            shared.desc.writing if write else shared.desc.reading, -1 if until == 0 else max(0.0, until - now_s()))
    except TimeoutError:
        return False
    except ClosedError:
        raise OSError(EBADF, "Bad file descriptor") from None
    finally:
        leave(fd, shared)
    return True


cdef bint wait_after_eagain(int fd, bint write, double until) except -1:
    """As wait_fd(), right after the system has said that nothing can be done now, and for the caller to try again."""
    cdef Shared shared
    cdef Direction side
    if fd in table:
        return wait_fd(fd, write, until)          # an edge since then may be gone already
    shared = enter(fd)
    if shared.users:
        return wait_fd(fd, write, until)
    shared.users += 1
    try:
        side = shared.desc.writing if write else shared.desc.reading
        side.ready = False                        # what can be done by now is an edge to come: it registers only here
        shared.desc.park(side, until)
    except ClosedError:
        raise OSError(EBADF, "Bad file descriptor") from None
    finally:
        leave(fd, shared)
    return until == 0 or now_s() < until


def wait(fd, write=False, timeout=None):
    """Park the goroutine until the descriptor can be read, or written.

    timeout: seconds; returns False when it is over, else True. OSError if it is no descriptor, or is closed meanwhile.
    """
    return wait_fd(fd, write, 0 if timeout is None else now_s() + <double>timeout)


def wait_again(fd, write=False, timeout=None):
    """As wait(), where the caller has just seen that there is nothing to do: it saves a look, and may end early."""
    return wait_after_eagain(fd, write, 0 if timeout is None else now_s() + <double>timeout)


# ----------------------------------------------------------------------- closing
cdef int wake(int fd) except -1:
    """The descriptor is about to be closed, or to lose its socket object."""
    global used
    cdef Shared shared = <Shared>table.pop(fd, None)
    if shared is not None:
        used -= 1
        shared.desc.close()
    return 0


def _close(*args, **kwargs):
    fd = args[0] if args else kwargs.get("fd")
    if isinstance(fd, int):
        wake(fd)
    return close_(*args, **kwargs)


def _sock_close(sock):
    wake(fileno(sock))
    return sock_close_(sock)


def _sock_detach(sock):
    wake(fileno(sock))
    return sock_detach_(sock)


def let_go(sock):
    """Detach a socket object from a descriptor that another one has as well: no waiter is woken."""
    sock_detach_(sock)


cdef int _if_used() noexcept:
    return used > 0


def patch():
    """Let every close of a descriptor wake the goroutines that wait for it. Again: nothing happens."""
    global close_, sock_close_, sock_detach_
    if close_ is None:
        close_ = install(os.close, _close, _if_used)
        sock_close_ = install(vars(_socket.socket)["close"], _sock_close, _if_used)
        sock_detach_ = install(vars(_socket.socket)["detach"], _sock_detach, _if_used)


def after_fork_in_child():
    # A forked child has no waiters.
    global used
    table.clear()
    used = 0
