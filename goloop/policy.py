"""Ways to put goloop in: run, new_event_loop, install, EventLoopPolicy.

Policies are deprecated from Python 3.14 on and gone in 3.16; run() and new_event_loop() need none.
"""

from __future__ import annotations

from goloop import _takeover
from goloop._eventloop import policy as _policy
from goloop._eventloop.policy import new_event_loop, run

if hasattr(_policy, "EventLoopPolicy"):
    from goloop._eventloop.policy import EventLoopPolicy

__all__ = ["EventLoopPolicy", "install", "new_event_loop", "run"]


def install() -> None:
    """Make every loop that is made from here on in an ordinary way a goloop loop. Call it in the main thread, before a
    loop is made and before the modules that make loops are imported.

    Covered: asyncio.run(), asyncio.Runner, asyncio.new_event_loop(), loops made on demand by asyncio.get_event_loop(),
    asyncio's default policy, asyncio.SelectorEventLoop and asyncio.EventLoop; uvloop's Loop, new_event_loop(), run(),
    install() and EventLoopPolicy, imported before or after; and the same in child processes that fork or that
    multiprocessing starts (fork, forkserver and spawn, concurrent.futures.ProcessPoolExecutor included).
    Not covered: names that a module took before (`from asyncio import SelectorEventLoop`); the classes of other loops
    under other names, and other policies that are set later; other programs, Python or not, that are started with
    subprocess or exec; subinterpreters, where goloop cannot be imported.
    """
    _takeover.take_over()
