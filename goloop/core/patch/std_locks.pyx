# cython: language_level=3, boundscheck=False, wraparound=False
"""The standard library's locks and its SimpleQueue, for goroutines: waiting for one parks. For goloop.monkey.

A lock stays what it is, and so it works between goroutines and plain threads: a goroutine tries it without waiting,
and as long as it is taken the goroutine stands in a queue that belongs to the lock's address; every release
of a lock looks there. A released lock goes to the first thread or goroutine that tries, but a goroutine that has lost
it that way once is handed it at the next release, still locked.

An RLock knows its owner by the thread, which goroutines share. So its owner among them stands in a table here,
and the thread owns the RLock underneath. Code that runs on a worker's thread outside of goroutines (callbacks of its
loop, coroutines) counts as the thread, as it does without goroutines: it enters an RLock that its thread owns.

Guard of all tables: the GIL; nothing gives it up between the last try and standing in the queue.
"""

import _queue
import _thread
import sys
from asyncio import CancelledError

from libc.stdint cimport uintptr_t

from goloop.core.patch.hook cimport cooperative, install
from goloop.core.loop.loop_core cimport LoopCore
from goloop.core.sched.bubble cimport claim_drawn
from goloop.core.sched.scheduler cimport G, bubbles, current_g
from goloop.core.sched.waiter cimport CANCELLED, TIMED_OUT, WaitNode, WaitQueue, Waiter, blocking_waiter, new_wait_node

cdef extern from "Python.h":
    Py_ssize_t Py_REFCNT(object o)

cdef enum:
    STARVING = 1  # a WaitNode's index: what it waits for was snatched away once

cdef double TIMEOUT_MAX = _thread.TIMEOUT_MAX
cdef bint ANY_TRUTH = sys.hexversion >= 0x030D0000      # acquire(blocking=...) takes any object

cdef dict queues = {}                 # address of a lock or SimpleQueue: WaitQueue of the goroutines that wait there
cdef Py_ssize_t waiting = 0           # goroutines in all of them; 0: a release has no waiter to look for


cdef WaitQueue queue_of(uintptr_t address):
    return <WaitQueue>queues.get(address) if waiting else None


cdef int stand(uintptr_t address, WaitNode node, WaitQueue fresh) except -1:
    """Queue up; a waiter that lost the lock once, in front. Makes no object that could start the garbage collector."""
    global waiting
    cdef WaitQueue places = <WaitQueue>queues.get(address)
    if places is None:
        places = queues[address] = fresh
    if node.index == STARVING and places.first is not None:
        node.queue = places
        node.after = places.first
        places.first.before = node
        places.first = node
        places.count += 1
    else:
        places.join(node)
    waiting += 1
    return 0


cdef int leave(uintptr_t address, WaitNode node) except -1:
    global waiting
    cdef WaitQueue places
    node.unlink()
    waiting -= 1
    places = <WaitQueue>queues.get(address)
    if places is not None and places.count == 0:
        del queues[address]
    return 0


cdef int wake_first(uintptr_t address) except -1:
    """Let the goroutine that has waited longest try again; in a bubble any one: the standard library says nothing."""
    cdef WaitQueue places = queue_of(address)
    cdef WaitNode node
    if places is not None:
        node = claim_drawn(places) if bubbles else places.claim_first()
        if node is not None:
            node.waiter.wake()
    return 0


cdef class Source:
    """A thing to wait for: tried, and if there is nothing, waited for at an address."""

    cdef bint acquire_if_free(self, object target) except -1:
        raise SystemError("Source.acquire_if_free() is abstract")

    cdef bint wait(self, object target, double timeout, str reason, bint cancellable) except -1:
        """Take it, parking until that works; False: the time is over."""
        cdef uintptr_t address = <uintptr_t><void *>target
        cdef LoopCore loop
        cdef Waiter waiter
        cdef WaitNode node
        cdef WaitQueue fresh
        cdef Py_ssize_t index = 0
        cdef double until = -1
        if self.acquire_if_free(target):
            return True
        loop = current_g().worker.loop
        if timeout >= 0:
            until = loop.now() + timeout
        while True:
            waiter = blocking_waiter("acquire()", "something asynchronous")
            node = new_wait_node(waiter, index, None)
            fresh = WaitQueue.__new__(WaitQueue)
            if self.acquire_if_free(target):  # making the three may have let others run
                return True
            waiter.on = target
            stand(address, node, fresh)
            try:
                waiter.block(reason, -1 if until < 0 else max(0.0, until - loop.now()), cancellable)
            finally:
                leave(address, node)
            if waiter.success:  # handed over
                return True
            if waiter.outcome == CANCELLED:
                raise CancelledError()
            if self.acquire_if_free(target):
                return True
            if waiter.outcome == TIMED_OUT:
                return False
            index = STARVING


# -------------------------------------------------------------------------- Lock
cdef object acquire_ = None           # what the methods did before they were hooked
cdef object release_ = None


cdef class LockSource(Source):
    cdef bint acquire_if_free(self, object target) except -1:
        return acquire_(target, False)


cdef LockSource lock_source = LockSource.__new__(LockSource)


cdef double seconds_to_wait(object blocking, object timeout) except -3:
    """How long an acquire() may wait, -1: for ever; -2 if it does not wait, or the arguments are wrong."""
    cdef double seconds
    if blocking is True and timeout == -1:
        return -1
    if not (isinstance(blocking, int) or ANY_TRUTH) or not blocking or not isinstance(timeout, (int, float)):
        return -2
    seconds = timeout
    return seconds if seconds == -1 or 0 < seconds <= TIMEOUT_MAX else -2


def _lock_acquire(lock, blocking=True, timeout=-1):
    cdef double seconds = seconds_to_wait(blocking, timeout)
    if seconds == -2:
        return acquire_(lock, blocking, timeout)
    return lock_source.wait(lock, seconds, "lock", True)


def _lock_enter(lock):
    return lock_source.wait(lock, -1, "lock", True)


cdef int lock_release(object lock) except -1:
    cdef WaitQueue places = queue_of(<uintptr_t><void *>lock)
    cdef WaitNode node
    if places is not None and places.waiting() and places.first.index == STARVING and lock.locked():
        node = places.claim_first()
        node.waiter.success = True
        node.waiter.wake()
    else:
        release_(lock)
        wake_first(<uintptr_t><void *>lock)
    return 0


def _lock_release(lock):
    lock_release(lock)


def _lock_exit(lock, *exc):
    lock_release(lock)


def acquire_shielded(lock):
    """Acquire a Lock or RLock as long as that takes, whatever cancels the goroutine meanwhile."""
    if cooperative():
        if isinstance(lock, _thread.LockType):
            lock_source.wait(lock, -1, "lock", False)
            return
        if isinstance(lock, _thread.RLock):
            rlock_acquire(lock, -1, False)
            return
    lock.acquire()


# ------------------------------------------------------------------------- RLock
cdef object racquire_ = None
cdef object rrelease_ = None
cdef object is_owned_ = None
cdef object recursion_count_ = None
cdef object release_save_ = None
cdef object acquire_restore_ = None


cdef class RLockOwner:
    cdef G g
    cdef Py_ssize_t count
    cdef object lock              # so that no other comes to stand at its address


cdef dict owners = {}                 # address of an RLock: the goroutine that owns it
cdef Py_ssize_t sweep_at = 64         # RLocks given up while owned stay in the table: look for them at that size


cdef int sweep() except -1:
    global sweep_at
    cdef RLockOwner owner
    for address, owner in list(owners.items()):
        if Py_REFCNT(owner.lock) <= 2:            # the table's and this line's
            del owners[address]
    sweep_at = max(64, 2 * len(owners))
    return 0


cdef class RLockSource(Source):
    cdef bint acquire_if_free(self, object target) except -1:
        cdef RLockOwner owner
        cdef uintptr_t address = <uintptr_t><void *>target
        if address in owners:
            return False
        if not racquire_(target, False):
            return False
        if len(owners) >= sweep_at:
            sweep()
        owner = RLockOwner.__new__(RLockOwner)
        owner.g = current_g()
        owner.count = 1
        owner.lock = target
        owners[address] = owner
        return True


cdef RLockSource rlock_source = RLockSource.__new__(RLockSource)


cdef RLockOwner mine(object lock):
    """The entry of the RLock if this goroutine owns it."""
    cdef RLockOwner owner = <RLockOwner>owners.get(<uintptr_t><void *>lock)
    return owner if owner is not None and owner.g is current_g() else None


cdef bint rlock_acquire(object lock, double timeout, bint cancellable) except -1:
    cdef RLockOwner owner = mine(lock)
    if owner is not None:
        racquire_(lock)
        owner.count += 1
        return True
    return rlock_source.wait(lock, timeout, "lock", cancellable)


def _rlock_acquire(lock, blocking=True, timeout=-1):
    cdef double seconds = seconds_to_wait(blocking, timeout)
    if seconds != -2:
        return rlock_acquire(lock, seconds, True)
    # It does not wait, or the arguments are wrong; the thread may own it for another goroutine.
    if not racquire_(lock, blocking, timeout):
        return False
    rrelease_(lock)
    return mine(lock) is not None and rlock_acquire(lock, -1, True) or rlock_source.acquire_if_free(lock)


def _rlock_enter(lock):
    return rlock_acquire(lock, -1, True)


cdef int rlock_release(object lock) except -1:
    cdef uintptr_t address = <uintptr_t><void *>lock
    cdef RLockOwner owner
    if not cooperative():                         # a plain thread, while goroutines wait somewhere
        rrelease_(lock)
        wake_first(address)
        return 0
    owner = <RLockOwner>owners.get(address)
    if owner is None:                             # taken before it was hooked, or not at all
        rrelease_(lock)
    elif owner.g is not current_g():
        raise RuntimeError("cannot release un-acquired lock")
    else:
        owner.count -= 1
        if owner.count == 0:
            del owners[address]
        rrelease_(lock)
        if owner.count:
            return 0
    wake_first(address)
    return 0


def _rlock_release(lock):
    rlock_release(lock)


def _rlock_exit(lock, *exc):
    rlock_release(lock)


def _rlock_is_owned(lock):
    cdef RLockOwner owner = <RLockOwner>owners.get(<uintptr_t><void *>lock)
    return is_owned_(lock) if owner is None else owner.g is current_g()


def _rlock_recursion_count(lock):
    cdef RLockOwner owner = <RLockOwner>owners.get(<uintptr_t><void *>lock)
    if owner is None:
        return recursion_count_(lock)
    return owner.count if owner.g is current_g() else 0


def _rlock_release_save(lock):
    cdef uintptr_t address = <uintptr_t><void *>lock
    cdef RLockOwner owner
    if cooperative():
        owner = <RLockOwner>owners.get(address)
        if owner is not None:
            if owner.g is not current_g():
                raise RuntimeError("cannot release un-acquired lock")
            del owners[address]
    state = release_save_(lock)
    wake_first(address)
    return state


def _rlock_acquire_restore(lock, state):
    cdef Py_ssize_t count = state[0]
    rlock_acquire(lock, -1, False)
    cdef RLockOwner owner = mine(lock)
    for _ in range(1, count):
        racquire_(lock)
    owner.count = count


# ------------------------------------------------------------------- SimpleQueue
cdef object get_ = None
cdef object put_ = None
cdef object put_nowait_ = None
cdef object empty = vars(_queue.SimpleQueue)["empty"]
cdef object Empty = _queue.Empty


cdef class QueueSource(Source):
    cdef object item

    cdef bint acquire_if_free(self, object target) except -1:
        if empty(target):                         # rather than by get_(), whose exception is an object
            return False
        self.item = get_(target, False)
        return True


def _queue_get(queue, block=True, timeout=None):
    cdef QueueSource source
    cdef double seconds = -1
    if timeout is not None:
        seconds = timeout if isinstance(timeout, (int, float)) else -1
        if not 0 < seconds <= TIMEOUT_MAX:
            return get_(queue, block, timeout)    # it does not wait, or the timeout is wrong
    if not block:
        return get_(queue, False)
    source = QueueSource.__new__(QueueSource)
    if not source.wait(queue, seconds, "queue get", True):
        raise Empty
    return source.item


def _queue_put(queue, *args, **kwargs):
    put_(queue, *args, **kwargs)
    wake_first(<uintptr_t><void *>queue)


def _queue_put_nowait(queue, *args, **kwargs):
    put_nowait_(queue, *args, **kwargs)
    wake_first(<uintptr_t><void *>queue)


# ----------------------------------------------------------------------- hooking
cdef int _if_cooperative() noexcept:
    return cooperative()


cdef int _if_waited_for() noexcept:
    return waiting > 0


cdef int _if_either() noexcept:
    return waiting > 0 or cooperative()


def patch_locks():
    """Let goroutines park where they wait for a Lock or an RLock. Once."""
    global acquire_, release_, racquire_, rrelease_, is_owned_, recursion_count_, release_save_, acquire_restore_
    lock = vars(_thread.LockType)
    acquire_ = install(lock["acquire"], _lock_acquire, _if_cooperative)
    install(lock["acquire_lock"], _lock_acquire, _if_cooperative)
    install(lock["__enter__"], _lock_enter, _if_cooperative)
    release_ = install(lock["release"], _lock_release, _if_waited_for)
    install(lock["release_lock"], _lock_release, _if_waited_for)
    install(lock["__exit__"], _lock_exit, _if_waited_for)
    rlock = vars(_thread.RLock)
    racquire_ = install(rlock["acquire"], _rlock_acquire, _if_cooperative)
    install(rlock["__enter__"], _rlock_enter, _if_cooperative)
    rrelease_ = install(rlock["release"], _rlock_release, _if_either)
    install(rlock["__exit__"], _rlock_exit, _if_either)
    is_owned_ = install(rlock["_is_owned"], _rlock_is_owned, _if_cooperative)
    if "_recursion_count" in rlock:               # 3.11.5, 3.12
        recursion_count_ = install(rlock["_recursion_count"], _rlock_recursion_count, _if_cooperative)
    release_save_ = install(rlock["_release_save"], _rlock_release_save, _if_either)
    acquire_restore_ = install(rlock["_acquire_restore"], _rlock_acquire_restore, _if_cooperative)


def patch_simple_queue():
    """Let goroutines park in SimpleQueue.get(). Once."""
    global get_, put_, put_nowait_
    queue = vars(_queue.SimpleQueue)
    get_ = install(queue["get"], _queue_get, _if_cooperative)
    put_ = install(queue["put"], _queue_put, _if_waited_for)
    put_nowait_ = install(queue["put_nowait"], _queue_put_nowait, _if_waited_for)


def after_fork_in_child():
    """In a forked child: no goroutine waits here or owns anything, but as the thread."""
    global waiting
    queues.clear()
    owners.clear()
    waiting = 0
