# cython: language_level=3, boundscheck=False, wraparound=False
"""PollDesc: what goroutines and threads wait on for a descriptor (Go: runtime.pollDesc with poll.fdMutex).

goloop.net and goloop.monkey stand on it. A goroutine parks; a plain thread blocks in poll(2), without a loop.
HACKING.md has the protocol ("poll descriptors"): the latch, which loop it is registered with, and how it is closed.
Everything here, and the tables of a poll set, is guarded by the GIL: no look and the change it leads to have Python
code between them.
"""

import asyncio
from functools import partial

cimport cython
from cpython.exc cimport PyErr_CheckSignals
from libc.errno cimport EBADF, EINTR
from libc.math cimport isinf, isnan
from libc.stdint cimport int64_t

from goloop.core.poll.pollset cimport (
    EPOLLERR, EPOLLHUP, EPOLLOUT, EPOLLPRI, EPOLLRDHUP, fork_epoch,
)
from goloop.core.net.wake_pipe cimport WakePipe
from goloop.core.sched.bubble cimport clock_s, refuse
from goloop.core.sched.scheduler cimport G, bubble_here, bubbles, current_g, take_cancellation
from goloop.core.sched.waiter cimport (
    CANCELLED, COMPLETED, WaitNode, Waiter, blocking_waiter, may_block, new_wait_node, seconds_of,
)
from goloop.core.system.posix cimport fd_of

from goloop.errors import ClosedError, DeadlineExceeded


cdef extern from "Python.h":
    unsigned long PyThread_get_thread_ident() nogil

cdef extern from "poll.h" nogil:
    enum:
        POLLIN
        POLLOUT
        POLLNVAL
    struct pollfd:
        int fd
        short events
        short revents
    int poll(pollfd *fds, unsigned long n, int timeout)

cdef extern from *:
    """
    #include <errno.h>
    #include <poll.h>
    #include <time.h>
    #include <unistd.h>
    /* ns < 0: without an end. Returns -errno for an error. */
    static int gl_ppoll(struct pollfd *fds, unsigned long n, int64_t ns) {
        struct timespec t = {ns / 1000000000, ns % 1000000000};
        int ready = ppoll(fds, n, ns < 0 ? NULL : &t, NULL);
        return ready < 0 ? -errno : ready;
    }
    """
    int gl_ppoll(pollfd *fds, unsigned long n, int64_t ns) nogil
    int close(int fd) nogil

cdef str INSTEAD = "asyncio's streams"
cdef str REASON = "IO wait"
cdef double SLACK = 1e-9         # seconds; a loop's timer may go off that much before its time
cdef double LONGEST = 1e9        # seconds from now, some 30 years; the clock's time, since 1970, is more
cdef enum:
    STREAK = 16                  # operations that need not wait, after which the others get their turn

# PollDescs that are not closed. Guard: the GIL.
cdef Py_ssize_t live = 0


def live_polldescs():
    """How many open PollDescs there are in this process."""
    return live


def may_wait(str what, str instead="asyncio's streams"):
    """Return True in a goroutine, False in a plain thread; RuntimeError on the thread of a running loop."""
    may_block(what, instead)
    return current_g() is not None


cdef double deadline_in(object seconds) except -1:
    """When it is that many seconds from now; 0: never."""
    cdef double wanted
    try:
        wanted = seconds
    except (TypeError, OverflowError):
        raise TypeError(
            f"a deadline is a number of seconds from now, a goloop.context.Context or None, got {seconds!r}"
        ) from None
    if isnan(wanted):
        raise ValueError("a deadline cannot be NaN")
    if wanted < 0:
        raise ValueError(f"a deadline is a number of seconds from now, and not negative, got {seconds!r}")
    if isinf(wanted):
        return 0
    if wanted > LONGEST:
        raise ValueError(
            f"a deadline is a number of seconds from now, and {seconds!r} is more than 30 years: for a time of the "
            "clock subtract time.time()"
        )
    return clock_s() + wanted


cdef double earlier(double a, double b) noexcept:
    """The earlier one of two deadlines; 0: none."""
    return min(a, b) if a != 0 and b != 0 else a + b


cdef double seconds_left(double deadline) noexcept:
    """Seconds to a deadline, -1 for none."""
    return -1 if deadline == 0 else max(deadline - clock_s(), 0)


cdef object tracer = None              # of trace()


cdef object closed_error():
    return ClosedError(EBADF, "use of a closed connection or descriptor")


cdef Direction new_direction(str what):
    cdef Direction side = Direction.__new__(Direction)
    side.what = what
    side.ready = True
    side.waiting = WaitQueue()
    return side


cdef int outside_of_bubbles(int fd) except? -1:
    """The descriptor of a new socket; in a bubble it is closed, and RuntimeError raised."""
    if bubbles and bubble_here() is not None:
        with nogil:
            close(fd)
        refuse("a socket of goloop.net")
    return fd


cdef PollDesc new_polldesc(int fd, bint short_read_drains, str read_what, str write_what):
    cdef PollDesc desc = PollDesc(fd)
    desc.owned = fd
    desc.short_read_drains = short_read_drains
    desc.reading.what = read_what
    desc.writing.what = write_what
    if tracer is not None:
        tracer(fd)
    return desc


cdef PollDesc new_memory_desc(str read_what, str write_what):
    cdef PollDesc desc = PollDesc(0)
    desc.reading.what = read_what
    desc.writing.what = write_what
    desc.fd = -1
    return desc


def trace(function):
    """Call function(descriptor) for each socket that goloop.net makes or takes over, from its maker; None: no more."""
    global tracer
    tracer = function


@cython.final
cdef class Direction:
    pass


@cython.final
cdef class PollDesc(Pollable):
    """Wait for a descriptor, in goroutines and plain threads; from any thread.

    fd: a descriptor or an object with fileno(), of anything that poll(2) takes. It stays its owner's: close() wakes
    its waiters, and does not close the descriptor. Call it before the descriptor is closed, since its number
    may then soon be another file's.
    """

    def __cinit__(self, fd):
        global live
        self.closed = True            # counts as open only once it is whole
        self.fd = fd_of(fd)
        self.owned = -1
        self.reading = new_direction("wait_read()")
        self.writing = new_direction("wait_write()")
        self.prompt = True
        self.epoch = fork_epoch()
        if bubbles:
            self.bubble = bubble_here()
        self.closed = False
        live += 1

    def __dealloc__(self):
        global live
        if not self.closed:
            live -= 1

    def __repr__(self):
        state = "closed" if self.closed else f"fd={self.fd}"
        waiting = f"{self.reading.waiting.count} reading, {self.writing.waiting.count} writing"
        return f"<PollDesc {state}, {waiting}>"

    # -------------------------------------------------------------- operations
    cdef int check(self, Direction side) except -1:
        if self.closed:
            raise closed_error()
        if side.deadline != 0 and clock_s() + SLACK >= side.deadline:
            self.raise_passed(side)
        return 0

    cdef int check_edge(self) except -1:
        """RuntimeError for a use across the edge of a bubble. To be called while there are bubbles."""
        if self.bubble is not bubble_here():
            raise RuntimeError(
                "this connection was made outside of the bubble that uses it: make a net.pipe() inside"
                if self.bubble is None else "this connection was made in a bubble, and is used outside of it"
            )
        return 0

    cdef int raise_passed(self, Direction side) except -1:
        cdef object context = side.context, err
        if context is None:
            raise TimeoutError(f"{side.what}: the deadline has passed")
        # Its own alarm, on another thread, may come a moment later.
        err = context.err() or DeadlineExceeded("context deadline exceeded")
        raise type(err)(f"{side.what}: {err}") from err.__cause__

    cdef int begin(self, Direction side) except -1:
        """Take the turn for an operation, waiting for it; end() passes it on. First come, first served."""
        cdef G g = current_g()
        if bubbles:
            self.check_edge()
        if g is None:
            may_block(side.what, INSTEAD)
        elif side.streak >= STREAK:
            side.streak = 0           # a fast peer must not keep the worker, or a cancellation, waiting for ever
            if take_cancellation(g):
                raise asyncio.CancelledError()
            g.worker.yield_(g)
        side.streak += 1
        self.check(side)
        if side.held:
            self.lock_direction(side)
        side.held = True
        if self.loop_core is None:
            side.ready = True         # no loop tells of edges
        return 0

    cdef int lock_direction(self, Direction side) except -1:
        cdef Waiter waiter
        cdef WaitNode node
        while side.held:
            if self.epoch != fork_epoch():
                self.after_fork_in_child()
                continue
            waiter = blocking_waiter(side.what, INSTEAD)
            node = new_wait_node(waiter, 0, None)
            if side.lock_queue is None:
                side.lock_queue = WaitQueue()
            if not side.held:
                break
            waiter.on = self
            side.lock_queue.join(node)
            try:
                try:
                    waiter.block(REASON, seconds_left(side.deadline))
                finally:
                    node.unlink()
                if waiter.outcome == CANCELLED:
                    raise asyncio.CancelledError()
                self.check(side)
            except BaseException:
                if not waiter.claim(CANCELLED) and waiter.success:
                    self.end(side)
                raise
            if waiter.success:
                break
        return 0

    cdef int end(self, Direction side) except -1:
        cdef WaitNode node = None if side.lock_queue is None else side.lock_queue.claim_first()
        if node is None:
            side.held = False
        else:
            node.waiter.success = True
            node.waiter.wake()
        return 0

    cdef int park(self, Direction side, double until=0) except -1:
        """Nothing can be done now: wait until the operation is worth another try, or `until` (as Direction.deadline).

        Wake-ups may be spurious: another operation has ended, or a deadline was set.
        """
        cdef G g = current_g()
        self.check(side)
        self.reading.streak = self.writing.streak = 0
        if g is None:
            self.block_thread(side, until)
        else:
            self.park_goroutine(g, side, until)
        if self.closed:
            raise closed_error()
        if self.loop_core is None:
            side.ready = True
        return 0

    cdef int park_goroutine(self, G g, Direction side, double until) except -1:
        cdef Waiter waiter = blocking_waiter(side.what, INSTEAD)
        cdef WaitNode node = new_wait_node(waiter, 0, None)
        self.register_with(g.worker.loop)
        if self.unpollable or self.closed or side.ready:
            return self.check(side)   # in the meantime: what is above may run Python code
        waiter.on = self
        side.waiting.join(node)
        try:
            if side.deadline != 0 and self.loop_core is g.worker.loop:
                self.arm(side)
            else:
                until = earlier(until, side.deadline)
            waiter.block(REASON, seconds_left(until))
        finally:
            node.unlink()
        if waiter.outcome == CANCELLED:
            raise asyncio.CancelledError()
        return 0

    cdef int block_thread(self, Direction side, double until) except -1:
        cdef WakePipe wake_pipe = WakePipe()
        cdef Waiter waiter = Waiter.__new__(Waiter)
        cdef WaitNode node = new_wait_node(waiter, 0, None)
        waiter.lock = wake_pipe
        waiter.on = self
        waiter.thread = PyThread_get_thread_ident()
        self.begin_use()
        side.waiting.join(node)
        waiter.begins(REASON, seconds_left(earlier(until, side.deadline)))
        try:
            wake_pipe.become_wakeup_fd()
            self.poll_with(wake_pipe, side, seconds_left(earlier(until, side.deadline)))
        finally:
            waiter.ends()
            node.unlink()
            waiter.claim(COMPLETED)
            wake_pipe.close()
            self.end_use()
        return 0

    cdef int poll_with(self, WakePipe wake_pipe, Direction side, double seconds) except -1:
        """Sleep in poll(2) until the descriptor is ready, the waiter is woken, or the time is over."""
        cdef pollfd fds[2]
        cdef int64_t ns = -1 if seconds < 0 else <int64_t>(seconds * 1e9) + 1
        cdef int n
        if self.fd < 0 and side.ready:    # in memory: poll(2) does not tell that it became ready since the look
            ns = 0
        fds[0] = pollfd(self.fd, POLLIN if side is self.reading else POLLOUT, 0)
        fds[1] = pollfd(wake_pipe.fd, POLLIN, 0)
        with nogil:
            n = gl_ppoll(fds, 2, ns)
        if n == -EINTR or fds[1].revents:
            PyErr_CheckSignals()
        elif n < 0:
            raise OSError(-n, "poll failed")
        elif fds[0].revents:
            side.ready = True
        return 0

    cdef int wake(self, Direction side) except -1:
        """Let every waiter look again."""
        side.waiting.complete_all()
        if side.lock_queue is not None and side.lock_queue.first is not None:
            side.lock_queue.complete_all()
        return 0

    # ------------------------------------------------------- the loop's part
    cdef object run(self):
        """The loop calls it with the edges that it has collected."""
        cdef unsigned int events = self.events
        self.events = 0
        if events & (EPOLLPRI | EPOLLRDHUP | EPOLLHUP | EPOLLERR):
            self.short_read_drains = False
        try:
            if events & ~<unsigned int>EPOLLOUT:
                self.reading.ready = True
                self.reading.waiting.complete_all()
            if events & (EPOLLOUT | EPOLLHUP | EPOLLERR):
                self.writing.ready = True
                self.writing.waiting.complete_all()
        except BaseException as exc:      # collect() has more edges at hand, which must not be lost
            self.loop_core.call_exception_handler({
                "message": f"{self!r} could not wake its goroutines", "exception": exc,
            })
        return None

    cdef object loop_closed(self):
        """The loop that it was registered with is gone: waiters in other threads look for another."""
        self.loop_core = None
        self.reading.timer = self.writing.timer = None
        self.reading.ready = self.writing.ready = True
        self.reading.waiting.complete_all()
        self.writing.waiting.complete_all()
        return None

    cdef int register_with(self, LoopCore loop) except -1:
        """Register with a loop's poll set, unless a goroutine waits through another one's."""
        cdef object other
        if self.loop_core is loop or self.unpollable:
            return 0
        if self.epoch != fork_epoch():
            self.after_fork_in_child()
        if self.fd < 0:                   # in memory: its owner wakes
            return 0
        if self.loop_core is not None:
            if self.reading.waiting.first is not None or self.writing.waiting.first is not None:
                return 0
            self.unregister()
        if self.closed:
            return 0
        other = loop.pollset.owner_of(self.fd)
        if isinstance(other, PollDesc):
            (<PollDesc>other).close()     # of a descriptor that was closed without telling it
        elif other is not None:
            loop._ensure_fd_no_transport(self.fd)
        try:
            loop.attach(self.fd, self)
        except PermissionError:
            self.unpollable = True
            self.reading.ready = self.writing.ready = True
            return 0
        # If it is ready now, its edge is yet to come.
        self.loop_core = loop
        return 0

    cdef int unregister(self) except -1:
        cdef LoopCore loop_core = self.loop_core
        cdef Direction side
        self.loop_core = None
        if loop_core is not None:
            for side in (self.reading, self.writing):
                if side.timer is not None:
                    side.timer.cancel()
                    side.timer = None
            loop_core.detach(self.fd, self)
        return 0

    cdef int after_fork_in_child(self) except -1:
        """In a forked child: the waiters, and the loop that would wake them, are the parent's."""
        cdef Direction side
        self.loop_core = None
        self.uses = 0
        for side in (self.reading, self.writing):
            side.ready = True
            side.held = False
            side.lock_queue = None
            side.waiting = WaitQueue()
            side.timer = None
        self.epoch = fork_epoch()
        return 0

    # ---------------------------------------------------------------- deadlines
    # An armed timer is left alone while the deadline moves away from it, as it does with every read of a server that
    # sets one for each; going off, it looks where the deadline is by then. A waiter on another loop has its own timer.
    cdef int set_deadline(self, Direction side, object deadline) except -1:
        """Set it to so many seconds from now, or to the end of a Context; None: none. Absolute, and there until it is
        set again."""
        cdef double before = side.deadline, wanted = 0
        cdef object bind = None
        if bubbles:
            self.check_edge()
        if deadline is not None and type(deadline) is not float and type(deadline) is not int:
            bind = getattr(deadline, "_on_cancel", None)      # only a Context has that
        if bind is not None:
            wanted = deadline.deadline() or 0
        elif deadline is not None:
            wanted = deadline_in(deadline)
        if self.closed:
            raise closed_error()
        self.leave_context(side)
        side.deadline = wanted
        if bind is not None:
            side.context = deadline
            side.unbind = bind(partial(self._context_ended, side, deadline))       # called at once if it is cancelled
        if side.deadline != 0 and (before == 0 or side.deadline < before):
            self.wake(side)
        return 0

    cdef int leave_context(self, Direction side) except -1:
        cdef object unbind = side.unbind
        side.context = side.unbind = None
        if unbind is not None:
            unbind()
        return 0

    def _context_ended(self, Direction side not None, context):
        """A Context that is a deadline was cancelled. On whatever thread did that."""
        if side.context is context and not self.closed:
            side.deadline = clock_s()
            self.wake(side)

    cdef int arm(self, Direction side) except -1:
        if side.timer is not None:
            if side.timer.annex.deadline <= side.deadline:
                return 0
            side.timer.cancel()
            side.timer = None
        side.timer = self.loop_core.schedule(side.deadline, self._timer_went_off, (side,), None)
        return 0

    def _timer_went_off(self, Direction side not None):
        side.timer = None
        if side.deadline == 0 or side.waiting.first is None:
            return
        if clock_s() + SLACK >= side.deadline:
            side.waiting.complete_all()
        else:
            self.arm(side)

    # -------------------------------------------------------------------- closing
    cdef int begin_use(self) except -1:
        if self.closed:
            raise closed_error()
        self.uses += 1
        return 0

    cdef int end_use(self) except -1:
        self.uses -= 1
        if self.closed and self.uses == 0:
            self.close_owned()
        return 0

    def close(self):
        """Let every waiter fail with ClosedError, and everything tried from now on. Twice is harmless.

        Waits in goroutines and threads have not ended when this returns.
        """
        global live
        if self.closed:
            return
        if self.epoch != fork_epoch():
            self.after_fork_in_child()
        self.closed = True
        live -= 1
        self.unregister()
        self.fd = -1
        self.leave_context(self.reading)
        self.leave_context(self.writing)
        self.wake(self.reading)
        self.wake(self.writing)
        if self.uses == 0:
            self.close_owned()

    cdef int close_owned(self) except -1:
        cdef int fd = self.owned
        self.owned = -1
        if fd >= 0:
            with nogil:
                close(fd)
        return 0

    def is_closing(self):
        """Return whether it is closed: the loop asks that of the owner of a descriptor."""
        return self.closed

    # ------------------------------------------------------------- waiting only
    cdef int wait_for(self, Direction side, double seconds) except -1:
        cdef double until = 0 if seconds < 0 else clock_s() + seconds
        cdef pollfd look
        if bubbles:
            self.check_edge()
        may_block(side.what, "add_reader() or add_writer()")
        while True:
            self.check(side)
            if self.unpollable:
                return 0
            side.ready = False        # an edge that comes from here on sets it again
            look = pollfd(self.fd, POLLIN if side is self.reading else POLLOUT, 0)
            if poll(&look, 1, 0) > 0:
                side.ready = True
                if look.revents & POLLNVAL:
                    raise OSError(EBADF, "Bad file descriptor")
                return 0
            if until != 0 and clock_s() + SLACK >= until:
                raise TimeoutError(f"{side.what}: timed out")
            self.park(side, until)

    def wait_read(self, timeout=None):
        """Wait until reading would not block: there is data, the end, a connection to accept, or an error.

        timeout: seconds; TimeoutError when it is over, or the read deadline. ClosedError when it is closed, also
        meanwhile. Several may wait; all are woken. Parks a goroutine, blocks a plain thread; RuntimeError on the
        thread of a running loop. A regular file is always ready.
        """
        self.wait_for(self.reading, seconds_of(timeout))

    def wait_write(self, timeout=None):
        """As wait_read(), until writing would not block: there is room, a connection is made, or an error."""
        self.wait_for(self.writing, seconds_of(timeout))

    def set_read_deadline(self, deadline):
        """End every wait_read(), under way or to come; as Conn.set_deadline()."""
        self.set_deadline(self.reading, deadline)

    def set_write_deadline(self, deadline):
        """As set_read_deadline(), for wait_write()."""
        self.set_deadline(self.writing, deadline)


# Closed for good, and so the same for everybody: even what was made without its __init__() raises, and does not crash.
cdef PollDesc never_opened = PollDesc(0)
never_opened.close()
