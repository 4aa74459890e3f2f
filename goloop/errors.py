"""Exceptions of goloop's own. The bottom of the package: this module imports nothing of it."""

from collections.abc import Iterable
from typing import Any


class GoloopError(Exception):
    """The base of every exception that goloop defines."""


class ChannelClosed(GoloopError):
    """Raised by receiving from a closed and drained channel, by sending on a closed one, and by closing it twice."""


class ClosedError(GoloopError, OSError):
    """Raised by using a connection or listener of goloop.net that was closed, also during the call (Go: net.ErrClosed).

    Its errno is EBADF.
    """


class Canceled(GoloopError):
    """A context was cancelled (Go: context.Canceled).

    Context.err() returns it, and calls with a `ctx` raise it.
    """


class SignalReceived(GoloopError):
    """The cause of a context that context.notify() made and a signal has cancelled. signum: its number (int)."""

    def __init__(self, signum: int) -> None:
        super().__init__(signum)
        self.signum = signum

    def __str__(self) -> str:
        return f"signal {self.signum} was received"


class DeadlineExceeded(GoloopError, TimeoutError):
    """A context's deadline has passed (Go: context.DeadlineExceeded).

    Context.err() returns it, and calls with a `ctx` raise it.
    """


class DeadlockError(GoloopError):
    """Nothing can ever go on any more (Go: "all goroutines are asleep - deadlock!", and synctest's deadlock panic).

    A thread that waits for a goroutine, a channel or a lock raises it, and run() and run_until_complete(), once there
    is no timer, descriptor, signal handler, thread, executor or other loop that could wake any goroutine or task. In a
    bubble of goloop.testing the bubble counts alone. Its text is a dump: what each waits for, and where.
    """


class LeakError(GoloopError, AssertionError):
    """A block of goloop.testing.no_leaks() has left something behind.

    leaks: a list of goloop.testing.Leak, which its text shows.
    """

    def __init__(self, text: str, leaks: Iterable[Any] = ()) -> None:
        super().__init__(text)
        self.leaks: list[Any] = list(leaks)
