from goloop.core.look.parts cimport Shape
from goloop.core.sched.goroutine cimport Goroutine
from goloop.core.sched.waiter cimport Waiter
from goloop.core.sync.locks cimport Locker, RWMutex


# What one look has found so far: keys of things, and who waits for which. Thrown away with the look.
cdef class Look:
    cdef readonly double now          # seconds of the monotonic clock
    cdef Shape wait                   # how to make a WaitReason
    cdef Shape stack                  # how to make a stack of (code, instruction)
    cdef object no_stack
    cdef dict made                    # key of a goroutine or task: what was made for it
    cdef dict reasons                 # the same: what it waits for, if that has a key
    cdef dict waiters                 # id of the future that a coroutine awaits: its Waiter
    cdef dict on                      # key: what is waited for
    cdef dict lines                   # key of that: the keys of those that wait, oldest first
    cdef dict keys                    # id of a thing: (its key,)

    cdef object stack_of(self, tuple places)
    cdef tuple key_of(self, object thing, str kind)
    cdef tuple keys_on(self, object on, str actor)
    cdef object reason(self, str actor, str kind, str detail, tuple on, object since, object until)
    cdef object reason_of(self, Waiter waiter, str actor)
    cdef tuple state_of_task(self, object task)
    cdef object goroutine(self, Shape shape, Goroutine g, dict frames)
    cdef tuple describe_rwmutex(self, RWMutex thing)
    cdef tuple holder(self, Locker locker)
    cdef int in_line(self, tuple keys, str actor) except -1


cdef str kind_of(object thing)
