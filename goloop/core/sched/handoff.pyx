# cython: language_level=3, boundscheck=False, wraparound=False
"""Handoff: the monitor's half of taking ownership from a thread that is stuck in a blocking call.

look() runs in the monitor's thread. Without the GIL it only compares numbers (loop/native/stall.c); where that is worth
the GIL, this file decides, arms the trap and passes ownership on. The trap is what the thread runs into as soon
as it is back in Python: it waits there for ownership (loop/ownership.pyx). HACKING.md, "Handoff", tells why no thread
gets past it.

What is correct does not depend on what the monitor guesses: a thread that was not stuck at all just meets the
trap a moment later.
"""

import asyncio
import sys

cimport cython
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.stdint cimport int64_t, uint32_t, uint64_t

from goloop.core.loop.handles cimport Handle
from goloop.core.loop.loop_core cimport LoopCore
from goloop.core.sched.goroutine cimport Goroutine
from goloop.core.sched.scheduler cimport G, BacklogNotice, Worker, backlog, monitor_look, monitor_poke
from goloop.core.loop.ownership cimport (
    GL_FOR_GIL, GL_SLEEPS, GL_SLOW, GL_RETAKE, GL_RETAKE_IF_WAITED_FOR, GL_PROBE, GL_UNKNOWN, REGION, RUNNING, RETAKEN,
    Hooks, PyFrameObject, PyThreadState, LoopThread, LoopOwnership, learn_gil, loop_thread_here, set_hooks,
    stall_forget, stall_handed_off, this_tid, thread_does,
    stall_look,
)
from goloop.core.system.posix cimport gl_clock_ns, now_ns
from goloop.core.system.trace cimport GL_TRACE_HANDOFF, gl_tracer, the_tracer, trace

from goloop.core.sched.scheduler import start_monitor


cdef extern from "Python.h":
    PyFrameObject *PyThreadState_GetFrame(PyThreadState *tstate)
    ctypedef struct PyCodeObject:
        pass
    PyCodeObject *PyFrame_GetCode(PyFrameObject *frame)
    int PyFrame_GetLasti(PyFrameObject *frame)
    void Py_XDECREF(PyObject *o)
    int PyTrace_OPCODE
    ctypedef int PyGILState_STATE
    PyGILState_STATE PyGILState_Ensure() nogil
    void PyGILState_Release(PyGILState_STATE state) nogil

cdef extern from "../sched/native/trap.h":
    ctypedef int (*Py_tracefunc)(PyObject *object, PyFrameObject *frame, int what, PyObject *argument) except -1
    ctypedef void (*gl_entered)() noexcept
    bint GL_TRACES
    bint GL_PYTHON_KNOWN
    bint gl_trace_busy(PyThreadState *tstate)
    void gl_trace_put(PyThreadState *tstate, Py_tracefunc function, PyObject *object)
    Py_tracefunc gl_trace_function(PyThreadState *tstate)
    PyObject *gl_trace_object(PyThreadState *tstate)
    int gl_eval_hook(gl_entered entered)
    void gl_eval_unhook()

cdef extern from "time.h" nogil:
    struct timespec:
        long tv_sec
        long tv_nsec
    int nanosleep(const timespec *wanted, timespec *left)

cdef extern from "poll.h" nogil:
    enum:
        POLLIN
    struct pollfd:
        int fd
        short events
        short revents
    int poll(pollfd *fds, unsigned long n, int timeout)

cdef extern from "pthread.h" nogil:
    ctypedef unsigned long pthread_t
    int pthread_create(pthread_t *thread, void *attributes, void *(*start)(void *) noexcept, void *argument)
    int pthread_join(pthread_t thread, void **result)

cdef enum:
    PROBE = 400000         # ns that the monitor holds the GIL to see whether a thread computes without it
    STEP = 50000           # ns of these that it sleeps at a time: the two may have but one processor
    AGAIN = 1000000        # ns until it looks again: a call that ends soon is not worth a handoff
    PROOF = 40000          # ns of processor time in a probe that prove it, besides
    WAKE = 20000           # what waiting for the GIL takes at each switch interval, at most

cdef gl_tracer *tracer = the_tracer()
cdef object _monitoring = getattr(sys, "monitoring", None)      # 3.12
cdef int tool = -1                # our tool id there, -1: none
cdef object events                # sys.monitoring.events
cdef dict armed = {}              # code object -> threads that wait to be trapped in it
cdef int traps = 0                # threads that wait to be trapped
cdef list monitored = []             # of watched loops
cdef list worker_ownerships = []      # of the workers' loops
cdef int64_t always = 0           # GOLOOP_WATCH=1: ns after which a goroutine is slow, whatever loops say; 0: no
cdef object request_thread = None     # runtime.substitutes': request_thread(loop) brings a substitute, if it can
cdef object report_slow_callback = None  # runtime.watch's: (StuckCallback) -> its report, told when that ends
cdef int[1] gil_tid


# ----------------------------------------------------------------------- trap
# On 3.12 and later three things stop a thread that comes back: the instructions of the code that its innermost
# frame runs (a call that returns); RAISE, which is process-wide and fires in that frame before it unwinds (a call
# that fails); and the frame evaluation function (C code that calls Python before it returns).

cdef int sprung() except -1:
    """This thread runs Python: if it has been taken from its loop, wait for ownership."""
    cdef LoopThread loop_thread = loop_thread_here()
    if loop_thread is not None and loop_thread.state == RETAKEN and loop_thread.trap is not None:
        loop_thread.ownership.reacquire(loop_thread)
    return 0


def _on_instruction(code, offset):
    sprung()


def _on_raise(code, offset, exception):
    sprung()


cdef void _on_entry() noexcept:
    cdef LoopThread loop_thread = loop_thread_here()
    if loop_thread is not None and loop_thread.state == RETAKEN and loop_thread.trap is not None:
        try:
            loop_thread.ownership.reacquire(loop_thread)
        except BaseException as exc:
            sys.unraisablehook(_Unraisable(exc))


class _Unraisable:
    """What sys.unraisablehook takes."""

    def __init__(self, exc):
        self.exc_type = type(exc)
        self.exc_value = exc
        self.exc_traceback = exc.__traceback__
        self.err_msg = "Exception ignored while waiting for the event loop"
        self.object = None


@cython.final
cdef class Trap:
    """The trap that is armed for one thread."""
    cdef object code              # 3.12: whose instructions are watched
    cdef object frame             # 3.11: that gets opcode events,
    cdef object opcodes           # what it had before
    cdef Py_tracefunc function    # and the trace function that was there before, with
    cdef PyObject *object         # its argument: the thread's reference, kept
    cdef PyThreadState *tstate


cdef int on_trace(PyObject *object, PyFrameObject *frame, int what, PyObject *argument) except -1:
    """3.11: the trace function of a thread that was taken from its loop."""
    cdef LoopThread loop_thread = <LoopThread>object
    cdef Trap trap = loop_thread.trap
    cdef bint ours = what == PyTrace_OPCODE and not (trap is not None and trap.opcodes)
    cdef Py_tracefunc before = trap.function if trap is not None else NULL
    cdef PyObject *before_object = trap.object if trap is not None else NULL
    loop_thread.ownership.reacquire(loop_thread)
    if before != NULL and not ours:
        return before(before_object, frame, what, argument)
    return 0


cdef bint arm(LoopThread loop_thread, Trap trap, PyObject *frame) except -1:
    """Trap the thread of `loop_thread`, whose innermost frame this is.

    Allocates no object that the collector tracks, runs no Python code, and so does not give up the GIL.
    """
    global traps
    cdef PyObject *code
    trap.tstate = loop_thread.tstate
    if GL_TRACES:
        trap.frame = <object>frame
        trap.opcodes = trap.frame.f_trace_opcodes
        trap.frame.f_trace_opcodes = True
        trap.function = gl_trace_function(loop_thread.tstate)
        trap.object = gl_trace_object(loop_thread.tstate)
        Py_INCREF(loop_thread)
        gl_trace_put(loop_thread.tstate, on_trace, <PyObject *>loop_thread)
    else:
        code = <PyObject *>PyFrame_GetCode(<PyFrameObject *>frame)
        trap.code = <object>code
        Py_DECREF(trap.code)
        if trap.code not in armed:
            _monitoring.set_local_events(tool, trap.code, events.INSTRUCTION)
            armed[trap.code] = 1
        else:
            armed[trap.code] += 1
        gl_eval_hook(_on_entry)
    loop_thread.trap = trap
    traps += 1
    return True


cdef int disarm(LoopThread loop_thread) except -1:
    """Take the trap out; in the thread itself, or in the one that armed it."""
    global traps
    cdef Trap trap = loop_thread.trap
    if trap is None:
        return 0
    loop_thread.trap = None
    traps -= 1
    if GL_TRACES:
        trap.frame.f_trace_opcodes = trap.opcodes
        gl_trace_put(trap.tstate, trap.function, trap.object)
        Py_DECREF(loop_thread)
    else:
        armed[trap.code] -= 1
        if armed[trap.code] == 0:
            del armed[trap.code]
            _monitoring.set_local_events(tool, trap.code, 0)
        if traps == 0:
            gl_eval_unhook()
    return 0


def prepare():
    """Get what traps need: a tool id of sys.monitoring, and what the wait for the GIL looks like.

    RuntimeError where handing off is not possible.
    """
    global tool, events
    if not GL_PYTHON_KNOWN:
        raise RuntimeError("handoff has not been checked with this Python: use `with goloop.blocking():`")
    if _monitoring is not None and tool < 0:
        for number in (4, 3, 5, 2, 1, 0):
            if _monitoring.get_tool(number) is None:
                _monitoring.use_tool_id(number, "goloop")
                tool = number
                break
        else:
            raise RuntimeError("handoff needs a tool id of sys.monitoring, and all six are in use")
        events = _monitoring.events
        _monitoring.register_callback(tool, events.INSTRUCTION, _on_instruction)
        _monitoring.register_callback(tool, events.RAISE, _on_raise)
    learn()


cdef bint raise_watched = False

cdef int watch_raise() except -1:
    """Process-wide, so only from the first handoff on."""
    global raise_watched
    if _monitoring is not None and not raise_watched:
        raise_watched = True
        _monitoring.set_events(tool, events.RAISE)
    return 0


def release():
    """Give back the tool id; no loop may be handed off any more."""
    global tool, raise_watched
    if tool >= 0 and traps == 0:
        _monitoring.set_events(tool, 0)
        _monitoring.register_callback(tool, events.INSTRUCTION, None)
        _monitoring.register_callback(tool, events.RAISE, None)
        _monitoring.free_tool_id(tool)
        tool = -1
        raise_watched = False


# ------------------------------------------------- what a wait for the GIL is
cdef bint learned = False

cdef void *want_gil(void *argument) noexcept nogil:
    cdef PyGILState_STATE state
    (<int *>argument)[0] = this_tid()
    state = PyGILState_Ensure()
    PyGILState_Release(state)
    return NULL


cdef int learn() except -1:
    """Let a thread wait for the GIL, which we hold, and remember what it waits on."""
    global learned
    cdef pthread_t thread
    cdef timespec moment
    if learned:
        return 0
    gil_tid[0] = 0
    if pthread_create(&thread, NULL, want_gil, gil_tid):
        return 0                               # then it is not known, and the slower sign has to do
    moment.tv_sec = 0
    moment.tv_nsec = 50000
    for _ in range(200):                       # with the GIL; 10 ms at most, once in a process
        nanosleep(&moment, NULL)
        if gil_tid[0] and learn_gil(gil_tid[0]) != 0:
            break
    with nogil:
        pthread_join(thread, NULL)
    learned = True
    return 0


# ----------------------------------------------------------------------- look
cdef int64_t look() noexcept nogil:
    """The monitor's look at all loops. Returns how many ns to wait until the next one."""
    cdef uint32_t verdicts = 0
    cdef int64_t wait = stall_look(&verdicts)
    if verdicts:
        judge()
    return wait


cdef void judge() noexcept with gil:
    """Some loops seem stuck."""
    cdef LoopOwnership ownership
    if sys.is_finalizing():
        return
    for ownership in list(monitored):
        try:
            examine(ownership)
        except BaseException as exc:
            sys.unraisablehook(_Unraisable(exc))


cdef int examine(LoopOwnership ownership) except -1:
    cdef uint32_t verdict = ownership.stall.verdict
    cdef object loop
    ownership.stall.verdict = 0
    if verdict == 0:
        return 0
    loop = ownership.loop()
    if loop is None:
        return 0
    if verdict & (GL_RETAKE | GL_PROBE) or (verdict & GL_RETAKE_IF_WAITED_FOR and is_waited_for(ownership, loop)):
        retake(ownership, verdict)
    if verdict & GL_SLOW:                      # afterwards, to say that it was handed off
        report_slow(ownership)
    if ownership.holder is None and ownership.stall.vacant and ownership.open:
        if ownership.spare is not None:
            ownership.grant(ownership.spare)
        else:
            request_thread(loop)
    return 0


cdef int retake(LoopOwnership ownership, uint32_t verdict) except -1:
    """Take ownership from its holder, if that is stuck, and pass it on."""
    cdef LoopThread loop_thread = ownership.holder
    if loop_thread is None or ownership.stall.idle or ownership.closed or ownership.item == NULL:
        return 0
    if ownership.stall.seen != ownership.stall.beat:
        return 0                               # something else runs by now
    if loop_thread.state == REGION:
        loop_thread.state = RETAKEN
        ownership.regions_retaken += 1
    elif loop_thread.state == RUNNING and ownership.handoff and not gl_trace_busy(loop_thread.tstate):
        if not is_stuck(ownership, loop_thread, verdict) or not trap_if_still_there(ownership, loop_thread):
            return 0
    else:
        return 0
    ownership.on_retaken(loop_thread)
    hand_over(ownership, loop_thread)
    return 0


cdef bint is_waited_for(LoopOwnership ownership, LoopCore loop) except -1:
    """Whether a callback could go on, or begin, if ownership were free."""
    return bool(ownership.returned) or is_ready(loop)


cdef bint is_stuck(LoopOwnership ownership, LoopThread loop_thread, uint32_t verdict) except -1:
    """Whether the holder is still stuck in a call, now that the monitor has the GIL, for which it had to wait."""
    cdef int64_t cpu = gl_clock_ns(loop_thread.clock)
    if verdict & (GL_RETAKE | GL_RETAKE_IF_WAITED_FOR):
        return cpu == ownership.stall.cpu and thread_does(loop_thread.tid) in (GL_SLEEPS, GL_UNKNOWN)
    return computes_without_gil(ownership, loop_thread, cpu)


cdef bint trap_if_still_there(LoopOwnership ownership, LoopThread loop_thread) except -1:
    """Arm the trap for the holder and make it RETAKEN, unless its callback has gone on or cannot be trapped.

    True: from the second look at the innermost frame to the return nothing gave up the GIL, so the thread is still
    where it was. The caller goes on to on_retaken() without giving it up.
    """
    cdef Trap trap
    cdef PyObject *frame
    cdef PyFrameObject *again
    cdef bint trapped = False
    watch_raise()
    trap = Trap.__new__(Trap)
    frame = <PyObject *>PyThreadState_GetFrame(loop_thread.tstate)      # may run the collector, and so anything
    if frame == NULL:
        return False
    again = PyThreadState_GetFrame(loop_thread.tstate)
    # From here to on_retaken() nothing gives up the GIL.
    if <PyObject *>again == frame and can_be_trapped(ownership, loop_thread, again):
        loop_thread.state = RETAKEN
        try:
            trapped = arm(loop_thread, trap, frame)
        finally:
            if not trapped:
                loop_thread.state = RUNNING
        ownership.handoffs += 1
    Py_XDECREF(<PyObject *>again)
    Py_DECREF(<object>frame)
    return trapped


cdef bint can_be_trapped(LoopOwnership ownership, LoopThread loop_thread, PyFrameObject *frame) noexcept:
    """Whether the loop thread holds ownership and runs a callback, in a Python frame of that and in no trace function.

    frame: the thread's innermost one. Does not give up the GIL.
    """
    return (frame != loop_thread.base and ownership.holder is loop_thread and loop_thread.state == RUNNING
            and loop_thread.trap is None and ownership.item != NULL and not gl_trace_busy(loop_thread.tstate))


cdef int hand_over(LoopOwnership ownership, LoopThread loop_thread) except -1:
    """Give ownership, which was taken from `loop_thread`, to the next loop thread that can have it."""
    cdef LoopThread next
    if tracer.session and ownership.pollset.ps != NULL:
        trace(tracer, GL_TRACE_HANDOFF, ownership.pollset.ps.loop, 0, loop_thread.tid)
    stall_handed_off()
    next = ownership.choose()
    if next is not None:
        ownership.grant(next)
    if ownership.stall.slow:
        ownership.stall.due = loop_thread.since + ownership.stall.slow
    return 0


cdef bint computes_without_gil(LoopOwnership ownership, LoopThread loop_thread, int64_t before) except -1:
    """Whether the thread uses processor time though we hold the GIL, and did at the same place a while ago."""
    cdef int64_t begun = now_ns()
    cdef int64_t end = begun + PROBE
    cdef double share = WAKE / 1e9 / <double>sys.getswitchinterval()
    cdef PyFrameObject *frame
    cdef bint again
    cdef int at
    cdef timespec moment
    moment.tv_sec = 0
    moment.tv_nsec = STEP
    while True:
        # A thread that waits for the GIL uses processor time as well, all of it where the switch interval is tiny.
        if thread_does(loop_thread.tid) in (GL_FOR_GIL, GL_SLEEPS):
            return False
        if gl_clock_ns(loop_thread.clock) - before >= PROOF + (now_ns() - begun) * share:
            break
        if now_ns() >= end:
            return False
        nanosleep(&moment, NULL)               # with the GIL
    end = now_ns()
    frame = PyThreadState_GetFrame(loop_thread.tstate)
    if frame == NULL:
        return False
    at = PyFrame_GetLasti(frame)
    again = (loop_thread.proven == ownership.stall.beat and loop_thread.proven_frame == <void *>frame
             and loop_thread.proven_at == at)
    loop_thread.proven = ownership.stall.beat
    loop_thread.proven_frame = <void *>frame
    loop_thread.proven_at = at
    ownership.stall.retry = end + AGAIN
    Py_DECREF(<object><PyObject *>frame)
    return again


# -------------------------------------------------------------------- reports
cdef int report_slow(LoopOwnership ownership) except -1:
    """Some callback may be slow: one that was handed off, or the holder's."""
    cdef int64_t now = now_ns()
    report_away(ownership, now)
    if holder_is_slow(ownership, now):
        report_holder(ownership, now)
    return 0


cdef int report_away(LoopOwnership ownership, int64_t now) except -1:
    """Report the callbacks that were handed off and are slow by now, and note when the next one will be."""
    cdef LoopThread loop_thread
    cdef int64_t slow_at, due = 0
    for loop_thread in list(ownership.away):
        if loop_thread.report is None and ownership.stall.slow:
            slow_at = loop_thread.since + ownership.stall.slow
            if now >= slow_at:
                report_stuck(ownership, loop_thread, loop_thread.since, True)
            elif due == 0 or slow_at < due:
                due = slow_at
    ownership.stall.due = due
    return 0


cdef bint holder_is_slow(LoopOwnership ownership, int64_t now) noexcept:
    cdef LoopThread loop_thread = ownership.holder
    return (loop_thread is not None and not ownership.stall.idle and ownership.item != NULL
            and loop_thread.report is None and ownership.stall.slow != 0
            and ownership.stall.seen == ownership.stall.beat and now - ownership.stall.since >= ownership.stall.slow)


cdef int report_holder(LoopOwnership ownership, int64_t now) except -1:
    cdef LoopThread loop_thread = ownership.holder
    if ownership.worker and not others_wait(ownership.loop(), worker_of(<object>ownership.item)):
        ownership.stall.due = now + ownership.stall.slow  # nothing waits behind it yet
    else:
        report_stuck(ownership, loop_thread, loop_thread.since or ownership.stall.since, False)
    return 0


cdef Worker worker_of(object item):
    """The worker whose turn an item of its loop is; None: the item is a callback."""
    if isinstance(item, Worker):
        return item
    if isinstance(item, BacklogNotice):
        return (<BacklogNotice>item).worker
    return (<G>item).worker if isinstance(item, G) else None


cdef bint others_wait(LoopCore loop, Worker worker) except -1:
    """Whether something could run on a worker's loop now if its thread were not held."""
    return bool(backlog.count) or (worker is not None and worker.runnable.count > 0) or is_ready(loop)


cdef bint is_ready(LoopCore loop) except -1:
    """Whether a loop has something to run."""
    cdef pollfd look
    if loop is None or loop.pollset is None or loop.pollset.ps == NULL:
        return False
    if loop.ready.count or not loop.pollset.inbox_empty():
        return True
    if loop.timers.size and loop.timers.first() <= now_ns() / 1e9:
        return True
    look = pollfd(loop.pollset.ps.epfd, POLLIN, 0)
    return poll(&look, 1, 0) > 0


cdef object task_of(object item):
    """The task whose step a callback is, or None."""
    cdef object task = None
    if isinstance(item, Handle):
        task = getattr((<Handle>item)._callback, "__self__", None)
    return task if isinstance(task, asyncio.Task) else None


@cython.final
cdef class StuckCallback:
    """What a report says of a callback, or of the goroutine that it runs, while that is stuck."""
    cdef readonly unsigned long thread      # its ident
    cdef readonly object frame              # the innermost one; None for a goroutine of a built-in function
    cdef readonly object base               # the frame that called into the loop, which is no part of the callback
    cdef readonly object item               # of the loop: a handle, a transport, or a worker's turn
    cdef readonly object task               # whose step the callback is; None: of no task, or in a goroutine
    cdef readonly object goroutine          # of a worker; None: a callback
    cdef readonly object function           # the name of what the goroutine runs; None: a callback
    cdef readonly double seconds            # since it began
    cdef readonly bint computes             # rather than waits in a call
    cdef readonly bint handed_off           # others run meanwhile


cdef object innermost_frame(LoopThread loop_thread):
    """The innermost frame of a loop thread's thread, or None."""
    cdef PyObject *frame = <PyObject *>PyThreadState_GetFrame(loop_thread.tstate)
    cdef object owned
    if frame == NULL:
        return None
    owned = <object>frame
    Py_DECREF(owned)
    return owned


cdef object current_task_of(LoopOwnership ownership, LoopThread loop_thread, object item, bint handed_off):
    """The task whose step a loop thread runs, or None."""
    if sys.version_info >= (3, 14):            # a current task is its thread's, and this is another thread
        return task_of(item)
    return loop_thread.task if handed_off else asyncio.current_task(ownership.loop())


cdef bint computes(LoopOwnership ownership, LoopThread loop_thread) except -1:
    """Whether the holder used processor time since the last look, or waits for the GIL."""
    return (ownership.stall.cpu != gl_clock_ns(loop_thread.clock)
            or thread_does(loop_thread.tid) not in (GL_SLEEPS, GL_UNKNOWN))


cdef StuckCallback describe(LoopOwnership ownership, LoopThread loop_thread, int64_t since, bint handed_off):
    """What to report of the callback of a loop thread. `since`: when it began.

    The item and the frame come first: an allocation may run the collector, and the callback may end meanwhile.
    """
    cdef object item = loop_thread.item if handed_off else <object>ownership.item
    cdef object frame = innermost_frame(loop_thread)
    cdef Worker worker = worker_of(item) if ownership.worker else None
    cdef StuckCallback stuck = StuckCallback.__new__(StuckCallback)
    stuck.thread = loop_thread.ident
    stuck.frame = frame
    stuck.base = <object><PyObject *>loop_thread.base if loop_thread.base != NULL else None
    stuck.item = item
    if worker is not None and worker.current is not None:
        stuck.goroutine = worker.current
    else:
        stuck.task = current_task_of(ownership, loop_thread, item, handed_off)
    stuck.computes = not handed_off and computes(ownership, loop_thread)
    stuck.handed_off = handed_off
    stuck.seconds = (now_ns() - since) / 1e9
    if stuck.goroutine is not None:
        stuck.function = (<Goroutine>stuck.goroutine).what()  # runs Python code
    return stuck


cdef int report_stuck(LoopOwnership ownership, LoopThread loop_thread, int64_t since, bint handed_off) except -1:
    """Report the callback of a loop thread. The report is told of its end, which may come before this returns."""
    cdef uint64_t beat = ownership.stall.beat
    cdef object report
    cdef bint still_runs
    if report_slow_callback is None or loop_thread.tstate == NULL:
        return 0
    # Runs Python code, so that the callback may go on meanwhile, and end.
    report = report_slow_callback(describe(ownership, loop_thread, since, handed_off))
    if handed_off:
        still_runs = loop_thread in ownership.away
    else:
        # (Without an item the loop is between two callbacks, or sleeps: it may be long until the beat grows.)
        still_runs = ownership.holder is loop_thread and ownership.stall.beat == beat and ownership.item != NULL
    if still_runs:
        loop_thread.report = report
        if loop_thread.since == 0:
            loop_thread.since = since
        ownership.refresh()
    else:
        report.end((now_ns() - since) / 1e9)
    return 0


cdef int ended(LoopThread loop_thread) except -1:
    """The callback that was reported has ended."""
    cdef object report = loop_thread.report
    loop_thread.report = None
    report.end((now_ns() - loop_thread.since) / 1e9)
    return 0


cdef int abandoned(LoopThread loop_thread) except -1:
    """run_forever() returns though callbacks are stuck: say which."""
    cdef LoopThread other
    for other in list(loop_thread.ownership.away):
        report_abandoned(loop_thread.ownership.loop(), other.ident, innermost_frame(other), other.item)
    return 0


cdef object report_abandoned = None


# ------------------------------------------------------------ for the runtime
cdef int first_region(LoopThread loop_thread) except -1:
    start_monitoring(loop_thread.ownership.loop())
    return 0


cdef void poke() noexcept nogil:
    monitor_poke()


def start_monitoring(LoopCore loop not None):
    """Let the monitor watch a loop that runs."""
    cdef LoopOwnership ownership = loop._ownership
    if not ownership.is_monitored:
        learn()
        start_monitor()
        monitored.append(ownership)
        ownership.set_monitored(True)
        monitor_poke()
        if not ownership.worker:
            watch_workers()


def stop_monitoring(LoopCore loop not None):
    """Let the monitor forget a loop; run_forever() returns."""
    cdef LoopOwnership ownership = loop._ownership
    if ownership.is_monitored:
        ownership.set_monitored(False)
        monitored.remove(ownership)
        if not ownership.worker:
            watch_workers()


cdef int watch_workers() except -1:
    """Let the monitor watch the workers while a loop's slow callbacks are reported: by the shortest time of any."""
    cdef LoopOwnership ownership
    cdef int64_t slow = always
    for ownership in monitored:
        if not ownership.worker and ownership.stall.slow and (slow == 0 or ownership.stall.slow < slow):
            slow = ownership.stall.slow
    for ownership in list(worker_ownerships):
        ownership.stall.slow = slow
        if slow and not ownership.is_monitored:
            start_monitoring(ownership.loop())
        elif slow == 0 and ownership.is_monitored:
            stop_monitoring(ownership.loop())
    return 0


def add_worker(LoopCore loop not None, bint watch):
    """A worker's loop is about to run, in its thread. watch: whether to watch it, whatever loops say."""
    global always
    loop._ownership.worker = True
    worker_ownerships.append(loop._ownership)
    if watch:
        always = <int64_t>(loop.slow_callback_duration * 1e9)
    watch_workers()


def remove_worker(LoopCore loop not None):
    """The worker has ended."""
    if loop._ownership in worker_ownerships:
        worker_ownerships.remove(loop._ownership)
    stop_monitoring(loop)


def configure(LoopCore loop not None, bint handoff, bint watch):
    """Say whether a loop may be handed off, and whether its slow callbacks are reported."""
    loop._ownership.handoff = handoff
    loop._ownership.report_slow(watch)


def set_runtime(thread_requester, slow_reporter, abandoned_reporter):
    """Install the functions of goloop.runtime.substitutes and goloop.runtime.watch."""
    global request_thread, report_slow_callback, report_abandoned
    request_thread = thread_requester
    report_slow_callback = slow_reporter
    report_abandoned = abandoned_reporter


def after_fork_in_parent():
    """The monitor is stopped for a fork."""
    if monitored:
        start_monitor()


def after_fork_in_child():
    """In a forked child: the threads that were to be trapped are the parent's."""
    global traps
    cdef LoopOwnership ownership
    stall_forget()
    for ownership in monitored:
        ownership.is_monitored = False
    monitored.clear()
    worker_ownerships.clear()
    if not GL_TRACES:
        for code in list(armed):
            _monitoring.set_local_events(tool, code, 0)
        armed.clear()
        gl_eval_unhook()
    traps = 0


cdef Hooks given
given.disarm = disarm
given.ended = ended
given.abandoned = abandoned
given.region = first_region
given.slow = watch_workers
given.poke = poke
set_hooks(given)
monitor_look(look)
