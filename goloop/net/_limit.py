"""How long a dial may take: a number of seconds, and a Context that may be cancelled."""

from __future__ import annotations

import math
from time import monotonic

from goloop.context import Context
from goloop.errors import DeadlineExceeded


class Limit:
    """Until a time on the monotonic clock (None: for ever), and as long as the context is not done (None: there is
    none)."""

    __slots__ = ("context", "until")

    def __init__(self, until: float | None, context: Context | None) -> None:
        self.until = until
        self.context = context

    def left(self) -> float | None:
        """The seconds that are left; None: any number. TimeoutError if there are none, and the context's error if that
        is done."""
        context, until = self.context, self.until
        now = monotonic()
        if context is not None:
            err = context.err()
            if err is not None:
                raise err
            deadline = context.deadline()
            if deadline is not None:
                if deadline <= now:
                    raise DeadlineExceeded("context deadline exceeded")  # its alarm has not rung yet
                until = deadline if until is None else min(until, deadline)
        if until is None:
            return None
        if until <= now:
            raise TimeoutError
        return until - now

    def within(self, seconds: float) -> Limit:
        """This limit, and that many seconds from now."""
        until = monotonic() + seconds
        return Limit(until if self.until is None else min(until, self.until), self.context)


def limit(timeout: float | None, context: Context | None, what: str) -> Limit:
    """The limit that a caller has asked for. TypeError or ValueError for a bad timeout or context; `what` names the
    function."""
    if context is not None and not isinstance(context, Context):
        raise TypeError(f"{what}: ctx is a goloop.context.Context, got {context!r}")
    if timeout is None:
        return Limit(None, context)
    if not hasattr(timeout, "__float__"):  # float() takes what can be read as a number, too
        raise TypeError(f"{what}: a timeout is a number of seconds or None, got {timeout!r}")
    seconds = float(timeout)
    if math.isnan(seconds):
        raise ValueError(f"{what}: a timeout cannot be NaN")
    return Limit(monotonic() + seconds, context)
