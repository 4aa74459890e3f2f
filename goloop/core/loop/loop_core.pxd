from libc.stdint cimport int64_t

from goloop.core.loop.handles cimport Handle, Pollable, TimerHandle
from goloop.core.poll.pollset cimport PollSet, Side, epoll_event
from goloop.core.loop.offload_policy cimport OffloadPolicy
from goloop.core.loop.outbox cimport Outbox
from goloop.core.poll.timer_heap cimport TimerHeap
from goloop.core.loop.ownership cimport LoopOwnership


cdef class LoopCore:
    cdef PollSet pollset          # None once closed
    cdef TimerHeap timers
    cdef OffloadPolicy offload_policy  # whether the netpoller receives and sends for this loop's streams
    cdef Outbox outbox                 # what its streams have written in this iteration
    cdef list ring                     # the ready queue: a ring of handles and pollables, grown by doubling
    cdef Py_ssize_t head
    cdef Py_ssize_t count
    cdef Py_ssize_t capacity               # a power of two
    cdef int thread_wakes                  # sleeps in a row that other threads ended
    cdef Py_ssize_t todo                   # what the iteration in progress has still to run, from `head` on
    cdef readonly LoopOwnership ownership  # who runs it
    cdef bint own_clock                    # time() was not replaced: no need to call it through Python
    cdef object slow                       # slow_callback_duration
    cdef object clock                      # what replaced it in this object, or None
    cdef char *read_buffer                 # scratch for recv, READ_SIZE bytes, made on first use
    cdef public bint _debug
    cdef public bint _closed
    cdef public bint _stopping
    cdef public object _thread_id
    cdef bint gc_untracks_handles  # it runs: what enters the ready queue need not be looked at by the collector
    cdef public object _task_factory
    cdef object __weakref__

    cdef int enqueue(self, object item) except -1
    cdef int grow(self) except -1
    cdef int drain(self) except -1
    cdef int drain_completions(self) except -1
    cdef int collect(self) except -1
    cdef int dispatch(self, epoll_event *events, int n) except -1
    cdef int wake_due(self) except -1
    cdef double now(self) except? -1
    cdef int sleep(self) except -1
    cdef int sleep_in_pollset(self, int64_t deadline) except -1
    cdef int sleep_on_futex(self, int64_t deadline) except -1
    cdef int run_once(self) except -1
    cdef int run_ready(self) except -1
    cdef int run_items(self) except -1
    cdef int iterate(self) except -1
    cdef int run_timed(self, object item) except -1
    cdef Handle soon(self, object callback, object args, object context)
    cdef int queue(self, Pollable item) except -1
    cdef char *scratch(self) except NULL
    cdef int forget_watchers(self, int fd) except -1
    cdef int own(self, int fd, Pollable owner) except -1
    cdef int attach(self, int fd, Pollable owner) except -1
    cdef int detach(self, int fd, Pollable owner) except -1
    cdef Handle add_watcher(self, object fileobj, Side side, object callback, object args)
    cdef bint remove_watcher(self, object fileobj, Side side) except -1
    cdef int queue_watcher(self, object watcher) except -1
    cdef TimerHandle schedule(self, double when, object callback, object args, object context)
    cdef int check_thread(self) except -1
    cdef int check_callback(self, object callback, str method) except -1
    cdef int check_closed(self) except -1


cdef enum:
    READ_SIZE = 262144     # bytes per recv, asyncio's max_size
