# cython: language_level=3, boundscheck=False, wraparound=False
"""TaskLook: what tasks wait for, told by the coroutines that await one another, down to a future.

The wait of a goloop primitive is known (waits.pyx). Else the functions at the inner end of the chain tell: asyncio's,
of which `RULES` has a table, are looked into; of others only the name is told. Loops of any kind. Guard: the GIL.
"""

import asyncio
import types
from traceback import StackSummary
from asyncio import base_events, base_subprocess, futures, locks, queues, streams, tasks, threads, timeouts

from goloop.core.look.parts cimport (
    Shape, field, is_a, pause_gc, place_of, referents, resume_gc, untracked,
)
from goloop.core.look.waits cimport Look
from goloop.core.loop.handles cimport TimerHandle
from goloop.core.loop.steps cimport step_of
from goloop.core.sched.bubble cimport BubbleCore
from goloop.core.sched.waiter cimport Waiter
from goloop.core.transports.base cimport Transport

cdef object Coroutine = types.CoroutineType
cdef object Generator = types.GeneratorType
cdef object AsyncGenerator = types.AsyncGeneratorType
cdef object Task = asyncio.Task
cdef object Future = asyncio.Future
cdef object CTask = getattr(asyncio.tasks, "_CTask", None)
cdef object CFuture = getattr(futures, "_CFuture", None)
cdef object Gathering = getattr(tasks, "_GatheringFuture", None)
cdef object ConcurrentFuture = __import__("concurrent.futures").futures.Future
cdef object awaited_by = getattr(CTask, "_fut_waiter").__get__ if CTask is not None else None
cdef object noted_of = getattr(CTask, "_source_traceback").__get__ if CTask is not None else None
cdef enum:
    LONGEST = 200                      # coroutines in a chain that are looked at


class _Rule:
    """What a function of asyncio's waits for. kind: the sort of wait; on: the class of what it waits on, or None."""

    def __init__(self, kind, on=None):
        self.kind = kind
        self.on = on


cdef dict RULES = {}                   # id of a code: its rule. The codes are asyncio's, and stay


def _rule(kind, on, *functions):
    for owner, name in functions:
        function = getattr(owner, name, None)
        code = getattr(function, "__code__", None)
        if code is not None:
            RULES[id(code)] = _Rule(kind, on)


_rule("sleep", None, (tasks, "sleep"))
_rule("lock", locks.Lock, (locks.Lock, "acquire"), (locks._ContextManagerMixin, "__aenter__"))
_rule("event wait", locks.Event, (locks.Event, "wait"))
_rule("condition wait", locks.Condition, (locks.Condition, "wait"), (locks.Condition, "wait_for"))
_rule("semaphore acquire", locks.Semaphore, (locks.Semaphore, "acquire"))
_rule("barrier wait", locks.Barrier, (locks.Barrier, "wait"), (locks.Barrier, "_block"), (locks.Barrier, "_wait"))
_rule("queue get", queues.Queue, (queues.Queue, "get"))
_rule("queue put", queues.Queue, (queues.Queue, "put"))
_rule("queue join", queues.Queue, (queues.Queue, "join"))
_rule("IO read", streams.StreamReader, *((streams.StreamReader, name) for name in (
    "read", "readline", "readuntil", "readexactly", "_wait_for_data", "__anext__")))
_rule("IO write", streams.StreamWriter, (streams.StreamWriter, "drain"), (streams.FlowControlMixin, "_drain_helper"))
_rule("close of a connection", streams.StreamWriter, (streams.StreamWriter, "wait_closed"))
_rule("process", asyncio.subprocess.Process, (asyncio.subprocess.Process, "wait"),
      (asyncio.subprocess.Process, "communicate"), (base_subprocess.BaseSubprocessTransport, "_wait"))
_rule("executor", None, (threads, "to_thread"), (base_events.BaseEventLoop, "run_in_executor"))
_rule("name lookup", None, (base_events.BaseEventLoop, "getaddrinfo"), (base_events.BaseEventLoop, "getnameinfo"),
      (base_events.BaseEventLoop, "_ensure_resolved"))
_rule("wait", None, (tasks, "wait"), (tasks, "_wait"))
_rule("task group", None, (asyncio.TaskGroup, "__aexit__"), (asyncio.TaskGroup, "_aexit"))
_rule("serve", None, (base_events.Server, "serve_forever"))
_rule("close of a server", None, (base_events.Server, "wait_closed"))
_rule("connect", None, (base_events.BaseEventLoop, "create_connection"), (streams, "open_connection"))
_rule("IO connect", None, (base_events.BaseEventLoop, "_connect_sock"), (base_events.BaseEventLoop, "sock_connect"))

cdef set WRAPPERS = {id(tasks.wait_for.__code__)}      # they wait for what their argument waits for
cdef object CHAINED = next(                            # the callback of a future that an executor's future completes
    code for code in futures._chain_future.__code__.co_consts
    if isinstance(code, types.CodeType) and code.co_name == "_call_check_cancel")


def add_rule(kind, *functions):
    """Say what functions of goloop's wait for."""
    for function in functions:
        RULES[id(function.__code__)] = _Rule(kind)


cdef object yields_from(object coroutine):
    """What a coroutine, a generator or a helper of these awaits; None: nothing, or that is not told."""
    cdef type kind = type(coroutine)
    if kind is Coroutine:
        return coroutine.cr_await
    if kind is Generator:
        return coroutine.gi_yieldfrom
    if kind is AsyncGenerator:
        return coroutine.ag_await
    if is_helper(kind):
        for inner in referents(coroutine):
            if type(inner) in (Coroutine, Generator, AsyncGenerator) or is_helper(type(inner)):
                return inner
    return None


cdef dict helpers = {}                 # type: whether it leads to a coroutine. The first ones that come; types are few


cdef bint is_helper(type kind):
    cdef object known = helpers.get(kind)
    if known is None:
        known = kind.__name__ in HELPERS and kind.__module__ == "builtins" or kind.__module__.startswith("_cython")
        if len(helpers) < 1000:
            helpers[kind] = known
    return known


cdef frozenset HELPERS = frozenset(
    ("coroutine_wrapper", "async_generator_asend", "async_generator_athrow", "anext_awaitable"))


cdef object frame_of(object coroutine):
    cdef type kind = type(coroutine)
    if kind is Coroutine:
        return coroutine.cr_frame
    if kind is Generator:
        return coroutine.gi_frame
    if kind is AsyncGenerator:
        return coroutine.ag_frame
    return None


def loops_of(list every):
    """Return {id: loop} for the loops of tasks."""
    cdef dict found = {}
    cdef object loop, last = None
    for task in every:
        loop = CTask.get_loop(task) if CTask is not None and is_a(task, CTask) else field(task, "_loop")
        if loop is not last and loop is not None:
            found[<size_t><void *>loop] = last = loop
    return found


def alive(list references):
    """Return what weak references refer to, as far as it is there."""
    return [thing for thing in [reference() for reference in references] if thing is not None]


cdef class TaskLook(Look):
    """A Look that knows of tasks."""

    cdef dict states                   # id of a task: (state, reason, since, stack)
    cdef object since                  # of the task that is looked at
    cdef object frame                  # the class of a stack's frame
    cdef readonly dict chains          # key of a task: its coroutines, outermost first
    cdef dict jobs                     # id of a concurrent future: what runs for it, in words
    cdef dict titles                   # key: what to call a task in a reason

    def __init__(self, wait, tuple names, stack, frame, dict jobs):
        """frame: the class of a stack's frame. jobs: id of a concurrent.futures.Future: where its function is."""
        super().__init__(wait, names, stack)
        self.frame = frame
        self.states = {}
        self.chains = {}
        self.jobs = jobs

    def tasks(self, cls, tuple names, list every, dict running, dict goroutines):
        """Return an object of the class, with these fields, for each task that is not done.

        running: ids of the tasks that run. goroutines: id of a task: the key of the goroutine that it is.
        """
        cdef Shape shape = Shape(cls, names)
        cdef list found = []
        cdef bint gc = pause_gc()
        try:
            for task in every:
                if not is_done(task):
                    found.append(self.task(shape, task, running, goroutines))
            return found
        finally:
            resume_gc(gc)

    cdef object task(self, Shape shape, object task, dict running, dict goroutines):
        cdef bint in_c = CTask is not None and is_a(task, CTask)
        cdef object coroutine = CTask.get_coro(task) if in_c else field(task, "_coro")
        cdef object name = CTask.get_name(task) if in_c else field(task, "_name")
        cdef object loop = CTask.get_loop(task) if in_c else field(task, "_loop")
        cdef object future = awaited_by(task) if in_c else field(task, "_fut_waiter")
        cdef str key = self.key_of(task, "task")[0]
        cdef str state = "waiting"
        cdef object reason = None, since = None, stack
        cdef list chain = []
        cdef list places = []
        cdef object step = coroutine, frame
        cdef object noted = noted_of(task) if in_c else field(task, "_source_traceback")
        while step is not None and len(chain) < LONGEST:
            frame = frame_of(step)
            if frame is not None:
                chain.append(step)
                places.append(place_of(frame))
            step = yields_from(step)
        stack = self.stack_of(untracked(tuple(places)))
        self.chains[key] = chain
        if <size_t><void *>task in running:
            state = "running"
            frame = running[<size_t><void *>task]
            if frame is not None:
                stack = self.stack_of(frame)
        elif future is not None and not is_done(future):
            self.since = step_of(<void *>task) / 1e9 or None
            reason = self.task_reason(task, key, future, chain, places, loop)
            since = reason.since
        elif future is None and not started(coroutine):
            state = "not started"
        else:
            state = "ready"
        self.states[<size_t><void *>task] = state, reason, since, stack
        made = shape.make((
            key, name if type(name) is str else "", name_of_coroutine(coroutine), state,
            "" if loop is None else f"loop-{<size_t><void *>loop:x}", goroutines.get(<size_t><void *>task, ""),
            reason, since, stack, self.made_at(noted), "", cancel_requests(task),
        ))
        self.made[key] = made
        return made

    cdef object made_at(self, object summary):
        """The stack that asyncio has noted in debug mode."""
        if type(summary) is not StackSummary:
            return self.no_stack
        return self.stack.make(((), tuple([self.frame(frame.filename, frame.lineno, frame.name) for frame in summary])))

    cdef tuple state_of_task(self, object task):
        return self.states.get(<size_t><void *>task)

    # ------------------------------------------------------------ the reason
    cdef object task_reason(self, object task, str key, object future, list chain, list places, object loop):
        cdef Waiter waiter = self.waiters.get(<size_t><void *>future)
        cdef object rule
        cdef Py_ssize_t at
        if waiter is not None:
            return self.reason_of(waiter, key)
        if is_a(future, Task):
            return self.reason(key, "task", self.title(future), self.wait_on(future, "task", key), self.since, None)
        if Gathering is not None and type(future) is Gathering:
            return self.reason(key, "gather", "", self.tasks_among(field(future, "_children"), key), self.since, None)
        at = len(chain) - 1
        rule = None
        while at >= 0:
            found = RULES.get(<size_t><void *>(<tuple>places[at])[0])
            if found is None:
                break
            rule = found
            at -= 1
        at += 1
        if rule is None:
            return self.plain_reason(key, future, chain, places, loop)
        return self.by_rule(rule, key, future, chain, at, loop)

    cdef tuple wait_on(self, object thing, str kind, str actor):
        cdef tuple keys = self.key_of(thing, kind)
        self.in_line(keys, actor)
        return keys

    cdef tuple tasks_among(self, object things, str actor):
        cdef tuple keys = ()
        if type(things) in (list, tuple, set, frozenset):
            for thing in list(things):
                if is_a(thing, Task) and not is_done(thing):
                    keys += self.wait_on(thing, "task", actor)
        return keys

    cdef object plain_reason(self, str key, object future, list chain, list places, object loop):
        """No rule knows the function that awaits the future."""
        cdef object job, inner, until
        if chain and id((<tuple>places[len(places) - 1])[0]) in WRAPPERS:      # wait_for(), up to Python 3.11
            for inner in referents(chain[len(chain) - 1]):
                if is_a(inner, Task):
                    until = self.time_of(timer_among(chain[len(chain) - 1]), loop)
                    return self.reason(
                        key, "task", self.title(inner), self.wait_on(inner, "task", key), self.since, until)
        job = self.job_of(future)
        if job is not None:
            return self.reason(key, "executor", job, (), self.since, None)
        detail = f"in {(<tuple>places[len(places) - 1])[0].co_qualname}" if places else ""
        return self.reason(key, "future", detail, (), self.since, None)

    cdef object by_rule(self, object rule, str key, object future, list chain, Py_ssize_t at, object loop):
        cdef object coroutine = chain[at], thing = None
        cdef tuple keys = ()
        cdef str detail = "", kind = rule.kind
        cdef list parts = referents(coroutine)
        if kind == "sleep":
            return self.sleep_reason(parts, loop)
        if rule.on is not None:
            for part in parts:
                if is_a(part, rule.on) or (kind == "lock" and is_a(part, MIXIN)):
                    thing = part
                    break
        if kind == "lock" and thing is not None and not is_a(thing, locks.Lock):
            kind = "semaphore acquire" if is_a(thing, locks.Semaphore) else "condition lock"
            if is_a(thing, locks.Condition):
                thing = field(thing, "_lock")
        if kind in ("wait", "task group"):
            keys = self.tasks_of(parts, kind, key)
        elif kind in ("executor", "name lookup"):
            detail = self.job_of(future) or ""
        elif kind == "process":
            detail = pid_of(thing, parts)
        elif kind in ("IO read", "IO write", "close of a connection"):
            detail = peer_of(thing)
        elif thing is not None:
            detail = state_of(thing)
            keys = self.wait_on(thing, "asyncio", key)
        return self.reason(key, kind, detail, keys, self.since, None)

    cdef object sleep_reason(self, list parts, object loop):
        cdef object until = None, since = None
        for part in parts:
            if is_a(part, asyncio.TimerHandle) or type(part) is TimerHandle:
                until = self.time_of(part, loop)
                break
        if until is not None:
            for part in parts:
                if type(part) in (int, float):
                    since = until - part       # the delay
                    break
        return self.reason("", "sleep", "", (), since, until)

    cdef object time_of(self, object timer, object loop):
        """When a timer is due, on the monotonic clock; None if it is not known."""
        cdef object when
        if timer is None:
            return None
        when = (<TimerHandle>timer).when() if type(timer) is TimerHandle else field(timer, "_when")
        if type(when) not in (int, float):
            return None
        return when + (self.now - (<BubbleCore>loop).virtual if is_a(loop, BubbleCore) else 0.0)

    cdef tuple tasks_of(self, list parts, str kind, str key):
        """The tasks that asyncio.wait() or a TaskGroup waits for."""
        cdef tuple keys = ()
        for part in parts:
            if kind == "task group" and is_a(part, asyncio.TaskGroup):
                return self.tasks_among(field(part, "_tasks"), key)
            if kind == "wait" and type(part) in (set, frozenset):
                keys = self.tasks_among(part, key)
                if keys:
                    break
        return keys

    cdef object job_of(self, object future):
        """What a future of run_in_executor() waits for; None if it is none of these."""
        cdef object callbacks = field(future, "_callbacks")
        if type(callbacks) is not list:
            return None
        for entry in callbacks:
            function = entry[0] if type(entry) is tuple and entry else None
            if type(function) is types.FunctionType and function.__code__ is CHAINED:
                for cell in function.__closure__ or ():
                    source = cell_contents(cell)
                    if is_a(source, ConcurrentFuture):
                        return self.jobs.get(id(source), "queued")
        return None

    cdef str title(self, object task):
        name = CTask.get_name(task) if CTask is not None and is_a(task, CTask) else field(task, "_name")
        return name if type(name) is str else ""

    # ------------------------------------------------- who has asyncio's locks
    def lock_holders(self, keys):
        """Return {key of one of asyncio's locks: keys of the tasks that are in its `async with`}.

        keys: of the locks. A task that waits for a lock stands in front of a block, which looks the same: not counted.
        """
        cdef dict wanted = {<size_t><void *>self.on[key]: key for key in keys if key in self.on}
        cdef dict found = {}
        cdef list inside
        if not wanted:
            return found
        for task_key, chain in self.chains.items():
            inside = []
            for coroutine in <list>chain:
                entered(coroutine, wanted, inside)
            for key in set(inside):
                times = inside.count(key) - (task_key in self.lines.get(key, ()))
                if times > 0:
                    found.setdefault(key, []).append(task_key)
        return found

    def ends_by_itself(self, key):
        """Whether a timeout of asyncio's is open in a task, which ends its wait."""
        for coroutine in self.chains.get(key, ()):
            for part in referents(coroutine):
                if is_a(part, timeouts.Timeout) or type(part) is types.MethodType and is_a(
                        part.__self__, timeouts.Timeout):
                    timeout = part.__self__ if type(part) is types.MethodType else part
                    if field(timeout, "_when") is not None:
                        return True
                if type(part) is TimerHandle or is_a(part, asyncio.TimerHandle):
                    return True
        return False


cdef object MIXIN = locks._ContextManagerMixin


cdef int entered(object coroutine, dict wanted, list inside) except -1:
    """Add the keys of the locks in whose `async with` a coroutine is: what leaves them is on its stack."""
    cdef object before = None
    for part in referents(coroutine):
        if type(part) is types.MethodType:
            if part.__func__.__name__ == "__aexit__" and <size_t><void *>part.__self__ in wanted:
                inside.append(wanted[<size_t><void *>part.__self__])
        elif <size_t><void *>part in wanted and type(before) is types.FunctionType and before.__name__ == "__aexit__":
            inside.append(wanted[<size_t><void *>part])        # 3.14: the function, and below it the object
        before = part
    return 0


cdef object cell_contents(object cell):
    try:
        return cell.cell_contents
    except ValueError:
        return None


cdef object timer_among(object coroutine):
    for part in referents(coroutine):
        if type(part) is TimerHandle or is_a(part, asyncio.TimerHandle):
            return part
    return None


cdef bint started(object coroutine):
    cdef type kind = type(coroutine)
    return kind is not Coroutine or coroutine.cr_suspended or coroutine.cr_running or coroutine.cr_frame is None


cdef bint is_done(object future):
    """Whether a task or a future is done."""
    if CTask is not None and is_a(future, CTask):
        return CTask.done(future)
    if CFuture is not None and is_a(future, CFuture):
        return CFuture.done(future)
    state = field(future, "_state")
    return type(state) is str and state != "PENDING"


cdef str name_of_coroutine(object coroutine):
    cdef type kind = type(coroutine)
    if kind in (Coroutine, Generator, AsyncGenerator) or kind.__module__.startswith("_cython"):
        return coroutine.__qualname__
    return kind.__qualname__


cdef object cancel_requests(object task):
    if CTask is not None and is_a(task, CTask):
        return CTask.cancelling(task)
    number = field(task, "_num_cancels_requested")
    return number if type(number) is int else 0


cdef str pid_of(object process, list parts):
    """The number of the child process that is waited for."""
    cdef object transport = field(process, "_transport") if process is not None else None
    if transport is None:
        for part in parts:
            if is_a(part, base_subprocess.BaseSubprocessTransport):
                transport = part
                break
    pid = field(transport, "_pid") if transport is not None else None
    return str(pid) if type(pid) is int else ""


cdef str peer_of(object stream):
    """The address of the other end of a StreamReader or StreamWriter."""
    cdef object transport = field(stream, "_transport") if stream is not None else None
    cdef object extra = (<Transport>transport).extra if is_a(transport, Transport) else None
    return address_text(extra.get("peername")) if type(extra) is dict else ""


cdef str address_text(object address):
    if type(address) is tuple and len(address) >= 2 and type(address[0]) is str and type(address[1]) is int:
        host = address[0]
        return f"[{host}]:{address[1]}" if ":" in host else f"{host}:{address[1]}"
    return address if type(address) is str else ""


def text_of_address(address):
    """Return an address as a program writes it, "" for one of a kind that is not known."""
    return address_text(address)


cdef str state_of(object thing):
    """The state of one of asyncio's primitives in words."""
    cdef object limit
    if is_a(thing, queues.Queue):
        limit = field(thing, "_maxsize")
        held = field(thing, "_queue")
        n = len(held) if type(held) in (list, DEQUE) else None
        if n == 0:
            return "(empty)"
        return f"({n} of {limit})" if n is not None and type(limit) is int and limit > 0 else ""
    return ""


cdef object DEQUE = __import__("collections").deque
