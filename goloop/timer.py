"""Timers for goroutines, coroutines and plain threads: the public names of core.clock."""

from goloop.core.sync.timer_thread import FuncTimer, Ticker, Timer, after, after_func
from goloop.runtime import timer_thread as _clock  # noqa: F401 - it starts the thread on which they fire

__all__ = ["FuncTimer", "Ticker", "Timer", "after", "after_func"]
