"""Go's package context: deadlines, cancellation and values that go with a request through goroutines and coroutines.

A Context says that it is cancelled by closing its done() channel; nothing is interrupted. A waiter uses a select with
done(), in a goroutine, a coroutine or a plain thread, and everything here may be called from any of them.

A _Scope is a set of contexts that are cancelled together. Its fields are changed by single operations of dicts, which
are atomic, and in an order that lets two threads that meet each see what the other did; so there is no lock that a
finalizer could meet again. Deadlines fire on the clock's thread (sync/timer_thread.pyx), whatever the thread or loop
where they were set is doing.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from goloop._on_signal import call_on
from goloop.core.sched.bubble import monotonic
from goloop.core.sync.chan import Chan, check_edge, use_anywhere
from goloop.core.sync.timer_thread import CallbackTimer, GoroutineTimer
from goloop.errors import Canceled, ChannelClosed, DeadlineExceeded, SignalReceived

__all__ = [
    "CancelCauseFunc",
    "CancelFunc",
    "Canceled",
    "Context",
    "DeadlineExceeded",
    "SignalReceived",
    "WithCancel",
    "WithCancelCause",
    "after_func",
    "background",
    "cause",
    "notify",
    "todo",
    "with_cancel",
    "with_cancel_cause",
    "with_deadline",
    "with_timeout",
    "with_value",
    "without_cancel",
]

_FURTHEST: Final = 1e9  # seconds; the clock's time is further away

_Err = type[Canceled] | type[DeadlineExceeded]
_TEXT: Final[dict[_Err, str]] = {Canceled: "context canceled", DeadlineExceeded: "context deadline exceeded"}


class _Done(Chan[None]):
    """A done() channel: only its context closes it."""

    def close(self) -> None:
        raise RuntimeError("a context's done() channel is closed by its cancel function, or its deadline")

    def send(self, value: None, timeout: float | None = None) -> None:
        raise RuntimeError("nothing is sent on a context's done() channel: it is closed")

    async def async_send(self, value: None, timeout: float | None = None) -> None:
        raise RuntimeError("nothing is sent on a context's done() channel: it is closed")

    def try_send(self, value: None) -> bool:
        raise RuntimeError("nothing is sent on a context's done() channel: it is closed")


_never = _Done()  # of contexts that are never cancelled
use_anywhere(_never)


class _Node:
    """A thing that a scope cancels in its turn: another scope, or an after_func()."""

    __slots__ = ("_above",)

    def __init__(self) -> None:
        self._above: _Scope | None = None

    def take(self, err: _Err, cause: BaseException | None) -> list[_Node]:
        """Cancel this one, unless it is already. Returns what is to be cancelled next."""
        raise NotImplementedError

    def join(self, above: _Scope | None) -> None:
        """Be cancelled with that one."""
        if above is None:
            return
        check_edge(above.done)
        self._above = above
        above.children[self] = None  # first; a canceller stores the outcome first: one of both sees the other
        outcome = above.outcome()
        if outcome is not None:
            above.children.pop(self, None)
            _cancel(self, *outcome)

    def leave(self) -> None:
        above = self._above
        if above is not None:
            above.children.pop(self, None)
            self._above = None


def _cancel(node: _Node, err: _Err, cause: BaseException | None) -> None:
    """Cancel it and all below. Without recursion: trees may be deep."""
    todo = [node]
    failed: Exception | None = None
    while todo:
        try:
            todo += reversed(todo.pop().take(err, cause))
        except Exception as exc:  # a goroutine could not be started: that must not keep the rest from being cancelled
            failed = exc
    node.leave()
    if failed is not None:
        raise failed


class _Scope(_Node):
    __slots__ = ("_outcome", "children", "done", "entry")

    def __init__(self) -> None:
        super().__init__()
        self.done: _Done = _Done()
        self.children: dict[_Node, None] = {}
        self.entry: CallbackTimer | None = None  # the deadline's
        self._outcome: dict[str, tuple[_Err, BaseException | None]] = {}

    def outcome(self) -> tuple[_Err, BaseException | None] | None:
        return self._outcome.get("")

    def take(self, err: _Err, cause: BaseException | None) -> list[_Node]:
        outcome = (err, cause)
        if self._outcome.setdefault("", outcome) is not outcome:
            return []
        if self.entry is not None:
            self.entry.clear()
            self.entry = None
        try:
            Chan.close(self.done)
        except ChannelClosed:
            pass  # a caller used Chan.close() itself
        below: list[_Node] = []
        while self.children:
            try:
                child, _ = self.children.popitem()
            except KeyError:
                break  # the last one left by itself
            child._above = None
            below.append(child)
        return below[::-1]  # popitem() begins with the youngest


class _AfterFunc(_Node):
    __slots__ = ("_start",)

    def __init__(self, start: GoroutineTimer) -> None:
        super().__init__()
        self._start = {"": start}

    def take(self, err: _Err, cause: BaseException | None) -> list[_Node]:
        start = self._start.pop("", None)
        if start is not None:
            start.start()
        return []

    def stop(self) -> bool:
        stopped = self._start.pop("", None) is not None
        self.leave()
        return stopped


class _Told(_Node):
    """A function to be called when the context is cancelled, there and then: it must not wait."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable[[], None]) -> None:
        super().__init__()
        self._function = {"": function}

    def take(self, err: _Err, cause: BaseException | None) -> list[_Node]:
        function = self._function.pop("", None)
        if function is not None:
            function()
        return []


class Context:
    """A deadline, a cancellation and values that go with a request (Go: context.Context).

    Made by background(), todo() and the with_…() functions. Immutable; from any thread, goroutine or coroutine, any
    number of them at once.
    """

    __slots__ = ("__weakref__", "_deadline", "_key", "_name", "_parent", "_scope", "_value")

    def __init__(
        self,
        parent: Context | None,
        name: str,
        scope: _Scope | None,
        deadline: float | None,
        key: object = None,
        value: object = None,
    ) -> None:
        self._parent = parent
        self._name = name
        self._scope = scope
        self._deadline = deadline
        self._key = key  # None: it has no value
        self._value = value

    def __repr__(self) -> str:
        names = []
        context: Context | None = self
        while context is not None:
            names.append(context._name)
            context = context._parent
        err = self.err()
        state = "" if err is None else f" [{err}]"
        return f"<Context {'.'.join(reversed(names))}{state}>"

    def done(self) -> Chan[None]:
        """Return the channel that is closed when this context is cancelled, always the same (Go: Context.Done).

        It is for `recv(ctx.done())` in select(). That of a context that is never cancelled stays open. From any thread,
        goroutine or coroutine.
        """
        return _never if self._scope is None else self._scope.done

    def err(self) -> Canceled | DeadlineExceeded | None:
        """Return None until done() is closed, then the reason: Canceled or DeadlineExceeded (Go: Context.Err).

        Its __cause__ is the cause that was given, if any. Each call returns an exception of its own, so it can be
        raised. From any thread, goroutine or coroutine.
        """
        outcome = None if self._scope is None else self._scope.outcome()
        if outcome is None:
            return None
        err = outcome[0](_TEXT[outcome[0]])
        err.__cause__ = outcome[1]
        return err

    def deadline(self) -> float | None:
        """Return the time by which it is cancelled at the latest (Go: Context.Deadline).

        It is in seconds of time.monotonic(); None: it has no deadline. From any thread, goroutine or coroutine.
        """
        return self._deadline

    def _on_cancel(self, function: Callable[[], None]) -> Callable[[], None]:
        """For core.net: call function() when this context is cancelled, or at once if it is.

        It is called in the thread that cancels. Returns the function that undoes it.
        """
        node = _Told(function)
        node.join(self._scope)
        return node.leave

    def value(self, key: object) -> Any:
        """Return the value that with_value() gave to a key, the innermost one (Go: Context.Value).

        key: an object that equals the one given to with_value(). Returns None if there is none. From any thread,
        goroutine or coroutine.
        """
        context: Context | None = self
        while context is not None:
            if context._key is not None and (context._key is key or context._key == key):
                return context._value
            context = context._parent
        return None


class CancelFunc:
    """Cancels a context; made by with_cancel() and others (Go: context.CancelFunc).

    Call it from any thread, goroutine or coroutine, any number of times. `with cancel:` calls it at the end.
    """

    __slots__ = ("_scope",)

    def __init__(self, scope: _Scope) -> None:
        self._scope = scope

    def __call__(self) -> None:
        """Cancel the context and those made from it, and release their resources.

        From any thread, goroutine or coroutine.
        """
        _cancel(self._scope, Canceled, None)

    def __enter__(self) -> None:
        return None

    def __exit__(self, *exc: object) -> None:
        _cancel(self._scope, Canceled, None)


class CancelCauseFunc(CancelFunc):
    """Cancels a context, and says why; made by with_cancel_cause() (Go: context.CancelCauseFunc).

    Call it as cancel(cause) from any thread, goroutine or coroutine, any number of times. cause: the exception that
    cause(ctx) is to return; None: Canceled. Only the first call counts. `with cancel:` calls it at the end, without a
    cause.
    """

    __slots__ = ()

    def __call__(self, cause: BaseException | None = None) -> None:
        """Cancel the context and those made from it. From any thread, goroutine or coroutine.

        cause: the exception that cause(ctx) is to return; None: Canceled; TypeError for anything else. Only the first
        one counts.
        """
        if cause is not None and not isinstance(cause, BaseException):
            raise TypeError(f"a cause is an exception, got {cause!r}")
        _cancel(self._scope, Canceled, cause)


class WithCancel(NamedTuple):
    """A context and its cancel function: `ctx, cancel = …`, or `with … as ctx:`, which cancels at the end.

    context: the Context. cancel: its CancelFunc. From any thread, goroutine or coroutine.
    """

    context: Context
    cancel: CancelFunc

    def __enter__(self) -> Context:
        return self.context

    def __exit__(self, *exc: object) -> None:
        self.cancel()


class WithCancelCause(NamedTuple):
    """A context and its cancel function that takes a cause; `with … as ctx:` cancels at the end, without a cause.

    context: the Context. cancel: its CancelCauseFunc. From any thread, goroutine or coroutine.
    """

    context: Context
    cancel: CancelCauseFunc

    def __enter__(self) -> Context:
        return self.context

    def __exit__(self, *exc: object) -> None:
        self.cancel()


_background = Context(None, "background", None, None)
_todo = Context(None, "todo", None, None)


def background() -> Context:
    """Return the root of all contexts, which is never cancelled and has no values (Go: context.Background).

    From any thread, goroutine or coroutine.
    """
    return _background


def todo() -> Context:
    """Return a context such as background(), for a place where the right one is not clear yet (Go: context.TODO).

    From any thread, goroutine or coroutine.
    """
    return _todo


def _check(parent: Context) -> None:
    if not isinstance(parent, Context):
        raise TypeError(f"a Context is needed, got {parent!r}: the outermost one is background()")


def _seconds(value: float, name: str) -> float:
    if isinstance(value, str) or not hasattr(value, "__float__"):
        raise TypeError(f"{name} is a number of seconds, got {value!r}")
    seconds = float(value)
    if math.isnan(seconds):
        raise ValueError(f"{name} cannot be NaN")
    return seconds


def with_cancel(parent: Context) -> WithCancel:
    """Return a context made from parent, and the function that cancels it (Go: context.WithCancel).

    parent: a Context (else TypeError), with which the new one is cancelled, too. Returns a WithCancel. Call the
    function, or use `with`, as soon as the context is of no more use: a parent keeps all that it may have to cancel.
    From any thread, goroutine or coroutine.
    """
    _check(parent)
    scope = _Scope()
    context = Context(parent, "with_cancel", scope, parent._deadline)
    scope.join(parent._scope)
    return WithCancel(context, CancelFunc(scope))


def with_cancel_cause(parent: Context) -> WithCancelCause:
    """Return a context made from parent, and the function that cancels it with a cause (Go: context.WithCancelCause).

    parent: a Context (else TypeError), with which the new one is cancelled, too. Returns a WithCancelCause. Call the
    function, or use `with`, as soon as the context is of no more use: a parent keeps all that it may have to cancel.
    From any thread, goroutine or coroutine.
    """
    _check(parent)
    scope = _Scope()
    context = Context(parent, "with_cancel_cause", scope, parent._deadline)
    scope.join(parent._scope)
    return WithCancelCause(context, CancelCauseFunc(scope))


def with_deadline(parent: Context, deadline: float, cause: BaseException | None = None) -> WithCancel:
    """Return a context that is cancelled at a time at the latest, with DeadlineExceeded (Go: context.WithDeadline).

    parent: a Context (else TypeError), with which the new one is cancelled, too. deadline: in seconds of
    time.monotonic(); the parent's if that is earlier. cause: an exception that cause(ctx) returns after this deadline
    (Go: WithDeadlineCause); None: DeadlineExceeded. Returns a WithCancel, whose function is to be called as soon as the
    context is of no more use. ValueError for a deadline that is more than 30 years away, as one in seconds of
    time.time() is, or NaN. From any thread, goroutine or coroutine.
    """
    when = _seconds(deadline, "a deadline")
    if _FURTHEST < when - monotonic() < math.inf:
        raise ValueError(f"a deadline is in seconds of time.monotonic(), and {deadline!r} is more than 30 years away")
    return _with_deadline(parent, when, cause, "with_deadline")


def with_timeout(parent: Context, seconds: float, cause: BaseException | None = None) -> WithCancel:
    """Return a context that is cancelled after a time at the latest, with DeadlineExceeded (Go: context.WithTimeout).

    parent: a Context (else TypeError), with which the new one is cancelled, too. seconds: from now; the parent's
    deadline counts if that is earlier. cause: an exception that cause(ctx) returns after this deadline (Go:
    WithTimeoutCause); None: DeadlineExceeded. Returns a WithCancel, whose function is to be called as soon as the
    context is of no more use. ValueError for more than 30 years, or NaN. From any thread, goroutine or coroutine.
    """
    timeout = _seconds(seconds, "a timeout")
    if _FURTHEST < timeout < math.inf:
        raise ValueError(f"a timeout is a number of seconds from now, and {seconds!r} is more than 30 years")
    return _with_deadline(parent, monotonic() + timeout, cause, "with_timeout")


def _with_deadline(parent: Context, deadline: float, cause: BaseException | None, name: str) -> WithCancel:
    _check(parent)
    if cause is not None and not isinstance(cause, BaseException):
        raise TypeError(f"a cause is an exception, got {cause!r}")
    if parent._deadline is not None and parent._deadline <= deadline:
        return with_cancel(parent)
    scope = _Scope()
    context = Context(parent, name, scope, deadline)
    entry = CallbackTimer(lambda: _cancel(scope, DeadlineExceeded, cause))
    scope.entry = entry
    scope.join(parent._scope)
    if deadline <= monotonic():
        _cancel(scope, DeadlineExceeded, cause)
    elif scope.outcome() is None:
        try:
            entry.set(deadline)
        except BaseException:
            scope.leave()  # the clock's thread could not be started: it was never made
            raise
        if scope.outcome() is not None:
            entry.clear()  # it was cancelled just before the entry was set
    return WithCancel(context, CancelFunc(scope))


def with_value(parent: Context, key: object, value: object) -> Context:
    """Return a context made from parent in which value(key) is value (Go: context.WithValue).

    parent: a Context (else TypeError), with which the new one is cancelled. key: anything but None (TypeError) that can
    be compared; best an object of a type of its own, so that no two modules choose the same. value: any object. From
    any thread, goroutine or coroutine.
    """
    _check(parent)
    if key is None:
        raise TypeError("a context's key cannot be None")
    return Context(parent, f"with_value({key!r})", parent._scope, parent._deadline, key, value)


class _NotifyCancelFunc(CancelFunc):
    __slots__ = ("_leave",)

    def __init__(self, scope: _Scope, leave: Callable[[], None]) -> None:
        super().__init__(scope)
        self._leave = leave

    def __call__(self) -> None:
        self._leave()
        super().__call__()

    def __exit__(self, *exc: object) -> None:
        self()


def notify(parent: Context, *signals: int) -> WithCancel:
    """Return a context made from parent that is cancelled when a signal comes (Go: signal.NotifyContext).

    parent: a Context (else TypeError), with which the new one is cancelled, too. signals: one or more of signal.SIGINT,
    signal.SIGTERM and others; TypeError for none and for what is no number, ValueError for what is no signal, OSError
    for one that cannot be handled. cause(ctx) is SignalReceived then, with the number. Returns a WithCancel; its cancel
    function, or the end of `with`, gives the signals back to the handlers that they had before. Until then these do not
    see them: SIGINT raises no KeyboardInterrupt. Call it in the main thread, as Python sets signal handlers there alone
    (RuntimeError elsewhere); the context and the cancel function are for any thread, goroutine or coroutine. Called
    elsewhere, the cancel function lets a handler come back with the next signal, which it gets.
    """
    _check(parent)
    if not signals or not all(isinstance(signum, int) for signum in signals):
        raise TypeError(f"notify() takes a context and the numbers of signals, got {signals!r}")
    scope = _Scope()
    context = Context(parent, "notify", scope, parent._deadline)
    leave = call_on(signals, lambda signum: _cancel(scope, Canceled, SignalReceived(signum)))
    scope.join(parent._scope)
    return WithCancel(context, _NotifyCancelFunc(scope, leave))


def without_cancel(parent: Context) -> Context:
    """Return a context with the values of parent that is not cancelled with it (Go: context.WithoutCancel).

    parent: a Context (else TypeError). The new one has no deadline. From any thread, goroutine or coroutine.
    """
    _check(parent)
    return Context(parent, "without_cancel", None, None)


def after_func(context: Context, function: Callable[..., object], /, *args: Any, **kwargs: Any) -> Callable[[], bool]:
    """Call function(*args, **kwargs) in a goroutine of its own when a context is cancelled (Go: context.AfterFunc).

    context: a Context (else TypeError); the function is called at once if it is cancelled already. function: a plain
    function or a coroutine function; TypeError for anything else. args, kwargs: its arguments. It runs in a copy of the
    caller's contextvars context, as with go(). Returns a function that gives up on it: True if it was not called and
    will not be, False if it was called, or given up before. From any thread, goroutine or coroutine.
    """
    _check(context)
    node = _AfterFunc(GoroutineTimer(function, args, kwargs))
    node.join(context._scope)
    return node.stop


def cause(context: Context) -> BaseException | None:
    """Return why a context was cancelled (Go: context.Cause): the cause that was given, or else its err().

    context: a Context (else TypeError). Returns None while it is not cancelled. From any thread, goroutine or
    coroutine.
    """
    _check(context)
    outcome = None if context._scope is None else context._scope.outcome()
    if outcome is not None and outcome[1] is not None:
        return outcome[1]
    return context.err()
