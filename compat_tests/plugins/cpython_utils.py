"""Evens out test.test_asyncio.utils for loops that are not asyncio's.

TestCase.close_loop reads loop._default_executor, a private attribute of asyncio.BaseEventLoop, at the end
of nearly every test. A loop without it is shut down by the public method instead, so that one missing
private name does not fail the whole suite; the rest of the method runs as it is.
"""

from __future__ import annotations

from typing import Any

from test.test_asyncio import utils

_close_loop = utils.TestCase.close_loop


class _Facade:
    """The loop as close_loop sees it: with a _default_executor of None."""

    _default_executor = None

    def __init__(self, loop: Any) -> None:
        self.close = loop.close


def close_loop(loop: Any) -> None:
    if hasattr(loop, "_default_executor"):
        _close_loop(loop)
        return
    if not loop.is_closed():
        loop.run_until_complete(loop.shutdown_default_executor())
    _close_loop(_Facade(loop))


utils.TestCase.close_loop = staticmethod(close_loop)
