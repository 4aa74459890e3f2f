from collections.abc import Callable
from typing import Any

from goloop.core.loop.loop_core import LoopCore
from goloop.core.sched.goroutine import Goroutine
from goloop.core.sched.scheduler import Worker

class Choices:
    made: int
    taken: list[tuple[int, int]]
    failure: BaseException | None
    def __init__(
        self,
        seed: int | None = None,
        planned: dict[int, int] | None = None,
        draw: Callable[[int], int] | None = None,
    ) -> None: ...

class BubbleWorker(Worker):
    def adopt(self, greenlet: Any, name: str) -> Goroutine[None]: ...
    def disown(self, g: Goroutine[Any]) -> None: ...
    def release(self, g: Goroutine[Any]) -> None: ...

class BubbleCore(LoopCore):
    worker: BubbleWorker
    choices: Choices
    def time(self) -> float: ...

def monotonic() -> float: ...
def bubble() -> BubbleCore | None: ...
def settle() -> None: ...
async def async_settle() -> None: ...
