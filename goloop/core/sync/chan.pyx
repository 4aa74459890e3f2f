# cython: language_level=3, boundscheck=False, wraparound=False, annotation_typing=False
"""Channels and select, for goroutines, coroutines and plain threads alike.

A value goes straight from a sender to a receiver that waits, else through the buffer, and always in the order of
the sends. It is handed over only to a waiter that was claimed for it (sched/waiter.pyx), so that none is lost or
delivered twice when a waiter is cancelled or times out. Semantics and fairness are Go's (runtime/chan.go, select.go).

A goroutine has its value as soon as it is claimed. A coroutine may still be cancelled before it is back, and a thread
be interrupted, so theirs stay in the channel: `owed` counts them, and a waiter that comes back takes the oldest value,
whichever that is by then. A cancelled waiter leaves it to the next receiver, and no order is broken.
"""

import types
from sys import maxsize as _maxsize

from libc.stdint cimport uint64_t

from goloop.core.sched.bubble cimport BubbleCore, core_here
from goloop.core.sched.scheduler cimport bubble_here, bubbles
from goloop.core.sched.waiter cimport (
    COMPLETED, WaitNode, WaitQueue, Waiter, async_waiter, blocking_waiter, may_block, new_wait_node,
    raise_outcome, seconds_of,
)
from goloop.core.system.posix cimport now_ns

from goloop.errors import ChannelClosed

cdef extern from "../system/native/sealed.h":
    int gl_seal(object type, const char *reason) except -1

cdef object NOTHING = object()        # receive_now(): it would have to wait
cdef object CLOSED = object()         # receive_now(): closed and drained

cdef uint64_t random_state = 0


cdef uint64_t random_below(uint64_t n) noexcept:
    """xorshift64*: where select starts to look need not be a secret."""
    global random_state
    if random_state == 0:
        random_state = <uint64_t>now_ns() | 1
    random_state ^= random_state >> 12
    random_state ^= random_state << 25
    random_state ^= random_state >> 27
    return ((random_state * 0x2545F4914F6CDD1D) >> 33) % n


cdef class Chan:
    """A channel of capacity n (Go: make(chan T, n)); without a capacity, every send waits for its receiver.

    n: how many values the buffer holds, an int; TypeError for another type, ValueError for a negative number. From any
    thread: recv() and send() park a goroutine or block a plain thread, `await async_recv()` and `await async_send()`
    are for coroutines on any loop, try_recv() and try_send() never wait. `for value in chan` and `async for` receive
    until the channel is closed and drained. len(chan) is the number of values in the buffer.

    Attributes, to be read only: cap: the capacity n (Go: cap). closed: whether close() was called (bool).
    """

    __class_getitem__ = classmethod(types.GenericAlias)

    def __cinit__(self, n=0):
        if not isinstance(n, int):
            raise TypeError(f"a channel's capacity is an int, got {n!r}")
        if n < 0:
            raise ValueError(f"a channel's capacity cannot be negative, got {n}")
        if n > _maxsize:
            raise ValueError(f"a channel's capacity is at most {_maxsize}, got {n}")
        self.cap = n
        self.ring = []
        self.receivers = WaitQueue()
        self.senders = WaitQueue()
        if bubbles:
            self.bubble = bubble_here()

    def __len__(self):
        return self.count - self.owed

    def __bool__(self):
        return True

    def __repr__(self):
        state = "closed, " if self.closed else ""
        waiting = f", {self.receivers.count} receiving, {self.senders.count} sending"
        return f"<Chan {state}{len(self)} of {self.cap}{waiting}>"

    # --------------------------------------------------------------- the state
    cdef int check_edge(self) except -1:
        """RuntimeError for a channel of another bubble, or of none. To be called while there are bubbles."""
        if self.bubble is not bubble_here() and self.bubble is not ...:
            raise RuntimeError(
                "a channel that was made outside of this bubble is used in it: make it inside"
                if bubble_here() is not None else
                "a channel that was made in a bubble is used outside of it"
            )
        return 0

    cdef int append(self, object value) except -1:
        while self.count == len(self.ring):
            self.grow()
        self.ring[(self.head + self.count) & (len(self.ring) - 1)] = value
        self.count += 1
        return 0

    cdef int grow(self) except -1:
        cdef list old = self.ring
        cdef list fresh = [None] * max(8, 2 * len(old))
        cdef Py_ssize_t i
        if self.ring is old:              # else: the collector ran, a finalizer sent something, and that grew it
            for i in range(self.count):
                fresh[i] = old[(self.head + i) & (len(old) - 1)]
            self.ring = fresh
            self.head = 0
        return 0

    cdef object pop(self):
        cdef object value = self.ring[self.head]
        self.ring[self.head] = None
        self.head = (self.head + 1) & (len(self.ring) - 1)
        self.count -= 1
        return value

    cdef bint send_now(self, object value) except -1:
        """Hand the value to a receiver or the buffer. False: it has to wait."""
        cdef WaitNode node
        if bubbles:
            self.check_edge()
        if self.closed:
            raise ChannelClosed("send on a closed channel")
        node = self.receivers.claim_first() if self.receivers.first is not None else None
        if node is not None:
            self.hand_over(node.waiter, value)
        elif self.count - self.owed < self.cap:
            self.append(value)
        else:
            return False
        return True

    cdef int hand_over(self, Waiter waiter, object value) except -1:
        """Give a claimed receiver a value; if older ones are on their way to others, give it one of those instead."""
        waiter.success = True
        if waiter.g is None:
            self.append(value)
            self.owed += 1
            if not waiter.wake():         # its loop is gone
                self.owed -= 1
                self.offer()
            return 0
        if self.count:
            self.append(value)
            value = self.pop()
        waiter.value = value
        waiter.wake()
        return 0

    cdef int offer(self) except -1:
        """Something has become available that no send brought: it may be what receivers wait for."""
        cdef WaitNode node
        cdef Waiter waiter
        while self.count > self.owed:
            node = self.receivers.claim_first()
            if node is None:
                break
            waiter = node.waiter
            waiter.success = True
            if waiter.g is not None:
                waiter.value = self.pop()
                waiter.wake()
            else:
                self.owed += 1
                if not waiter.wake():
                    self.owed -= 1
        return 0

    cdef object receive_now(self):
        """The oldest value; or NOTHING, or CLOSED."""
        cdef object value
        cdef WaitNode node
        if bubbles:
            self.check_edge()
        if self.count > self.owed:
            value = self.pop()
            while self.senders.first is not None and self.count - self.owed < self.cap:
                node = self.senders.claim_first()
                if node is None:
                    break
                self.append(node.value)
                node.waiter.success = True
                node.waiter.wake()
            return value
        node = self.senders.claim_first()
        if node is None:
            return CLOSED if self.closed and self.count == 0 else NOTHING
        value = node.value
        if self.count:
            self.append(value)
            value = self.pop()
        node.waiter.success = True
        node.waiter.wake()
        return value

    cdef object received(self, Waiter waiter):
        cdef object value
        raise_outcome(waiter.outcome, "recv")
        if not waiter.success:
            raise ChannelClosed("receive from a closed channel")
        if waiter.g is not None:
            return waiter.value
        value = self.pop()
        self.owed -= 1
        if self.closed and self.count == 0:
            self.receivers.complete_all()
        return value

    cdef int give_back(self, Waiter waiter) except -1:
        """A receiver ends its wait with an exception: what it was claimed for, if it was, is for another receiver."""
        if waiter.outcome == COMPLETED and waiter.success:
            if waiter.g is None:
                self.owed -= 1
            else:                         # its greenlet is being ended: only now does the value go back to the front
                while self.count == len(self.ring):
                    self.grow()
                self.head = (self.head - 1) & (len(self.ring) - 1)
                self.ring[self.head] = waiter.value
                self.count += 1
            self.offer()
        return 0

    cdef int sent(self, Waiter waiter) except -1:
        raise_outcome(waiter.outcome, "send")
        if not waiter.success:
            raise ChannelClosed("send on a closed channel")
        return 0

    # ------------------------------------------------------------- the methods
    def close(self) -> None:
        """Close the channel (Go: close). From any thread, goroutine or coroutine: it does not wait.

        Values in the buffer can still be received. Sends raise ChannelClosed from now on, also those that wait.
        ChannelClosed if the channel is closed already.
        """
        if bubbles:
            self.check_edge()
        if self.closed:
            raise ChannelClosed("close of a closed channel")
        self.closed = True
        if self.count == 0:                # else they wait for values that others may give back; see received()
            self.receivers.complete_all()  # waiter.success stays False
        self.senders.complete_all()

    def try_send(self, value: Any) -> bool:
        """Send a value if that needs no waiting (Go: select with a default).

        From any thread, goroutine or coroutine. value: any object. Returns whether it was sent; ChannelClosed on a
        closed channel.
        """
        return self.send_now(value)

    def try_recv(self) -> tuple[Any | None, bool]:
        """Receive a value if that needs no waiting (Go: select with a default).

        From any thread, goroutine or coroutine. Returns (value, True), or (None, False) when it would have to wait;
        ChannelClosed when the channel is closed and drained.
        """
        value = self.receive_now()
        if value is CLOSED:
            raise ChannelClosed("receive from a closed channel")
        return (None, False) if value is NOTHING else (value, True)

    def send(self, value: Any, timeout: float | None = None) -> None:
        """Send a value, waiting for a receiver or for room in the buffer (Go: ch <- v).

        value: any object. timeout: seconds, None for no end; TimeoutError when it is over, and nothing was sent.
        ChannelClosed on a closed channel, also when it is closed during the wait. Parks a goroutine, which raises
        asyncio.CancelledError when it is cancelled; blocks a plain thread. RuntimeError on the thread of a running loop
        outside of a goroutine: `await async_send()` there.
        """
        cdef double seconds = seconds_of(timeout)
        cdef Waiter waiter
        cdef WaitNode node
        may_block("Chan.send()", "await Chan.async_send()")
        if self.send_now(value):
            return
        waiter = blocking_waiter("Chan.send()", "await Chan.async_send()")
        node = new_wait_node(waiter, 0, value)
        if self.send_now(value):
            return
        waiter.gives_back_on_cancel = True
        waiter.on = self
        self.senders.join(node)
        try:
            waiter.block("chan send", seconds)
        finally:
            node.unlink()
        self.sent(waiter)

    def recv(self, timeout: float | None = None) -> Any:
        """Receive the next value, waiting for it (Go: <-ch).

        timeout: seconds, None for no end; TimeoutError when it is over. ChannelClosed when the channel is closed and
        drained. Parks a goroutine, which raises asyncio.CancelledError when it is cancelled; blocks a plain thread.
        RuntimeError on the thread of a running loop outside of a goroutine: `await async_recv()` there.
        """
        cdef double seconds = seconds_of(timeout)
        cdef Waiter waiter
        cdef WaitNode node
        may_block("Chan.recv()", "await Chan.async_recv()")
        value = self.receive_now()
        if value is NOTHING:
            waiter = blocking_waiter("Chan.recv()", "await Chan.async_recv()")
            node = new_wait_node(waiter, 0, None)
            value = self.receive_now()
            if value is NOTHING:
                waiter.gives_back_on_cancel = True
                waiter.on = self
                self.receivers.join(node)
                try:
                    waiter.block("chan receive", seconds)
                except BaseException:
                    self.give_back(waiter)
                    raise
                finally:
                    node.unlink()
                return self.received(waiter)
        if value is CLOSED:
            raise ChannelClosed("receive from a closed channel")
        return value

    async def async_send(self, value: Any, timeout: float | None = None) -> None:
        """Send a value, waiting in a coroutine on any loop for a receiver or for room in the buffer (Go: ch <- v).

        value: any object. timeout: seconds, None for no end; TimeoutError when it is over, and nothing was sent.
        ChannelClosed on a closed channel, also when it is closed during the wait. A coroutine that is cancelled just
        when its value has been received raises CancelledError all the same, as asyncio has it.
        """
        cdef double seconds = seconds_of(timeout)
        cdef Waiter waiter
        cdef WaitNode node
        if self.send_now(value):
            return
        waiter = async_waiter("chan send", self)
        node = new_wait_node(waiter, 0, value)
        if self.send_now(value):
            return
        waiter.gives_back_on_cancel = True
        self.senders.join(node)
        try:
            await waiter.suspend(seconds)
        finally:
            node.unlink()
        self.sent(waiter)

    async def async_recv(self, timeout: float | None = None) -> Any:
        """Receive the next value, waiting for it in a coroutine on any loop (Go: <-ch).

        timeout: seconds, None for no end; TimeoutError when it is over. ChannelClosed when the channel is closed and
        drained. A coroutine that is cancelled leaves its value to the next receiver.
        """
        cdef double seconds = seconds_of(timeout)
        cdef Waiter waiter
        cdef WaitNode node
        value = self.receive_now()
        if value is NOTHING:
            waiter = async_waiter("chan receive", self)
            node = new_wait_node(waiter, 0, None)
            value = self.receive_now()
            if value is NOTHING:
                waiter.gives_back_on_cancel = True
                self.receivers.join(node)
                try:
                    await waiter.suspend(seconds)
                except BaseException:
                    self.give_back(waiter)
                    raise
                finally:
                    node.unlink()
                return self.received(waiter)
        if value is CLOSED:
            raise ChannelClosed("receive from a closed channel")
        return value

    def __iter__(self):
        return self

    def __next__(self):
        try:
            return self.recv()
        except ChannelClosed:
            raise StopIteration from None

    def __aiter__(self):
        return self

    async def __anext__(self):
        try:
            return await self.async_recv()
        except ChannelClosed:
            raise StopAsyncIteration from None


def use_anywhere(Chan chan not None):
    """Let a channel be used in every bubble and outside."""
    chan.bubble = ...


def check_edge(Chan chan not None):
    """RuntimeError if a use of the channel crosses the edge of a bubble."""
    if bubbles:
        chan.check_edge()


# ------------------------------------------------------------------------ select
cdef class Case:
    """A case of select() and async_select(); made by recv() and send()."""

    def __repr__(self):
        return f"send({self.chan!r}, {self.value!r})" if self.sends else f"recv({self.chan!r})"

    cdef bint ready(self):
        cdef Chan chan = self.chan
        if self.sends:
            return chan.closed or chan.count - chan.owed < chan.cap or chan.receivers.waiting()
        return chan.count > chan.owed or (chan.closed and chan.count == 0) or chan.senders.waiting()

    cdef object perform(self, Py_ssize_t index):
        """Do what is ready; the result of select(). None: it is not ready after all."""
        cdef object value
        if self.sends:
            return (index, None, True) if self.chan.send_now(self.value) else None
        value = self.chan.receive_now()
        if value is NOTHING:
            return None
        return (index, None, False) if value is CLOSED else (index, value, True)


gl_seal(Case, b"cases are made by goloop.recv(chan) and goloop.send(chan, value)")


cdef Case new_case(object chan, bint sends, object value):
    cdef Case case
    if not isinstance(chan, Chan):
        raise TypeError(f"a Chan is needed, got {chan!r}")
    case = Case.__new__(Case)
    case.chan = chan
    case.sends = sends
    case.value = value
    return case


def recv(chan: RecvChan[Any]) -> Case:
    """Return a case of select(): receive from a channel (Go: case v := <-ch). From any thread, goroutine or coroutine.

    chan: a Chan; TypeError for anything else. Nothing is received here, and a case may be used again.
    """
    return new_case(chan, False, None)


def send(chan: SendChan[Any], value: Any) -> Case:
    """Return a case of select(): send a value on a channel (Go: case ch <- v). From any thread, goroutine or coroutine.

    chan: a Chan; TypeError for anything else. value: any object. Nothing is sent here, and a case may be used again.
    """
    return new_case(chan, True, value)


cdef int check_cases(tuple cases) except -1:
    for case in cases:
        if case is not None and not isinstance(case, Case):
            raise TypeError(f"select() takes recv(chan), send(chan, value) or None, got {case!r}")
        if bubbles and case is not None:
            (<Case>case).chan.check_edge()
    return 0


cdef object try_cases(tuple cases):
    """Perform one of the cases that are ready, each with the same chance; None: none is."""
    cdef Py_ssize_t i, ready, chosen
    cdef object result = None
    if bubbles and core_here() is not None:
        return draw_case(cases)
    while result is None:
        ready = 0
        chosen = -1
        for i in range(len(cases)):
            if cases[i] is not None and (<Case>cases[i]).ready():
                ready += 1
                if random_below(ready) == 0:
                    chosen = i
        if chosen < 0:
            break
        result = (<Case>cases[chosen]).perform(chosen)
    return result


cdef object draw_case(tuple cases):
    """try_cases() in a bubble."""
    cdef Py_ssize_t i
    cdef list ready
    cdef BubbleCore core = core_here()
    cdef object result = None
    while result is None:
        ready = [i for i in range(len(cases)) if cases[i] is not None and (<Case>cases[i]).ready()]
        if not ready:
            break
        i = ready[core.choices.choose(len(ready))]
        result = (<Case>cases[i]).perform(i)
    return result


cdef list nodes_for(tuple cases, Waiter waiter):
    cdef Py_ssize_t i
    return [None if cases[i] is None else new_wait_node(waiter, i, (<Case>cases[i]).value) for i in range(len(cases))]


cdef int join_all(tuple cases, list nodes) except -1:
    cdef Case case
    cdef Py_ssize_t i
    for i in range(len(cases)):
        if cases[i] is not None:
            case = <Case>cases[i]
            (case.chan.senders if case.sends else case.chan.receivers).join(<WaitNode>nodes[i])
    return 0


cdef int give_back(tuple cases, Waiter waiter) except -1:
    """A select ends with an exception: as Chan.give_back()."""
    cdef Case case
    if waiter.outcome == COMPLETED:
        case = <Case>cases[waiter.index]
        if not case.sends:
            case.chan.give_back(waiter)
    return 0


cdef int leave_all(list nodes) except -1:
    for node in nodes:
        if node is not None:
            (<WaitNode>node).unlink()
    return 0


cdef object selected(tuple cases, Waiter waiter):
    raise_outcome(waiter.outcome, "select")
    cdef Case case = <Case>cases[waiter.index]
    if case.sends:
        case.chan.sent(waiter)
        return waiter.index, None, True
    if not waiter.success:
        return waiter.index, None, False
    return waiter.index, case.chan.received(waiter), True


def select(*cases: Case | None, default: bool = False, timeout: float | None = None) -> tuple[int, Any, bool]:
    """Wait until one of several channel operations can go on, and do it (Go: select).

    cases: recv(chan), send(chan, value), or None, which never is ready; TypeError for anything else. Among several that
    are ready each has the same chance. Returns (index, value, ok): ok is False for a receive from a closed channel.
    default: when nothing is ready, return (-1, None, False) instead of waiting. timeout: seconds, None for no end;
    TimeoutError when it is over. ChannelClosed if the chosen case is a send on a closed channel. Parks a goroutine,
    which raises asyncio.CancelledError when it is cancelled; blocks a plain thread. RuntimeError on the thread of a
    running loop outside of a goroutine, unless `default` is true: `await async_select()` there.
    """
    cdef double seconds = seconds_of(timeout)
    cdef Waiter waiter
    cdef list nodes
    check_cases(cases)
    if not default:
        may_block("select()", "await async_select()")
    found = try_cases(cases)
    if found is not None:
        return found
    if default:
        return -1, None, False
    waiter = blocking_waiter("select()", "await async_select()")
    nodes = nodes_for(cases, waiter)
    found = try_cases(cases)
    if found is not None:
        return found
    waiter.gives_back_on_cancel = True
    waiter.on = cases
    join_all(cases, nodes)
    try:
        waiter.block("select", seconds)
    except BaseException:
        give_back(cases, waiter)
        raise
    finally:
        leave_all(nodes)
    return selected(cases, waiter)


async def async_select(
    *cases: Case | None, default: bool = False, timeout: float | None = None
) -> tuple[int, Any, bool]:
    """Wait in a coroutine, on any loop, until one of several channel operations can go on, and do it (Go: select).

    cases: recv(chan), send(chan, value), or None, which never is ready; TypeError for anything else. Among several that
    are ready each has the same chance. Returns (index, value, ok): ok is False for a receive from a closed channel.
    default: when nothing is ready, return (-1, None, False) instead of waiting. timeout: seconds, None for no end;
    TimeoutError when it is over. ChannelClosed if the chosen case is a send on a closed channel. A coroutine that is
    cancelled leaves a value that it would have received to the next receiver.
    """
    cdef double seconds = seconds_of(timeout)
    cdef Waiter waiter
    cdef list nodes
    check_cases(cases)
    found = try_cases(cases)
    if found is not None:
        return found
    if default:
        return -1, None, False
    waiter = async_waiter("select", cases)
    nodes = nodes_for(cases, waiter)
    found = try_cases(cases)
    if found is not None:
        return found
    waiter.gives_back_on_cancel = True
    join_all(cases, nodes)
    try:
        await waiter.suspend(seconds)
    except BaseException:
        give_back(cases, waiter)
        raise
    finally:
        leave_all(nodes)
    return selected(cases, waiter)
