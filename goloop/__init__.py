"""goloop: an asyncio event loop for Linux with a Go-style runtime."""

import importlib
from typing import TYPE_CHECKING, Any

from goloop import _environment, _main_interpreter  # noqa: F401  (refuses subinterpreters)
from goloop._eventloop.loop import Loop
from goloop.chan import (
    Chan,
    ChannelClosed,
    RecvChan,
    SendChan,
    async_choose,
    async_select,
    choose,
    recv,
    select,
    send,
)
from goloop.core.sched.goroutine import Goroutine, current, go, goroutines, num_goroutine
from goloop.core.sched.goroutine_api import blocking, goexit, gosched, lock_os_thread, sleep, wait
from goloop.core.sched.timeout import timeout
from goloop.errors import GoloopError
from goloop.policy import install, new_event_loop, run
from goloop.runtime.install import install as _install
from goloop.runtime.workers import gomaxprocs

if TYPE_CHECKING:
    from goloop import context, debug, errgroup, monkey, net, rate, singleflight, sync, testing, timer
    from goloop._together import (
        async_first,
        async_join_all,
        async_map,
        async_map_unordered,
        first,
        join_all,
        map,
        map_unordered,
    )
    from goloop.policy import EventLoopPolicy as EventLoopPolicy


def _nothing_moves(found: Any) -> tuple[BaseException | None, Any]:
    from goloop.debug import _asleep  # only a program that waits for good needs it

    return _asleep.look(found)


def _look_out() -> None:
    from goloop.debug import _lookout  # only a program that is watched needs it

    _lookout.start()


_environment.check()
_install(_nothing_moves, _look_out)

__version__ = "0.1.0"
__all__ = [
    "Chan",
    "ChannelClosed",
    "GoloopError",
    "Goroutine",
    "Loop",
    "RecvChan",
    "SendChan",
    "__version__",
    "async_choose",
    "async_first",
    "async_join_all",
    "async_map",
    "async_map_unordered",
    "async_select",
    "blocking",
    "choose",
    "context",
    "current",
    "debug",
    "errgroup",
    "first",
    "go",
    "goexit",
    "gomaxprocs",
    "goroutines",
    "gosched",
    "install",
    "join_all",
    "lock_os_thread",
    "map",
    "map_unordered",
    "monkey",
    "net",
    "new_event_loop",
    "num_goroutine",
    "rate",
    "recv",
    "run",
    "select",
    "send",
    "singleflight",
    "sleep",
    "sync",
    "testing",
    "timeout",
    "timer",
    "wait",
]

# Imported at the first use. EventLoopPolicy is not in __all__, for `from goloop import *` asks for all that is, and
# policies are deprecated.
_SUBMODULES = {"context", "debug", "errgroup", "monkey", "net", "rate", "singleflight", "sync", "testing", "timer"}
_TOGETHER = {
    *("async_first", "async_join_all", "async_map", "async_map_unordered"),
    *("first", "join_all", "map", "map_unordered"),
}


def __getattr__(name: str) -> Any:
    if name in _SUBMODULES:
        return importlib.import_module(f"goloop.{name}")
    if name in _TOGETHER:
        from goloop import _together

        return globals().setdefault(name, getattr(_together, name))
    # Lazy: policies go away in Python 3.16, and only then does asking for this one fail.
    if name == "EventLoopPolicy":
        from goloop import policy

        if hasattr(policy, "EventLoopPolicy"):
            return policy.EventLoopPolicy
        raise AttributeError("this Python has no event loop policies: use goloop.run() or goloop.new_event_loop()")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


if _environment.get("GOLOOP_MONKEY"):
    importlib.import_module("goloop.monkey").patch_all()
if _environment.get("GOLOOP_DEBUG"):
    importlib.import_module("goloop.debug._serve").serve_from_environment()
if _environment.get("GOLOOP_DUMP"):
    importlib.import_module("goloop.debug").dump_on_signal(_environment.get("GOLOOP_DUMP"))

if _environment.get("GOLOOP_SCHEDTRACE"):
    importlib.import_module("goloop.debug._schedtrace").start()


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, "EventLoopPolicy"})
