"""Tasks: factories, names, contexts, eager ones, and which task is the current one."""

import asyncio
import contextlib
import contextvars
import gc
import sys
import weakref

import pytest

import goloop
from tests.helpers.outcomes import async_outcome_of, outcome_of, plain

var = contextvars.ContextVar("var", default="unset")


async def answer(value="answer"):
    return value


def task_factory(calls):
    """A task factory that records what it is given."""

    def factory(loop, coro, **kwargs):
        calls.append(sorted(kwargs))
        return asyncio.Task(coro, loop=loop, **kwargs)

    return factory


# Without a factory


def test_create_task_takes_a_name_and_a_context(both):
    async def scenario(loop):
        async def look():
            return asyncio.current_task().get_name(), var.get()

        context = contextvars.Context()
        context.run(var.set, "given")
        default = await loop.create_task(look())
        return plain(default), await loop.create_task(look(), name="name", context=context), var.get()

    assert both(scenario) == ("('Task-N', 'unset')", ("name", "given"), "unset")


def test_a_task_runs_in_a_copy_of_its_makers_context(both):
    async def scenario(loop):
        async def change():
            before = var.get()
            var.set("task")
            await asyncio.sleep(0)
            return before, var.get()

        var.set("maker")
        task = loop.create_task(change())
        var.set("changed")
        return await task, var.get()

    assert both(scenario) == (("maker", "task"), "changed")


def test_a_task_that_is_not_of_a_coroutine_is_refused(both):
    def scenario(loop):
        return outcome_of(loop.create_task, 1), outcome_of(loop.create_task, answer)[0]

    refused, kind = both(scenario)
    assert (refused[0], kind) == ("TypeError", "TypeError")


def test_tasks_are_asyncios_own(both):
    async def scenario(loop):
        task, future = loop.create_task(answer()), loop.create_future()
        return type(task) is asyncio.Task, type(future) is asyncio.Future, task.get_loop() is loop, await task

    assert both(scenario) == (True, True, True, "answer")


def test_the_current_task_and_all_tasks(both):
    async def scenario(loop):
        async def inner():
            return asyncio.current_task() is task, asyncio.current_task(loop) is task

        task = loop.create_task(inner())
        listed = task in asyncio.all_tasks(), task in asyncio.all_tasks(loop)
        inside = await task
        return listed, inside, asyncio.current_task() is not task, task in asyncio.all_tasks(loop)

    assert both(scenario) == ((True, True), (True, True), True, False)


def test_there_is_no_current_task_outside(both):
    def scenario(loop):
        result = loop.run_until_complete(answer())
        return result, asyncio.current_task(loop), asyncio.all_tasks(loop)

    assert both(scenario) == ("answer", None, set())


def test_a_pending_task_that_is_forgotten_is_reported(both):
    def scenario(loop):
        reports = []
        loop.set_exception_handler(lambda loop, context: reports.append(context["message"]))

        async def wait():
            await loop.create_future()

        task = loop.create_task(wait())
        loop.run_until_complete(asyncio.sleep(0))
        ref = weakref.ref(task)
        del task
        gc.collect()
        return reports, ref() is None

    assert both(scenario) == (["Task was destroyed but it is pending!"], True)


def test_a_finished_task_is_freed_without_the_collector(both):
    async def scenario(loop):
        task = loop.create_task(asyncio.sleep(0, "slept"))
        ref = weakref.ref(task)
        result = await task
        gc.disable()
        try:
            del task
            await asyncio.sleep(0)
            return result, ref() is None
        finally:
            gc.enable()

    assert both(scenario) == ("slept", True)


def test_cancellation_arrives_in_the_same_order(both):
    async def scenario(loop):
        seen = []

        async def worker(name):
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                seen.append((name, "cancelled"))
                await asyncio.sleep(0)
                seen.append((name, "cleaned"))
                raise

        tasks = [loop.create_task(worker(n)) for n in range(3)]
        await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
            seen.append("cancel called")
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        return seen, [type(outcome).__name__ for outcome in outcomes]

    seen, outcomes = both(scenario)
    assert seen[3:] == [(n, "cancelled") for n in range(3)] + [(n, "cleaned") for n in range(3)]
    assert outcomes == ["CancelledError"] * 3


def test_timeouts_fire_and_do_not(both):
    async def scenario(loop):
        late = await async_outcome_of(asyncio.wait_for(loop.create_future(), 0.001))
        async with asyncio.timeout(3600) as timeout:
            in_time = await asyncio.sleep(0, "in time")
        return late[0], in_time, timeout.expired()

    assert both(scenario) == ("TimeoutError", "in time", False)


# Factories


def test_the_factory_is_set_told_and_reset(both):
    def scenario(loop):
        factory = task_factory([])
        states = [loop.get_task_factory()]
        for value in (factory, None):
            loop.set_task_factory(value)
            states.append(loop.get_task_factory())
        return states[0], states[1] is factory, states[2], outcome_of(loop.set_task_factory, 1)

    refused = ("TypeError", "task factory must be a callable or None")
    assert both(scenario) == (None, True, None, refused)


def test_the_factory_gets_what_this_pythons_own_loop_would_pass(both):
    async def scenario(loop):
        calls = []
        loop.set_task_factory(task_factory(calls))
        context = contextvars.copy_context()
        results = [
            await loop.create_task(answer()),
            await loop.create_task(answer(), name="name"),
            await loop.create_task(answer(), context=context),
            await loop.create_task(answer(), name="name", context=context),
            await asyncio.create_task(answer(), context=context),
            await asyncio.ensure_future(answer()),
        ]
        loop.set_task_factory(None)
        return results, calls

    results, calls = both(scenario)
    assert results == ["answer"] * 6
    assert ["context" in keywords for keywords in calls][2:5] == [True] * 3


def test_the_factorys_task_is_named(both):
    async def scenario(loop):
        def factory(loop, coro, **kwargs):
            return asyncio.Task(coro, loop=loop, **kwargs)

        loop.set_task_factory(factory)
        task = loop.create_task(answer(), name="name")
        return task.get_name(), await task

    assert both(scenario) == ("name", "answer")


def test_the_factory_may_return_another_kind_of_task(both):
    async def scenario(loop):
        class Sub(asyncio.Task):
            pass

        loop.set_task_factory(lambda loop, coro, **kwargs: Sub(coro, loop=loop, **kwargs))
        task = loop.create_task(answer())
        return type(task).__name__, await task, await asyncio.gather(answer(1), answer(2))

    assert both(scenario) == ("Sub", "answer", [1, 2])


def test_run_until_complete_uses_the_factory(both):
    def scenario(loop):
        calls = []
        loop.set_task_factory(task_factory(calls))
        result = loop.run_until_complete(answer())
        loop.set_task_factory(None)
        return result, len(calls)

    assert both(scenario) == ("answer", 1)


def test_a_factory_that_raises_leaves_the_loop_usable(both):
    async def scenario(loop):
        def factory(loop, coro, **kwargs):
            coro.close()
            raise ValueError("factory")

        loop.set_task_factory(factory)
        outcome = outcome_of(loop.create_task, answer())
        loop.set_task_factory(None)
        return outcome, await loop.create_task(answer())

    assert both(scenario) == (("ValueError", "factory"), "answer")


# Eager tasks


eager = pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks are new in Python 3.12")


@eager
def test_an_eager_task_starts_at_once(both):
    async def scenario(loop):
        seen = []

        async def work(name, *, sleep):
            seen.append((name, asyncio.current_task().get_name(), asyncio.get_running_loop() is loop))
            if sleep:
                await asyncio.sleep(0)
                seen.append((name, "after"))
            return name

        loop.set_task_factory(asyncio.eager_task_factory)
        quick = asyncio.create_task(work("quick", sleep=False), name="one")
        slow = asyncio.create_task(work("slow", sleep=True), name="two")
        states = quick.done(), slow.done()
        seen.append("created")
        return states, await quick, await slow, [entry[0] if isinstance(entry, tuple) else entry for entry in seen]

    assert both(scenario) == ((True, False), "quick", "slow", ["quick", "slow", "created", "slow"])


@eager
def test_create_task_starts_a_task_at_once_if_it_is_told_to():
    # Task has the argument from Python 3.12 on, BaseEventLoop.create_task() hands it on from 3.13.3 on
    async def scenario():
        loop = asyncio.get_running_loop()
        quick = loop.create_task(answer(), eager_start=True, name="quick")
        slow = loop.create_task(answer(), eager_start=False)
        return quick.done(), quick.get_name(), await quick, slow.done(), await slow

    with contextlib.closing(goloop.new_event_loop()) as loop:
        assert loop.run_until_complete(scenario()) == (True, "quick", "answer", False, "answer")


def test_create_task_refuses_what_is_no_argument_of_a_task(both):
    async def scenario(loop):
        coro = answer()
        try:
            return outcome_of(loop.create_task, coro, nme="name")[0]
        finally:
            coro.close()

    assert both(scenario) == "TypeError"


@eager
def test_an_eager_task_gives_the_current_task_back(both):
    async def scenario(loop):
        async def inner():
            return asyncio.current_task()

        loop.set_task_factory(asyncio.eager_task_factory)
        outer = asyncio.current_task()
        task = asyncio.create_task(inner())
        return asyncio.current_task() is outer, await task is task, task in asyncio.all_tasks()

    assert both(scenario) == (True, True, False)


@eager
def test_a_task_made_eagerly_by_hand_runs_to_its_first_wait(both):
    # as aiohttp makes its tasks on Python 3.12 and later
    async def scenario(loop):
        seen = []

        async def inner():
            seen.append(asyncio.current_task() is not outer)
            await asyncio.sleep(0)
            return "end"

        outer = asyncio.current_task()
        task = asyncio.Task(inner(), loop=loop, eager_start=True)
        at_once = list(seen), task.done(), asyncio.current_task() is outer
        done = asyncio.Task(answer(), loop=loop, eager_start=True)
        return at_once, await task, done.done(), await done

    assert both(scenario) == (([True], False, True), "end", True, "answer")


@eager
def test_an_eager_task_takes_a_context(both):
    async def scenario(loop):
        async def inner():
            before = var.get()
            var.set("inner")
            return before

        context = contextvars.Context()
        context.run(var.set, "given")
        loop.set_task_factory(asyncio.eager_task_factory)
        return await loop.create_task(inner(), context=context), context[var], var.get()

    assert both(scenario) == ("given", "inner", "unset")


@eager
def test_eager_tasks_in_groups_and_gathers(both):
    async def scenario(loop):
        async def fail():
            await asyncio.sleep(0)
            raise ValueError("text")

        loop.set_task_factory(asyncio.eager_task_factory)
        gathered = await asyncio.gather(answer(1), asyncio.sleep(0, 2), answer(3))
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(answer())
                group.create_task(fail())
                group.create_task(asyncio.sleep(3600))
        except* ValueError as group_error:
            errors = [str(error) for error in group_error.exceptions]
        return gathered, errors

    assert both(scenario) == ([1, 2, 3], ["text"])


@pytest.mark.skipif(sys.version_info < (3, 14), reason="create_task(eager_start=) is new in Python 3.14")
def test_create_task_starts_eagerly_on_demand(both):
    async def scenario(loop):
        task = loop.create_task(answer(), eager_start=True)
        return task.done(), await task

    assert both(scenario) == (True, "answer")
