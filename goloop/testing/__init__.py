"""Tests of concurrent code: virtual time, schedules that a seed decides, a check for what is left behind.

A bubble() runs goroutines and coroutines on a clock that moves only when all of them wait (Go: testing/synctest).
explore() looks for a seed with which a test fails, and no_leaks() for what a block leaves behind (Go: goleak).
"""

from goloop.errors import DeadlockError, LeakError
from goloop.testing._bubble import async_wait, bubble, event_loop, run, wait
from goloop.testing._explore import explore
from goloop.testing._leaks import Leak, no_leaks

__all__ = [
    "DeadlockError",
    "Leak",
    "LeakError",
    "async_wait",
    "bubble",
    "event_loop",
    "explore",
    "no_leaks",
    "run",
    "wait",
]
