# cython: language_level=3, boundscheck=False, wraparound=False
"""What loops and workers do now, and what descriptors they have: transports, listening sockets, connections.

Loops belong to their threads; what is read here are numbers, and lists that are copied in one step. Guard: the GIL.
"""

import asyncio

from cpython.object cimport PyObject

from goloop.core.look.parts cimport is_a, name_of, field
from goloop.core.loop.handles cimport Handle, TimerHandle
from goloop.core.loop.loop_core cimport LoopCore
from goloop.core.loop.ownership cimport LoopOwnership, LoopThread
from goloop.core.sched.bubble cimport BubbleCore
from goloop.core.sched.goroutine cimport Goroutine
from goloop.core.sched.scheduler cimport BacklogNotice, G, Worker
from goloop.core.sched.waiter cimport Waiter
from goloop.core.transports.acceptor cimport Acceptor
from goloop.core.transports.base cimport Transport
from goloop.core.transports.stream cimport StreamTransport
from goloop.core.transports.stream_output cimport StreamOutput


def loop_state(LoopCore loop not None, double now):
    """Return what a loop does, as a dict with the names of _snapshot.Loop, and `base`: the frame that called it."""
    cdef LoopOwnership ownership = loop._ownership
    cdef LoopThread holder
    cdef object item = None, base = None
    cdef double lag = 0
    cdef object since = None
    cdef str state = "stopped"
    if loop._closed or ownership is None or loop.pollset is None:
        return {"state": "closed", "thread": 0, "running": "", "since": None, "lag": 0.0, "ready": 0, "timers": 0,
                "descriptors": 0, "iterations": 0, "handoffs": 0, "away": 0, "watched": False, "task": None,
                "base": None}
    holder = ownership.holder
    if holder is not None:
        if ownership.stall.idle:
            state = "idle"
        else:
            state = "running"
            if ownership.item != NULL:
                item = <object>ownership.item
            if ownership.is_monitored and ownership.stall.seen == ownership.stall.beat and ownership.stall.since:
                since = ownership.stall.since / 1e9
            elif loop.accounts.marked:
                since = loop.accounts.marked / 1e9  # of the iteration: its callbacks have taken so long together
            if holder.base != NULL:
                base = <object><PyObject *>holder.base
    elif ownership.away:
        state = "waiting for its thread"
    if state != "stopped":
        if loop.timers.size and not is_a(loop, BubbleCore):
            lag = max(0.0, now - loop.timers.first())
        if since is not None and state == "running" and (loop.ready.count or not loop.pollset.inbox_empty()):
            lag = max(lag, now - since)
    return {
        "state": state, "thread": ownership.owner_ident, "running": "" if item is None else item_name(item),
        "since": since, "lag": lag, "ready": loop.ready.count, "timers": loop.timers.size,
        "descriptors": loop.pollset.used, "iterations": ownership.iteration, "handoffs": ownership.handoffs,
        "away": len(ownership.away), "watched": ownership.stall.slow != 0, "base": base,
        "task": task_of(item),
    }


cdef object task_of(object item):
    cdef object owner
    if is_a(item, Handle):
        owner = getattr((<Handle>item)._callback, "__self__", None)
        if is_a(owner, asyncio.Task):
            return owner
    return None


cdef object item_name(object item):
    """The name of what a loop runs."""
    cdef object callback
    cdef G g = None
    if is_a(item, Handle):
        callback = (<Handle>item)._callback
        task = task_of(item)
        if task is not None:
            return f"step of {task_name(task)}"
        return "" if callback is None else name_of(callback)
    if is_a(item, Worker):
        g = (<Worker>item).current
    elif is_a(item, BacklogNotice):
        g = (<BacklogNotice>item).worker.current
    elif is_a(item, G):
        g = (<G>item).worker.current
    elif is_a(item, Transport):
        return f"{type(item).__name__} of {type((<Transport>item).proto).__qualname__}"
    if g is not None:
        return f"goroutine {(<Goroutine>g).id} {name_of((<Goroutine>g).function)}"
    return type(item).__name__


cdef object task_name(object task):
    name = asyncio.Task.get_name(task)
    return name if type(name) is str else "task"


def worker_state(Worker worker not None):
    """Return what a worker does, as a dict with the names of _snapshot.Worker."""
    cdef G g = worker.current
    cdef str state = "idle"
    if g is not None:
        state = "blocked" if g.blocked else "running"
    elif not worker.loop._ownership.stall.idle:
        state = "running"
    return {
        "thread": worker.thread, "state": state,
        "goroutine": "" if g is None else f"goroutine-{(<Goroutine>g).id}", "live": worker.live,
        "runnable": worker.runnable.count, "rounds": worker.rounds, "locked": worker.locked, "retired": worker.retired,
    }


def worker_rests(Worker worker not None):
    """Whether no goroutine of a worker runs or can run now."""
    return worker.current is None and not worker.runnable.count and not worker.queued and not worker.notice.posted


def loop_rests(LoopCore loop not None, unsigned long asking):
    """Whether a loop sleeps with nothing to do, until something from outside or a timer wakes it.

    asking: the ident of the thread that asks; a loop of its own sleeps but for that.
    """
    cdef LoopOwnership ownership = loop._ownership
    return (ownership.holder is not None and (ownership.stall.idle or ownership.owner_ident == asking)
            and not ownership.away and not loop.ready.count and loop.pollset.inbox_empty()
            and loop.pollset.completions_empty())


def loop_runs(LoopCore loop not None):
    """The ident of the thread in which a loop runs, 0 if it does not."""
    return loop._ownership.owner_ident if loop._ownership.holder is not None or loop._ownership.away else 0


def beat(LoopCore loop not None):
    """A number that changes when a loop runs a callback."""
    return loop._ownership.stall.beat


def is_watched(LoopCore loop not None):
    """Whether slow callbacks of a loop that runs are reported."""
    return loop._ownership.stall.slow != 0 and loop._ownership.holder is not None


def timers_of(LoopCore loop not None):
    """Return [(due in seconds of the loop's clock, callback, its name)] for the timers that are more than a wait's end.
    """
    cdef TimerHandle timer
    cdef list found = []
    cdef object callback
    for timer in list(loop.timers.items)[:loop.timers.size]:
        callback = timer._callback
        if callback is None or callback is WAKES or is_a(getattr(callback, "__self__", None), Waiter):
            continue
        found.append((timer.annex.deadline, callback, name_of(callback)))
    return found


cdef object WAKES = asyncio.futures._set_result_unless_cancelled


def timers_but(LoopCore loop not None, function):
    """How many timers a loop has, without those that call the function."""
    cdef TimerHandle timer
    cdef Py_ssize_t n = 0
    for timer in list(loop.timers.items)[:loop.timers.size]:
        n += timer._callback is not function
    return n


def descriptors_of(LoopCore loop not None):
    """Return [(descriptor, watcher for reading, for writing, owner)] for each descriptor that a loop watches."""
    cdef list found = []
    cdef int i
    if loop.pollset is None:
        return found
    for i in range(loop.pollset.slot_count):
        if loop.pollset.slots[i].fd >= 0:
            found.append((
                loop.pollset.slots[i].fd, loop.pollset.readers[i], loop.pollset.writers[i], loop.pollset.owners[i]))
    return found


def transport_state(transport):
    """Return what a transport does, as a dict with the names of _snapshot.Connection; None for what is no transport."""
    cdef Transport t
    cdef object server
    if not is_a(transport, Transport):
        return None
    t = <Transport>transport
    server = t.server
    tls = field(t.proto, "_sslcontext") is not None if t.proto is not None else False
    protocol = field(t.proto, "_app_protocol") if tls else t.proto
    return {
        "fd": t.fd, "local": t.extra.get("sockname"), "peer": t.extra.get("peername"), "server": server,
        "protocol": type(protocol).__qualname__ if protocol is not None else "",
        "buffered": (<StreamOutput>t).size if is_a(t, StreamOutput) else 0,
        "reading_paused": t.paused, "writing_paused": t._protocol_paused, "closing": t.closing,
        "offloaded": (<StreamTransport>t).offloaded if is_a(t, StreamTransport) else False, "tls": tls,
        "since": t.made / 1e9 if t.made else None, "received": t.bytes_in, "sent": t.bytes_out,
    }


def acceptor_state(acceptor):
    """Return (socket, its asyncio.Server, TLS, connections that are being accepted, backlog)."""
    cdef Acceptor a = acceptor
    return a.sock, a.server, a.tls is not None, len(a.accepting), a.backlog
