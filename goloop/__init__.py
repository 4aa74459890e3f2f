"""goloop: an asyncio event loop for Linux with a Go-style runtime."""

import importlib
from typing import TYPE_CHECKING, Any

from goloop import _environment, _main_interpreter  # noqa: F401  (refuses subinterpreters)
from goloop._eventloop.loop import Loop
from goloop.chan import Chan, ChannelClosed, async_select, recv, select, send
from goloop.core.sched.goroutine import Goroutine, current, go, num_goroutine
from goloop.core.sched.goroutine_api import blocking, goexit, gosched, lock_os_thread, sleep, wait
from goloop.errors import GoloopError
from goloop.policy import install, new_event_loop, run
from goloop.runtime.install import install as _install
from goloop.runtime.workers import gomaxprocs

if TYPE_CHECKING:
    from goloop import context, debug, errgroup, monkey, net, sync, testing, timer
    from goloop.policy import EventLoopPolicy

_environment.check()
_install()

__version__ = "0.1.0"
__all__ = [
    "Chan",
    "ChannelClosed",
    "EventLoopPolicy",
    "GoloopError",
    "Goroutine",
    "Loop",
    "__version__",
    "async_select",
    "blocking",
    "context",
    "current",
    "debug",
    "errgroup",
    "go",
    "goexit",
    "gomaxprocs",
    "gosched",
    "install",
    "lock_os_thread",
    "monkey",
    "net",
    "new_event_loop",
    "num_goroutine",
    "recv",
    "run",
    "select",
    "send",
    "sleep",
    "sync",
    "testing",
    "timer",
    "wait",
]

# Imported at the first use.
_SUBMODULES = {"context", "debug", "errgroup", "monkey", "net", "sync", "testing", "timer"}


def __getattr__(name: str) -> Any:
    if name in _SUBMODULES:
        return importlib.import_module(f"goloop.{name}")
    # Lazy: policies go away in Python 3.16, and only then does asking for this one fail.
    if name == "EventLoopPolicy":
        from goloop import policy

        if hasattr(policy, "EventLoopPolicy"):
            return policy.EventLoopPolicy
        raise AttributeError("this Python has no event loop policies: use goloop.run() or goloop.new_event_loop()")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
