"""For what can only block: a thread."""

from __future__ import annotations

import _thread
from collections.abc import Callable
from typing import Any, TypeVar

from goloop.chan import Chan
from goloop.core.sched.bubble import refuse_in_bubble
from goloop.core.sync.chan import use_anywhere
from goloop.runtime import fork

_T = TypeVar("_T")
_MAX_THREADS = 64  # that block on behalf of goroutines at once

_places: Chan[None] = Chan(_MAX_THREADS)
use_anywhere(_places)


def offload(function: Callable[..., _T], *args: Any, **kwargs: Any) -> _T:
    """Call it in a thread of its own while the goroutine parks; at most 64 at once, others wait their turn.

    A cancelled goroutine leaves the thread alone: it ends when the call does, and its result is dropped. RuntimeError
    in a bubble of goloop.testing.
    """
    refuse_in_bubble(f"{getattr(function, '__name__', function)}()")
    done: Chan[tuple[bool, Any]] = Chan(1)
    places = _places

    def work() -> None:
        outcome: tuple[bool, Any]
        try:
            outcome = True, function(*args, **kwargs)
        except BaseException as exc:
            outcome = False, exc
        places.try_recv()
        done.try_send(outcome)

    places.send(None)
    try:
        _thread.start_new_thread(work, ())
    except BaseException:
        places.try_recv()
        raise
    good, result = done.recv()
    if not good:
        try:
            raise result
        finally:
            del result  # the exception's traceback refers to this frame
    return result  # type: ignore[no-any-return]


def _after_fork_in_child() -> None:
    global _places
    _places = Chan(_MAX_THREADS)
    use_anywhere(_places)


fork.add(_after_fork_in_child)
