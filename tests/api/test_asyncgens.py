"""Asynchronous generators that are not run to their end: hooks, finalisation, shutdown."""

import asyncio
import gc
import sys
import threading
import warnings

import pytest

from tests.helpers.outcomes import async_outcome_of, plain
from tests.helpers.waiting import async_until


async def numbers(seen):
    try:
        for n in range(10):
            yield n
            await asyncio.sleep(0)
    finally:
        await asyncio.sleep(0)
        seen.append("finalised")


@pytest.fixture
def own_hooks():
    """Hooks of somebody else, in place while the test runs."""
    before = sys.get_asyncgen_hooks()
    hooks = (lambda agen: None, lambda agen: None)
    sys.set_asyncgen_hooks(*hooks)
    yield hooks
    sys.set_asyncgen_hooks(*before)


def test_the_hooks_before_are_put_back(both, own_hooks):
    def scenario(loop):
        async def inside():
            return tuple(sys.get_asyncgen_hooks()) != own_hooks

        outcomes = [loop.run_until_complete(inside()), tuple(sys.get_asyncgen_hooks()) == own_hooks]
        loop.call_soon(sys.exit)
        try:
            loop.run_forever()
        except SystemExit:
            outcomes.append(tuple(sys.get_asyncgen_hooks()) == own_hooks)
        return outcomes

    assert both(scenario) == [True, True, True]


def test_a_forgotten_generator_is_finalised_by_the_loop(both):
    async def scenario(loop):
        seen = []
        generator = numbers(seen)
        first = await anext(generator)
        del generator
        gc.collect()
        at_once = list(seen)
        await async_until(lambda: seen)
        return first, at_once, seen

    assert both(scenario) == (0, [], ["finalised"])


def test_a_generator_forgotten_by_another_thread_is_finalised_by_the_loop(both):
    async def scenario(loop):
        seen = []
        box = [numbers(seen)]
        first = await anext(box[0])
        released = threading.Event()

        def forget():
            released.wait()
            box.clear()
            gc.collect()

        thread = threading.Thread(target=forget)
        thread.start()
        released.set()
        while not seen:
            await asyncio.sleep(0.001)
        thread.join()
        return first, seen

    assert both(scenario) == (0, ["finalised"])


def test_shutdown_closes_all_that_are_left(both):
    def scenario(loop):
        seen = []

        async def main():
            for generator in generators:
                await anext(generator)

        generators = [numbers(seen) for _ in range(3)]
        loop.run_until_complete(main())
        before = list(seen)
        loop.run_until_complete(loop.shutdown_asyncgens())
        ended = [loop.run_until_complete(async_outcome_of(anext(generator)))[0] for generator in generators]
        return before, seen, ended

    assert both(scenario) == ([], ["finalised"] * 3, ["StopAsyncIteration"] * 3)


def test_shutdown_without_generators_and_twice(both):
    async def scenario(loop):
        return await loop.shutdown_asyncgens(), await loop.shutdown_asyncgens()

    assert both(scenario) == (None, None)


def test_an_error_while_closing_is_reported(both):
    def scenario(loop):
        contexts = []
        loop.set_exception_handler(lambda loop, context: contexts.append(context))

        async def failing():
            try:
                yield 1
            finally:
                raise ValueError("closing")

        async def main():
            await anext(generator)

        generator = failing()
        loop.run_until_complete(main())
        loop.run_until_complete(loop.shutdown_asyncgens())
        (context,) = contexts
        return sorted(context), plain(context["message"]), str(context["exception"]), context["asyncgen"] is generator

    keys, message, error, same = both(scenario)
    assert keys == ["asyncgen", "exception", "message"]
    assert message.startswith("an error occurred during closing of asynchronous generator <async_generator object")
    assert (error, same) == ("closing", True)


def test_a_generator_begun_after_the_shutdown_is_warned_of(both):
    async def scenario(loop):
        seen = []
        await loop.shutdown_asyncgens()
        generator = numbers(seen)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            await anext(generator)
        await generator.aclose()
        return [(warning.category.__name__, plain(warning.message)) for warning in caught], seen

    ((category, text),), seen = both(scenario)
    assert category == "ResourceWarning"
    assert text.endswith("was scheduled after loop.shutdown_asyncgens() call")
    assert seen == ["finalised"]


def test_a_generator_run_to_its_end_leaves_nothing_to_shut_down(both):
    async def scenario(loop):
        seen = []
        values = [n async for n in numbers(seen)]
        finalised = list(seen)
        await loop.shutdown_asyncgens()
        return values == list(range(10)), finalised, seen

    assert both(scenario) == (True, ["finalised"], ["finalised"])


def test_runs_of_a_runner_finalise_their_generators(both):
    def scenario(loop):
        seen = []

        async def main():
            generator = numbers(seen)
            held.append(generator)
            return await anext(generator)

        held = []
        with asyncio.Runner(loop_factory=type(loop)) as runner:
            first = runner.run(main())
        return first, seen

    assert both(scenario) == (0, ["finalised"])
