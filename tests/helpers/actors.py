"""Run the same thing as each kind of actor that can wait: a goroutine, a plain thread, a coroutine on its own loop."""

import asyncio
import inspect
import threading
from collections.abc import Callable
from typing import Any

import goloop
from tests.helpers.waiting import SECONDS


class Actor:
    """A body that runs somewhere; join() and result() wait for its end and raise what it raised."""

    def __init__(self, body: Callable[..., Any], args: tuple[Any, ...]) -> None:
        self.body = body
        self.args = args
        self.outcome: Any = None
        self.error: BaseException | None = None
        self.begin()

    def begin(self) -> None:
        raise NotImplementedError

    def wait(self, timeout: float) -> bool:
        raise NotImplementedError

    def run(self) -> None:
        try:
            self.outcome = self.body(*self.args)
        except BaseException as exc:
            self.error = exc

    def join(self) -> Any:
        return self.result()

    def result(self, timeout: float = SECONDS) -> Any:
        assert self.wait(timeout), f"{self.body} did not end"
        try:
            if self.error is not None:
                raise self.error
            return self.outcome
        finally:
            self.error = None


class InGoroutine(Actor):
    def begin(self) -> None:
        self.g = goloop.go(self.run)

    def wait(self, timeout: float) -> bool:
        self.g.join(timeout)
        return True

    def cancel(self) -> None:
        self.g.cancel()


class InThread(Actor):
    def begin(self) -> None:
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def wait(self, timeout: float) -> bool:
        self.thread.join(timeout)
        return not self.thread.is_alive()


class InCoroutine(Actor):
    """The body is a coroutine function; it runs on a loop in a thread of its own."""

    new_loop: Callable[[], asyncio.AbstractEventLoop] = staticmethod(goloop.new_event_loop)

    def begin(self) -> None:
        self.loop: asyncio.AbstractEventLoop | None = None
        self.task: asyncio.Task[Any] | None = None
        self.started = threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()
        assert self.started.wait(SECONDS)

    async def main(self) -> Any:
        self.loop = asyncio.get_running_loop()
        self.task = asyncio.current_task()
        self.started.set()
        return await self.body(*self.args)

    def run(self) -> None:
        try:
            with asyncio.Runner(loop_factory=self.new_loop) as runner:
                self.outcome = runner.run(self.main())
        except BaseException as exc:
            self.error = exc
        finally:
            self.loop = self.task = None

    def wait(self, timeout: float) -> bool:
        self.thread.join(timeout)
        return not self.thread.is_alive()

    def cancel(self) -> None:
        if self.loop is None:
            raise RuntimeError("it does not run yet")
        assert self.task is not None
        self.loop.call_soon_threadsafe(self.task.cancel)


class InAsyncioCoroutine(InCoroutine):
    new_loop = staticmethod(asyncio.SelectorEventLoop)


def start(body: Callable[..., Any], *args: Any) -> InCoroutine | InGoroutine:
    """Start a coroutine function in a coroutine, and a plain function in a goroutine."""
    return (InCoroutine if inspect.iscoroutinefunction(body) else InGoroutine)(body, args)


def in_thread(function: Callable[..., Any], *args: Any) -> InThread:
    """Call a function in a plain thread, as go() does in a goroutine."""
    return InThread(function, args)
