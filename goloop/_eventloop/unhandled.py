"""Who else is told what goes to a loop's exception handler: the hooks of goloop.debug.on_unhandled()."""

from __future__ import annotations

from asyncio.log import logger
from collections.abc import Callable
from typing import Any, TypeVar

_Hook = TypeVar("_Hook", bound=Callable[[Any, dict[str, Any]], object])

_hooks: list[Callable[[Any, dict[str, Any]], object]] = []  # replaced as a whole; guard: the GIL


def on_unhandled(callback: _Hook) -> _Hook:
    """Call callback(loop, context) whenever the exception handler of a loop is called; usable as a decorator.

    callback: a function; TypeError unless callable. It is called before the loop's own handler, in the same thread, and
    must not wait. context: the dict that the handler gets (asyncio: call_exception_handler), not to be changed. Its
    exceptions are logged. Returns the callback. From any thread.
    """
    global _hooks
    if not callable(callback):
        raise TypeError(f"a callable object was expected by on_unhandled(), got {callback!r}")
    _hooks = [*_hooks, callback]
    return callback


def remove_unhandled(callback: Callable[[Any, dict[str, Any]], object]) -> bool:
    """Remove a callback that on_unhandled() added, once if it was added several times. From any thread.

    callback: the function. Returns whether it was there.
    """
    global _hooks
    left = list(_hooks)
    if callback not in left:
        return False
    left.remove(callback)
    _hooks = left
    return True


def tell(loop: Any, context: dict[str, Any]) -> None:
    """The exception handler of a loop is about to be called, in the thread that calls."""
    for hook in _hooks:
        try:
            hook(loop, context)
        except Exception:
            logger.exception("a hook of on_unhandled() failed: %r", hook)
