"""time.sleep(), and in bubbles of goloop.testing the clocks."""

from __future__ import annotations

import time
from typing import Any

from goloop.core.patch.hook import hook_time, is_cooperative
from goloop.core.sched.bubble import bubble, monotonic
from goloop.core.sched.goroutine_api import gosched
from goloop.core.sched.goroutine_api import sleep as park

_LONGEST = 1e9  # seconds; near the greatest number that time.sleep() takes
_clocks_patched = False


def _sleep(seconds: Any, /) -> None:
    loop: Any = bubble()
    if not isinstance(seconds, (int, float)) or not 0 <= seconds < _LONGEST:
        _original(seconds)  # a wrong argument, most likely
    elif loop is not None and not is_cooperative():
        loop._advance(seconds)  # a coroutine or a callback: it keeps its loop waiting
    elif seconds == 0:
        gosched()
    else:
        park(seconds)


def _original(seconds: Any, /) -> None:
    raise NotImplementedError("not patched")


def _monotonic_ns() -> int:
    return round(monotonic() * 1e9)


def _time() -> float:
    loop: Any = bubble()
    return loop._wall_clock()  # type: ignore[no-any-return]


def _time_ns() -> int:
    loop: Any = bubble()
    return loop._wall_clock_ns()  # type: ignore[no-any-return]


def patch() -> None:
    global _original
    _original = hook_time(time.sleep, _sleep, goroutines=True)


def patch_clocks() -> None:
    """Let the clocks show a bubble's time inside of it; for goloop.testing, if time.sleep() is patched."""
    global _clocks_patched
    if not _clocks_patched:
        _clocks_patched = True
        for function in (time.monotonic, time.perf_counter):
            hook_time(function, monotonic)
        for function in (time.monotonic_ns, time.perf_counter_ns):
            hook_time(function, _monotonic_ns)
        hook_time(time.time, _time)
        hook_time(time.time_ns, _time_ns)
