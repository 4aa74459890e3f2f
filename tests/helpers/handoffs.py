"""What the tests of handoff share."""

import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

import goloop

T = TypeVar("T")


def run(main: Coroutine[Any, Any, T], **options: Any) -> T:
    return goloop.run(main, handoff=True, **options)


def on_main() -> bool:
    return threading.current_thread() is threading.main_thread()
