"""What the tests of handoff share."""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import goloop

T = TypeVar("T")

LONG = 60  # seconds; nothing waits that long


def run(main: Coroutine[Any, Any, T], **options: Any) -> T:
    return goloop.run(main, handoff=True, **options)


def on_main() -> bool:
    return threading.current_thread() is threading.main_thread()


async def until(condition: Callable[[], object]) -> None:
    while not condition():
        await asyncio.sleep(0.001)
