"""What every test is held to: it leaves no handle, transport, poll set, goroutine, thread or descriptor behind."""

import ctypes  # noqa: F401 - with its first import, Debian's libffi opens a descriptor for the life of the process
import gc
import os
import signal
import threading
import time

import pytest

import goloop
from goloop.core.loop import handles
from goloop.core.net import polldesc
from goloop.core.poll import pollset
from goloop.core.sched import scheduler
from goloop.core.transports import base as transports
from goloop.runtime import shutdown

_PYCARES = "_run_safe_shutdown_loop"  # a thread that aiohttp's resolver keeps for the life of the process


if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    # Started in the background by a shell: the tests' children would inherit that, and Ctrl-C is what some test.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_finish():
    """Keep what importing made out of the collections to come: there are several in every test."""
    gc.collect()
    gc.freeze()


def _counters():
    return {
        "handles": handles.live_handles(),
        "transports": transports.live_transports(),
        "poll descriptors": polldesc.live_polldescs(),
        "poll sets": pollset.stats()["pollsets"],
        "threads": sum(1 for t in threading.enumerate() if _PYCARES not in t.name),
        "goroutines": goloop.num_goroutine(),
        "descriptors": len(os.listdir("/proc/self/fd")),
    }


@pytest.fixture
def one_worker(monkeypatch):
    """For tests in which it matters who runs where: one worker, to which the monitor brings no other. On a machine that
    has too much to do it is right to: a worker that gets no processor looks like one that is stuck."""
    scheduler.stop_monitor()
    monkeypatch.setattr(scheduler, "start_monitor", lambda: None)
    goloop.go(int).join()
    assert len(scheduler.all_workers()) == 1


@pytest.fixture(autouse=True)
def _no_leaks():
    """Compare the counters before and after; whatever is still on its way out gets a moment to leave."""
    gc.collect()
    before = _counters()
    yield
    shutdown.shutdown()
    until = time.monotonic() + 5
    while True:
        gc.collect()
        left = {name: (before[name], n) for name, n in _counters().items() if n > before[name]}
        if not left or time.monotonic() > until:
            break
        time.sleep(0.01)
    assert not left, f"left behind (before, after): {left}"
