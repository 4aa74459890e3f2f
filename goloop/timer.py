"""Timers for goroutines, coroutines and plain threads: the public names of core.sync.timer_thread."""

from goloop.core.sync.timer_thread import FuncTimer, Ticker, Timer, after, after_func

__all__ = ["FuncTimer", "Ticker", "Timer", "after", "after_func"]
