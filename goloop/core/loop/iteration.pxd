from libc.stdint cimport int64_t, uint32_t

from goloop.core.loop.accounts cimport Accounts
from goloop.core.loop.handles cimport Pollable
from goloop.core.loop.offload_policy cimport OffloadPolicy
from goloop.core.loop.outbox cimport Outbox
from goloop.core.loop.ownership cimport LoopOwnership
from goloop.core.loop.ready_queue cimport ReadyQueue
from goloop.core.poll.pollset cimport PollSet, epoll_event
from goloop.core.poll.timer_heap cimport TimerHeap


cdef class LoopIteration:
    cdef PollSet pollset          # None once closed
    cdef TimerHeap timers
    cdef OffloadPolicy offload_policy  # whether the netpoller receives and sends for this loop's streams
    cdef Outbox outbox                 # what its streams have written in this iteration
    cdef ReadyQueue ready              # handles and pollables
    cdef Accounts accounts             # what it has done, and how long that took
    cdef int until_observed            # callbacks until one is timed,
    cdef int observed_for              # for how many that one stands
    cdef uint32_t number               # in this process, from 1
    cdef int thread_wakes                  # sleeps in a row that other threads ended
    cdef Py_ssize_t todo                   # what the iteration in progress has still to run
    cdef int64_t looked                    # when the loop looked at its poll set last, monotonic nanoseconds
    cdef int unlooked                      # iterations since
    cdef int64_t looked_ticks              # when that was, in gl_ticks()
    cdef int64_t look_ticks                # about as many as `_look_ns` takes
    cdef public int64_t _look_ns           # nanoseconds until the next look, while callbacks are ready
    cdef readonly LoopOwnership _ownership  # of the thread that runs it
    cdef bint own_clock                    # time() was not replaced: no need to call it through Python
    cdef object slow                       # slow_callback_duration
    cdef object clock                      # what replaced it in this object, or None
    cdef public int _awaited_runs          # run_until_complete()s under way: a future's end is waited for
    cdef double look_pause                 # seconds of sleep until it asks whether anything can wake it
    cdef object look_found                 # what the last such question has found; None: nothing, or none was asked
    cdef public bint _debug
    cdef public bint _closed
    cdef public bint _stopping
    cdef public object _thread_id
    cdef bint gc_untracks_handles  # it runs: what enters the ready queue need not be looked at by the collector
    cdef object __weakref__

    cdef int drain(self) except -1
    cdef int drain_completions(self) except -1
    cdef int collect(self) except -1
    cdef int dispatch(self, epoll_event *events, int n) except -1
    cdef int wake_due(self) except -1
    cdef double now(self) except? -1
    cdef int sleep(self) except -1
    cdef int look_around(self, int64_t due) except -1
    cdef int sleep_in_pollset(self, int64_t deadline) except -1
    cdef int sleep_on_futex(self, int64_t deadline) except -1
    cdef int run_once(self) except -1
    cdef int run_ready(self) except -1
    cdef int run_items(self) except -1
    cdef int iterate(self) except -1
    cdef int run_item(self, object item) except -1
    cdef int observe(self, object item) except -1
    cdef int run_traced(self, object item, int times) except -1
    cdef int run_timed(self, object item) except -1
    cdef bint time_to_look(self) except -1
    cdef bint has_waited(self) noexcept
    cdef int note_round(self) noexcept
    cdef int queue(self, Pollable item) except -1
    cdef int queue_watcher(self, object watcher) except -1
    cdef int check_closed(self) except -1
