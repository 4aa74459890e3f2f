# cython: language_level=3, boundscheck=False, wraparound=False
"""Look: who waits for what, as far as goloop's own waits tell: goroutines, threads, coroutines in goloop's calls.

All waits stand in a ring (sched/waiter.pyx). A look goes round once, without giving up the GIL.
"""

import asyncio
from _thread import LockType, RLock
from _queue import SimpleQueue

from goloop.core.look.parts cimport Shape, is_a, key_text, name_of, pause_gc, places_of, resume_gc
from goloop.core.net.polldesc cimport PollDesc
from goloop.core.sched.goroutine cimport Goroutine, all_alive
from goloop.core.sched.scheduler cimport PARKED, RUNNABLE, RUNNING, UNSTARTED, Worker
from goloop.core.sched.waiter cimport WaitLink, Waiter, waits
from goloop.core.sync.chan cimport Case, Chan
from goloop.core.sync.cond_waitgroup_once cimport Cond, Once, WaitGroup
from goloop.core.sync.locks cimport Locker, Mutex, RWMutex, Semaphore
from goloop.core.system.posix cimport now_s

from goloop.core.sync.event_future import Event, Future

cdef dict KINDS = {LockType: "lock", RLock: "lock", SimpleQueue: "queue", Event: "event", Future: "future"}


cdef str kind_of(object thing):
    """The first word of the key of something that is waited for; "" if it has none of its own."""
    cdef type cls = type(thing)
    if is_a(thing, Goroutine):
        return "goroutine"
    if is_a(thing, asyncio.Task):
        return "task"
    if is_a(thing, Chan):
        return "chan"
    if is_a(thing, Locker):
        return "lock"
    if is_a(thing, Cond):
        return "cond"
    if is_a(thing, WaitGroup):
        return "waitgroup"
    if is_a(thing, Once):
        return "once"
    if is_a(thing, PollDesc):
        return "conn"
    if is_a(thing, Event):
        return "event"
    if is_a(thing, Future):
        return "future"
    return KINDS.get(cls, "")


cdef class Look:
    """What one look has found so far.

    wait, names: the class of a WaitReason and its fields. stack: the class of stacks.
    """

    def __init__(self, wait, tuple names, stack):
        self.now = now_s()
        self.wait = Shape(wait, names)
        self.stack = Shape(stack, ("_places", "_frames"))
        self.no_stack = stack()
        self.made = {}
        self.reasons = {}
        self.waiters = {}
        self.on = {}
        self.lines = {}
        self.keys = {}

    cdef tuple key_of(self, object thing, str kind):
        cdef object found = self.keys.get(<size_t><void *>thing)
        if found is None:
            if kind == "goroutine":
                found = (f"goroutine-{(<Goroutine>thing).id}",)
            else:
                found = (key_text(kind.encode(), <size_t><void *>thing),)
            self.keys[<size_t><void *>thing] = found
            self.on[found[0]] = thing
        return found

    cdef int in_line(self, tuple keys, str actor) except -1:
        """The actor waits for these."""
        for key in keys:
            line = self.lines.get(key)
            if line is None:
                self.lines[key] = [actor]
            else:
                (<list>line).append(actor)
        return 0

    cdef tuple keys_on(self, object on, str actor):
        """The keys of what a wait is for, and the actor in their lines."""
        cdef tuple keys = ()
        cdef str kind
        if on is None:
            return keys
        if type(on) is tuple:              # the cases of a select
            for case in <tuple>on:
                if case is not None:
                    keys += self.key_of((<Case>case).chan, "chan")
        else:
            kind = kind_of(on)
            if not kind:
                return keys
            keys = self.key_of(on, kind)
        self.in_line(keys, actor)
        return keys

    cdef object reason_of(self, Waiter waiter, str actor):
        """What a waiter waits for; the caller has seen that it does."""
        cdef object on = waiter.on
        cdef tuple keys
        if type(on) is not tuple and on is not None and not kind_of(on):
            on = getattr(on, "_task", None)            # of wait(..., loop=...)
        keys = self.keys_on(on, actor)
        return self.reason(
            actor, waiter.reason, "", keys, waiter.since / 1e9, waiter.until if waiter.until > 0 else None)

    cdef object reason(self, str actor, str kind, str detail, tuple on, object since, object until):
        cdef object made = self.wait.make((kind, detail, on, since, until))
        if len(on):
            self.reasons[actor] = made
        return made

    cdef object stack_of(self, tuple places):
        return self.stack.make((places, None))

    # ------------------------------------------------------------ from outside
    def threads(self):
        """Note all waits; return those of plain threads, {ident: WaitReason}, and how many there are in all."""
        cdef WaitLink *link = waits.after
        cdef Waiter waiter
        cdef list found = []
        cdef bint gc = pause_gc()
        try:
            while link != &waits:
                waiter = <Waiter>link.waiter
                if waiter.waits():
                    found.append(waiter)
                link = link.after
            threads = {}
            for waiter in found:
                if waiter.future is not None:
                    self.waiters[<size_t><void *>waiter.future] = waiter
                elif waiter.g is None and waiter.thread:
                    threads[waiter.thread] = self.reason_of(waiter, f"thread-{waiter.thread}")
            return threads, len(found)
        finally:
            resume_gc(gc)

    def goroutines(self, cls, tuple names, dict frames):
        """Return an object of the class, with these fields, for each goroutine that is not done; oldest first.

        frames: what sys._current_frames() has said.
        """
        cdef Shape shape = Shape(cls, names)
        cdef bint gc = pause_gc()
        try:
            return [self.goroutine(shape, g, frames) for g in all_alive()]
        finally:
            resume_gc(gc)

    cdef tuple state_of_task(self, object task):
        return None                       # TaskLook knows

    cdef object goroutine(self, Shape shape, Goroutine g, dict frames):
        cdef Worker worker = g.worker
        cdef Waiter waiter = g.waiter
        cdef str key = self.key_of(g, "goroutine")[0]
        cdef object reason = None, stack = self.no_stack, since = None
        cdef str state = "running"
        if g.status == UNSTARTED:
            state = "not started"
        elif g.status == RUNNABLE:
            state = "runnable"
        elif g.status == PARKED:
            state = "parked"
            if waiter is not None and waiter.waits():
                reason = self.reason_of(waiter, key)
            else:
                state = "runnable"
        elif g.task is not None:
            state, reason, since, stack = self.state_of_task(g.task) or ("waiting", None, None, stack)
            state = "parked" if state == "waiting" else "runnable" if state in ("ready", "not started") else state
        elif g.blocked:
            state = "blocked"
        if g.status == PARKED and reason is not None:
            since = waiter.since / 1e9
        if g.greenlet is not None and g.status != RUNNING:
            stack = self.stack_of(places_of(g.greenlet.gr_frame))
        elif worker is not None and worker.current is g:
            stack = self.stack_of(places_of(frames.get(worker.thread)))
        made = shape.make((
            key, g.id, g.name if type(g.name) is str else "", name_of(g.function), state, reason, since,
            "" if worker is None else f"worker-{worker.thread}",
            "" if g.task is None else self.key_of(g.task, "task")[0],
            "" if g.origin_loop is None else f"loop-{<size_t><void *>g.origin_loop:x}",
            stack, self.stack_of(tuple(g.origin[::-1]) if g.origin is not None else ()), g.cancelling,
        ))
        self.made[key] = made
        return made

    # ------------------------------------------------- what is waited for
    def actor(self, key):
        """Return what was made for a goroutine or a task, None for one that has ended."""
        return self.made.get(key)

    def reasons_of(self, keys):
        """Return {key: what it waits for} of those among goroutines, tasks and threads that wait for something known.

        keys: those that are asked for.
        """
        return {key: self.reasons[key] for key in keys if key in self.reasons}

    def waited_for(self):
        """Return {key: (what is waited for, the keys of those that wait)} for all that goloop or asyncio knows."""
        return {key: (self.on[key], tuple(line)) for key, line in self.lines.items()}

    def describe(self, thing):
        """Return (class, state in words, key of the holder or "", whether it has ended) of one of goloop's primitives.

        None for what is none of these.
        """
        if is_a(thing, Chan):
            return "Chan", chan_state(thing), "", False
        if is_a(thing, Mutex):
            return "Mutex", "locked" if (<Mutex>thing).locked_ else "unlocked", *self.holder(thing)
        if is_a(thing, RWMutex):
            return self.describe_rwmutex(thing)
        if is_a(thing, Semaphore):
            return "Semaphore", f"{(<Semaphore>thing).used} of {(<Semaphore>thing).size} held", "", False
        if is_a(thing, Cond):
            return "Cond", "", "", False
        if is_a(thing, WaitGroup):
            return "WaitGroup", f"{(<WaitGroup>thing).count} to go", "", False
        if is_a(thing, Once):
            return "Once", "its function runs", "", False
        if is_a(thing, PollDesc):
            return "connection", f"descriptor {(<PollDesc>thing).fd}", "", False
        if is_a(thing, Event):
            return "Event", "not set", "", False
        if is_a(thing, Future):
            return "Future", "pending", "", False
        if type(thing) in KINDS:
            return type(thing).__name__, "", "", False
        return None

    cdef tuple describe_rwmutex(self, RWMutex thing):
        if thing.writing:
            return "RWMutex", "locked", *self.holder(thing)
        return "RWMutex", f"{thing.readers_} reading", "", False

    cdef tuple holder(self, Locker locker):
        """The key of the one that has a lock, and whether it has ended; "" if it is not known."""
        cdef object task
        if locker.holder_g:
            key = f"goroutine-{locker.holder_g}"
            return key, not goroutine_lives(locker.holder_g)
        if locker.holder_task is not None:
            task = locker.holder_task()
            if task is None:
                return "task", True
            return self.key_of(task, "task")[0], asyncio.Future.done(task)
        if locker.holder_thread:
            return f"thread-{locker.holder_thread}", False
        return "", False


def blocked_threads():
    """Return [(ident, what it waits for, whether that ends by itself)] for each plain thread that waits in goloop."""
    cdef WaitLink *link = waits.after
    cdef Waiter waiter
    cdef list found = []
    cdef bint gc = pause_gc()
    try:
        while link != &waits:
            waiter = <Waiter>link.waiter
            if waiter.g is None and waiter.thread and waiter.waits():
                found.append((waiter.thread, waiter.on, waiter.until > 0))
            link = link.after
    finally:
        resume_gc(gc)
    return found


cdef str chan_state(Chan chan):
    cdef Py_ssize_t n = chan.count - chan.owed
    closed = ", closed" if chan.closed else ""
    return f"{n} of {chan.cap} in the buffer{closed}" if chan.cap else f"unbuffered{closed}"


cdef bint goroutine_lives(long long number):
    cdef Goroutine g
    for g in all_alive():
        if g.id == number:
            return True
    return False
