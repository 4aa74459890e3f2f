from goloop.core.sched.waiter cimport WaitNode, WaitQueue, Waiter


cdef enum:
    EXCLUSIVE = 0     # how a Mutex and a writer of an RWMutex lock
    SHARED = 1        # how its readers do


# Whatever is held and waited for in line. `n` says how: EXCLUSIVE, SHARED, or a semaphore's weight. It is never free
# while a waiter could have it: the holder that gives it back hands it over. Guard of all fields here: the GIL.
cdef class Locker:
    cdef list orphans  # what was thrown away without it and gives it back on its way out (orphans.pyx); or None
    cdef object bubble  # that it was made in, or None
    # The one that has got it exclusively last, for those who look at the program; another one may give it back.
    cdef long long holder_g             # the id of a goroutine; 0: it is none
    cdef unsigned long holder_thread    # the ident of a thread,
    cdef object holder_task             # and a weak reference to the task that ran there; None: none did
    cdef object __weakref__

    cdef void held_here(self) noexcept
    cdef void held_by(self, Waiter waiter) noexcept
    cdef int relock_or_orphan(self, Py_ssize_t n, list frames) except -1  # have it, or be an orphan
    cdef bint consume_orphaned_unlock(self) except -1                     # whether it is an orphan that gives it back

    cdef bint acquire_if_free(self, Py_ssize_t n) noexcept  # have it without waiting; False: it takes a wait
    cdef bint take_if_free(self, Py_ssize_t n) except -1    # the same, for a caller that may be out of place
    cdef bint is_held(self, Py_ssize_t n) noexcept
    cdef WaitQueue queue_for(self, Py_ssize_t n)         # where to wait
    cdef int hand_on_lock(self, Py_ssize_t n) except -1  # give back a held lock, which is not checked any more
    cdef int waiter_left(self) except -1                 # a waiter left the line, and may have held up others
    cdef int withdraw(self, WaitNode node) except -1
    cdef int obtain(self, Py_ssize_t n, double seconds, str method, str instead, str reason,
                    bint cancellable=*) except -1


cdef class Mutex(Locker):
    cdef bint locked_
    cdef WaitQueue waiters


cdef class RWMutex(Locker):
    cdef bint writing             # held by a writer; then readers_ is 0
    cdef Py_ssize_t readers_      # how many readers hold it
    cdef WaitQueue to_read
    cdef WaitQueue to_write

    cdef bint admit_readers(self) except -1
    cdef bint admit_writer(self) except -1
    cdef int hand_on(self, bint readers_first) except -1


cdef class RLocker:
    cdef RWMutex of


cdef class Semaphore(Locker):
    cdef readonly Py_ssize_t size
    cdef Py_ssize_t used
    cdef WaitQueue waiters

    cdef Py_ssize_t weight(self, object n) except -1
