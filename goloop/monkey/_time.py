"""time.sleep()."""

from __future__ import annotations

import time
from typing import Any

from goloop.core.patch.hook import hook
from goloop.core.sched.goroutine_api import gosched
from goloop.core.sched.goroutine_api import sleep as park

_LONGEST = 1e9  # seconds; near the greatest number that time.sleep() takes


def _sleep(seconds: Any, /) -> None:
    if not isinstance(seconds, (int, float)) or not 0 <= seconds < _LONGEST:
        _original(seconds)  # a wrong argument, most likely
    elif seconds == 0:
        gosched()
    else:
        park(seconds)


def _original(seconds: Any, /) -> None:
    raise NotImplementedError("not patched")


def patch() -> None:
    global _original
    _original = hook(time.sleep, _sleep)
