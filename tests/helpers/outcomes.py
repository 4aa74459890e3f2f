"""What a call came to, as plain values: outcomes are compared between two loops."""

import asyncio
import contextlib
import logging
import re
from collections.abc import Awaitable, Callable, Iterator
from typing import Any


def outcome_of(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """The value of a call, or the type name and text of what it raised."""
    try:
        return function(*args, **kwargs)
    except Exception as exc:
        return type(exc).__name__, str(exc)


async def async_outcome_of(awaitable: Awaitable[Any]) -> Any:
    """The same for an awaitable. That it was cancelled is an outcome; a cancellation of the caller goes on."""
    try:
        return await awaitable
    except (Exception, asyncio.CancelledError) as exc:
        task = asyncio.current_task()
        if isinstance(exc, asyncio.CancelledError) and task is not None and task.cancelling():
            raise
        return type(exc).__name__, str(exc)


def plain(text: object) -> str:
    """A repr or message without what may differ from run to run: addresses, seconds, task numbers."""
    text = re.sub(r"0x[0-9a-f]+", "0x", str(text))
    return re.sub(r"\d+\.\d+", "S", re.sub(r"Task-\d+", "Task-N", text))


@contextlib.contextmanager
def logged(level: int = logging.WARNING) -> Iterator[list[tuple[str, str]]]:
    """A list of ``(level name, message)`` of what the ``asyncio`` logger is given, first line only."""
    logger = logging.getLogger("asyncio")
    lines: list[tuple[str, str]] = []

    class Collect(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append((record.levelname, record.getMessage().splitlines()[0]))

    handler = Collect(level)
    before, logger.propagate = logger.propagate, False
    level_before = logger.level
    logger.setLevel(level)
    logger.addHandler(handler)
    try:
        yield lines
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level_before)
        logger.propagate = before


def reports(loop: asyncio.AbstractEventLoop) -> list[tuple[Any, ...]]:
    """Collect what reaches the loop's exception handler: (message, exception type and text, context keys)."""
    seen: list[tuple[Any, ...]] = []

    def handler(_: object, context: dict[str, Any]) -> None:
        exc = context.get("exception")
        message = context["message"]
        if message.startswith("Exception in callback"):
            message = "Exception in callback"  # the rest is a repr
        seen.append((message, type(exc).__name__, str(exc), sorted(set(context) - {"handle", "source_traceback"})))

    loop.set_exception_handler(handler)
    return seen
