"""Interprets the programs of kind "callbacks": one actor, "callbacks", whose events come in one fixed order.

The clock is virtual: whole seconds that pass, one by one, when nothing has happened for a while. A timer's
delay has a fraction that is unlike any other's, so deadlines differ and those that fall into the same second
are due at once, in a known order. Every fourth second passes in a real sleep, so that the loop parks.
"""

from __future__ import annotations

import asyncio
import contextvars
import socket
import sys
from collections.abc import AsyncIterator, Coroutine, Sequence
from typing import Any, TypeVar

from tests.fuzz.program import Block, Op, Program
from tests.fuzz.tracing import Hung, Oops, Trace, recorder

T = TypeVar("T")

SECONDS = 12  # a program's life on the virtual clock
QUIET = 20  # iterations without an event after which a second passes; the longest silent chain is shorter
ERRORS = {e.__name__: e for e in (Oops, asyncio.CancelledError, SystemExit, KeyboardInterrupt)}
BUDGET = 3000  # operations a program may perform: some would multiply for ever
ROOT: contextvars.ContextVar[int] = contextvars.ContextVar(
    "ROOT"
)  # the index of the task that the program made, for it and its children
VAR = contextvars.ContextVar("VAR", default=0)


class Clock:
    """Stands still, except in a real sleep: there it creeps on with every look at it, by less than a delay's
    smallest fraction."""

    def __init__(self) -> None:
        self.base = 1000.0
        self.creep = None

    def __call__(self) -> float:
        if self.creep is None:
            return self.base
        self.creep += 1
        return self.base + min(self.creep, 40) * 2e-5


def interpret(program: Program, loop: Any, trace: Trace) -> None:
    loop.time = Clock()
    interpreter = _Interpreter(loop, trace, program["eager"])
    contextvars.Context().run(interpreter.interpret, program["body"])


class _Task(asyncio.Task[Any]):
    """TaskGroup and all_tasks() keep sets of tasks: these have the same order in every run."""

    def __init__(self, coro: Coroutine[Any, Any, Any], *, number: int, **kwargs: Any) -> None:
        self.number = number
        super().__init__(coro, **kwargs)

    def __hash__(self) -> int:
        return self.number


class _Interpreter:
    def __init__(self, loop: Any, trace: Trace, eager: bool) -> None:
        self.loop = loop
        self.eager = {"eager_start": True} if eager else {}
        loop.set_task_factory(self.make_task)
        self.made = 0
        self.budget = BUDGET
        self.trace = trace
        self.handles: list[asyncio.Handle] = []
        self.futures: list[asyncio.Future[Any]] = []
        self.tasks: list[asyncio.Task[Any]] = []
        self.serial = 0
        self.bell_pair = socket.socketpair()
        for sock in self.bell_pair:
            sock.setblocking(False)
        self.lock, self.event = asyncio.Lock(), asyncio.Event()
        self.queue: asyncio.Queue[int] = asyncio.Queue()
        self.quiet, self.seen, self.done = 0, 0, False
        self.seconds = SECONDS

    def note(self, *event: object) -> None:
        self.trace.note("callbacks", *event)

    # ----------------------------------------------------------------- running
    def interpret(self, body: list[Block]) -> None:
        loop = self.loop
        loop.set_exception_handler(recorder(self.trace, "callbacks"))
        for block in body:
            self.handles.append(loop.call_soon(self.block, 0, block))
        loop.call_soon(self.pace)
        while not self.done:
            self.forever()
        self.eager = {}
        while asyncio.all_tasks(loop):  # a task may swallow a cancellation and go on
            for task in sorted(asyncio.all_tasks(loop), key=hash):
                task.cancel()
            self.seconds, self.done = self.seconds + 2, False
            loop.call_soon(self.pace)
            while not self.done:
                self.forever()
        self.note("left", [task.done() for task in self.tasks])
        for each in (*self.tasks, *self.futures):
            if each.done() and not each.cancelled():
                each.exception()  # so that nothing is reported when they go
        loop.set_exception_handler(lambda *_: None)
        loop.remove_reader(self.bell_pair[0])
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()
        for sock in self.bell_pair:
            sock.close()
        # CPython keeps a task that SystemExit ended in its eager first step, and with it the loop, for good.
        tasks: Any = asyncio.tasks
        for task in list(getattr(tasks, "_eager_tasks", ())):
            tasks._unregister_eager_task(task)

    def make_task(self, loop: Any, coro: Coroutine[Any, Any, Any], **kwargs: Any) -> _Task:
        self.made += 1
        return _Task(coro, loop=loop, number=self.made, **self.eager, **kwargs)

    def forever(self) -> None:
        try:
            self.loop.run_forever()
        except Hung:
            raise
        except (SystemExit, KeyboardInterrupt) as exc:
            self.note("run_forever raised", type(exc).__name__)
        else:
            self.note("run_forever returned", self.loop.is_running())

    def pace(self) -> None:
        """Runs in every iteration, and lets the next second begin when nothing happens any more."""
        clock = self.loop.time
        self.quiet = self.quiet + 1 if self.trace.activity == self.seen else 0
        self.seen = self.trace.activity
        if self.quiet < QUIET:
            self.loop.call_soon(self.pace)
            return
        self.quiet = 0
        if clock.base - 1000 >= self.seconds:
            self.done = True
            self.loop.stop()
        elif clock.base % 4 == 3:
            clock.creep = 0
            self.loop.call_at(clock.base + 1e-4, self.tick)
        else:
            self.tick()

    def tick(self) -> None:
        clock = self.loop.time
        clock.base, clock.creep = clock.base + 1, None
        self.note("second", int(clock.base) - 1000)
        self.loop.call_soon(self.pace)

    def delay(self, seconds: float) -> float:
        """Delays all differ, whatever the budget lets a program make: asyncio runs equal ones in no order."""
        self.serial += 1
        return seconds + 1e-3 + self.serial * 1e-7

    def block(self, label: int, ops: Block) -> None:
        self.note(label, "runs", VAR.get())
        for op in ops:
            self.perform(op)

    def perform(self, op: Op) -> None:
        self.budget -= 1
        if self.budget < 0:
            return
        getattr(self, f"do_{op[0]}")(*op[1:])

    def pick(self, things: Sequence[T], n: int) -> T | None:
        return things[n % len(things)] if things else None

    async def coroutine(self, label: int, ops: Block) -> int:
        self.note(label, "starts", VAR.get())
        try:
            for op in ops:
                wait = getattr(self, f"co_{op[0]}", None)
                if wait is None:
                    self.perform(op)
                elif self.budget > 0:
                    self.budget -= 1
                    result = await wait(*op[1:])
                    self.note(op[1], op[0], result)
        except BaseException as exc:
            self.note(label, "raises", type(exc).__name__)
            raise
        self.note(label, "returns")
        return label

    def new_task(self, label: int, ops: Block) -> asyncio.Task[Any]:
        context = contextvars.copy_context()
        context.run(ROOT.set, len(self.tasks))
        task: asyncio.Task[Any] = self.loop.create_task(self.coroutine(label, ops), context=context)
        self.tasks.append(task)
        return task

    @staticmethod
    def outcome(future: asyncio.Future[Any]) -> object:
        if future.cancelled():
            return "cancelled"
        exc = future.exception()
        return type(exc).__name__ if exc else future.result()

    # --------------------------------------------------------- in any callback
    def do_soon(self, label: int, ops: Block) -> None:
        self.handles.append(self.loop.call_soon(self.block, label, ops))

    def do_soon_ts(self, label: int, ops: Block) -> None:
        self.handles.append(self.loop.call_soon_threadsafe(self.block, label, ops))

    def do_soon_in(self, label: int, ops: Block) -> None:
        context = contextvars.copy_context()
        context.run(VAR.set, label)
        self.handles.append(self.loop.call_soon(self.block, label, ops, context=context))

    def do_later(self, label: int, seconds: float, ops: Block) -> None:
        self.handles.append(self.loop.call_later(self.delay(seconds), self.block, label, ops))

    def do_at(self, label: int, seconds: float, ops: Block) -> None:
        when = self.loop.time() + self.delay(seconds)
        handle = self.loop.call_at(when, self.block, label, ops)
        self.handles.append(handle)
        self.note(label, handle.when() == when)

    def do_cancel_handle(self, label: int, n: int) -> None:
        if self.handles:
            handle = self.handles[-1 - n % len(self.handles)]
            handle.cancel()
            self.note(label, "cancel", handle.cancelled())

    def do_future(self, label: int, n: int) -> None:
        self.futures.append(self.loop.create_future())

    def do_add_callback(self, label: int, n: int, ops: Block) -> None:
        future = self.pick([*self.futures, *self.tasks], n)
        if future is not None:

            def done(future: asyncio.Future[Any]) -> None:
                self.note(label, self.outcome(future))
                self.block(label, ops)

            future.add_done_callback(done)

    def do_remove_callback(self, label: int, n: int) -> None:
        future = self.pick(self.futures, n)
        if future is not None:
            self.note(label, future.remove_done_callback(self.noted))
            future.add_done_callback(self.noted)

    def noted(self, future: asyncio.Future[Any]) -> None:
        self.note("done", self.outcome(future))

    def do_set_result(self, label: int, n: int) -> None:
        future = self.pick(self.futures, n)
        if future is not None:
            try:
                future.set_result(label)
            except asyncio.InvalidStateError:
                self.note(label, "invalid state")

    def do_set_exception(self, label: int, n: int) -> None:
        future = self.pick(self.futures, n)
        if future is not None and not future.done():
            future.set_exception(Oops(label))

    def do_cancel_future(self, label: int, n: int) -> None:
        future = self.pick(self.futures, n)
        if future is not None:
            self.note(label, future.cancel())

    def do_task(self, label: int, ops: Block) -> None:
        self.new_task(label, ops)

    def do_cancel_task(self, label: int, n: int) -> None:
        task = self.pick(self.tasks, n)
        if task is not None:
            self.note(label, task.cancel())

    def do_set_var(self, label: int, n: int) -> None:
        VAR.set(label)

    def do_raise(self, label: int, kind: str) -> None:
        raise ERRORS[kind](label)

    def do_handler(self, label: int, kind: str) -> None:
        record = recorder(self.trace, "callbacks")

        def fail(loop: Any, context: dict[str, Any]) -> None:
            record(loop, context)
            raise Oops

        def stop(loop: Any, context: dict[str, Any]) -> None:
            record(loop, context)
            loop.stop()

        self.loop.set_exception_handler({"record": record, "raise": fail, "default": None, "stop": stop}[kind])

    def do_report(self, label: int, n: int) -> None:
        self.loop.call_exception_handler({"message": f"report {label}", "exception": Oops(label)})

    def do_stop(self, label: int, n: int) -> None:
        self.note(label, "stop")
        self.loop.stop()

    def do_misuse(self, label: int, n: int) -> None:
        loop = self.loop
        calls = (
            lambda: loop.call_later(None, print),
            lambda: loop.call_at(None, print),
            loop.run_forever if sys.version_info < (3, 13) else loop.close,  # asyncio's then forgets that it runs
            loop.close,
            lambda: loop.run_until_complete(loop.create_future()),
            lambda: loop.call_soon(),
            lambda: loop.add_reader(-1, print),
            lambda: loop.call_later("1", print),
        )
        try:
            calls[n]()
        except Exception as exc:
            self.note(label, n, type(exc).__name__)
        else:
            self.note(label, n, "accepted")

    def do_bell(self, label: int, ops: Block) -> None:
        """A reader that takes one byte each time it is called, and performs the operations."""

        def rung() -> None:
            try:
                self.bell_pair[0].recv(1)
            except BlockingIOError:
                self.note(label, "rung for nothing")
            self.block(label, ops)

        self.loop.add_reader(self.bell_pair[0], rung)

    def do_ring(self, label: int, n: int) -> None:
        self.bell_pair[1].send(bytes(1 + n % 2))

    def do_unbell(self, label: int, n: int) -> None:
        self.note(label, self.loop.remove_reader(self.bell_pair[0]))

    def do_queue_put(self, label: int, n: int) -> None:
        self.queue.put_nowait(label)

    def do_event(self, label: int, n: int) -> None:
        if n % 2:
            self.event.set()
        else:
            self.event.clear()

    # ----------------------------------------------------------- in coroutines
    async def co_sleep(self, label: int, seconds: float) -> None:
        await asyncio.sleep(self.delay(seconds) if seconds else 0)

    async def co_await_future(self, label: int, n: int) -> Any:
        future = self.pick(self.futures, n)
        return future and await future

    async def co_shield_future(self, label: int, n: int) -> Any:
        future = self.pick(self.futures, n)
        return future and await asyncio.shield(future)

    async def co_wait_future(self, label: int, n: int, seconds: float) -> Any:
        future = self.pick(self.futures, n)
        return future and await asyncio.wait_for(future, self.delay(seconds) if seconds else 0)

    def another(self, n: int) -> asyncio.Task[Any] | None:
        """An older task than the one that runs: tasks that await each other in a circle cannot be cancelled."""
        return self.pick(self.tasks[: ROOT.get()], n)

    async def co_await_task(self, label: int, n: int) -> Any:
        task = self.another(n)
        return task and await task

    async def co_shield_task(self, label: int, n: int) -> Any:
        task = self.another(n)
        return task and await asyncio.shield(task)

    async def co_wait_task(self, label: int, n: int, seconds: float) -> Any:
        task = self.another(n)
        return task and await asyncio.wait_for(task, self.delay(seconds))

    async def co_guard(self, label: int, kind: str, ops: Block, handler: Block) -> None:
        caught: Any = {"Exception": Exception, "CancelledError": asyncio.CancelledError, "finally": ()}[kind]
        try:
            await self.coroutine(label, ops)
        except caught as exc:
            self.note(label, "caught", type(exc).__name__)
            await self.coroutine(label, handler)
        finally:
            if kind == "finally":
                await self.coroutine(label, handler)

    async def co_gather(self, label: int, mode: int, blocks: list[Block]) -> list[object]:
        results = await asyncio.gather(*(self.coroutine(label, ops) for ops in blocks), return_exceptions=mode > 0)
        return [type(r).__name__ if isinstance(r, BaseException) else r for r in results]

    async def co_group(self, label: int, blocks: list[Block]) -> None:
        async with asyncio.TaskGroup() as group:
            for ops in blocks:
                group.create_task(self.coroutine(label, ops))

    async def co_timeout(self, label: int, seconds: float, ops: Block) -> None:
        async with asyncio.timeout(self.delay(seconds) if seconds else 0):
            await self.coroutine(label, ops)

    async def co_wait(self, label: int, mode: int, blocks: list[Block]) -> list[bool] | None:
        if blocks:
            when = (asyncio.FIRST_COMPLETED, asyncio.FIRST_EXCEPTION, asyncio.ALL_COMPLETED)[mode]
            tasks = [self.new_task(label, ops) for ops in blocks]
            done, _ = await asyncio.wait(tasks, timeout=self.delay(3), return_when=when)
            return [task in done for task in tasks]
        return None

    async def co_lock(self, label: int, ops: Block) -> None:
        async with self.lock:
            await self.coroutine(label, ops)

    async def co_queue_get(self, label: int, seconds: float) -> Any:
        return await asyncio.wait_for(self.queue.get(), self.delay(seconds))

    async def co_event_wait(self, label: int, seconds: float) -> None:
        await asyncio.wait_for(self.event.wait(), self.delay(seconds))

    async def co_generate(self, label: int, ops: Block) -> list[int]:
        async def generator() -> AsyncIterator[int]:
            yield 1
            await self.coroutine(label, ops)
            yield 2

        return [n async for n in generator()]

    async def co_last(self, label: int, n: int) -> None:
        """Waits for ever, until it is cancelled."""
        await self.loop.create_future()
