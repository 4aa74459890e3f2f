"""Seeds: what they decide, that they do so in the same way everywhere, and how explore() finds and shrinks failures."""

import asyncio

import pytest

import goloop
from goloop import testing
from goloop.errors import DeadlockError
from goloop.testing import bubble, explore, run
from tests.testing import races

# What each race raises, the first seed that finds it, and the line that replays it: the same on every Python.
FOUND = {
    races.lost_update: (AssertionError, 0, "1:1"),
    races.double_checked_init: (AssertionError, 13, "5:1"),
    races.missed_close: (AssertionError, 0, "1:1,4:1,8:1"),
    races.lock_order: (DeadlockError, 11, "4:1,6:1,8:1"),
    races.late_timeout: (AssertionError, 0, "1:1"),
}


@pytest.mark.parametrize("race", FOUND, ids=lambda race: race.__name__)
def test_a_classic_race_is_found_and_replayed(race, capsys):
    kind, seed, text = FOUND[race]
    run(race)  # first come, first served, it passes
    with pytest.raises(kind) as caught:
        explore(race, seeds=1000)
    line = f'goloop.testing: fails with seed {seed}; replay: goloop.testing.run({race.__qualname__}, seed="{text}")'
    assert caught.value.__notes__[-1] == line
    assert capsys.readouterr().err == line + "\n"
    for again in (seed, str(seed), text):
        with pytest.raises(kind):
            run(race, seed=again)


def schedule(seed):
    """What a program of both colours does, in order."""
    with bubble(seed) as loop:
        order = []
        chans = [goloop.Chan(1) for _ in range(3)]

        def plain(name):
            for n in range(2):
                order.append(f"{name}{n}")
                goloop.gosched()
            goloop.sleep(1)
            order.append(f"{name}!")

        async def coloured(name):
            order.append(f"{name}0")
            await asyncio.sleep(1)
            order.append(f"{name}!")

        for name in "ab":
            goloop.go(plain, name)
        goloop.go(coloured, "c")
        loop.call_later(1, order.append, "timer")
        goloop.sleep(2)
        for chan in chans:
            chan.send(1)
        while len(chans) > 0:
            index, _, _ = goloop.select(*map(goloop.recv, chans))
            order.append(index)
            del chans[index]
    return " ".join(map(str, order))


def test_a_seed_gives_the_same_schedule_on_every_python():
    assert {seed: schedule(seed) for seed in GOLDEN} == GOLDEN
    assert schedule(2**64 + 1) == GOLDEN[1]


GOLDEN = {
    None: "a0 b0 a1 b1 c0 timer a! b! c! 0 0 0",
    1: "b0 b1 a0 a1 c0 c! timer b! a! 0 0 0",
    2: "b0 b1 a0 a1 c0 timer a! b! c! 1 0 0",
    3: "b0 a0 b1 c0 a1 c! a! timer b! 1 1 0",
    -1: "c0 a0 a1 b0 b1 timer b! a! c! 1 1 0",
}


def test_a_seed_gives_the_same_schedule_each_time_and_seeds_differ():
    schedules = [schedule(seed) for seed in range(50)]
    assert schedules == [schedule(seed) for seed in range(50)]
    assert len(set(schedules)) > 40


def test_timers_of_one_instant_fire_in_every_order():
    def order(seed):
        fired = []

        async def main():
            loop = asyncio.get_running_loop()
            for n in range(3):
                loop.call_later(5, fired.append, n)
            loop.call_later(4, fired.append, "before")
            await asyncio.sleep(6)

        run(main, seed)
        return tuple(fired)

    assert order(None) == ("before", 0, 1, 2)
    orders = {order(seed) for seed in range(200)}
    assert len(orders) == 6 and all(found[0] == "before" for found in orders)


def test_callbacks_of_call_soon_keep_their_order_with_every_seed():
    async def main():
        loop = asyncio.get_running_loop()
        called = []
        for n in range(20):
            loop.call_soon(called.append, n)
            goloop.go(goloop.gosched)
        await asyncio.sleep(1)
        assert called == list(range(20))

    explore(main, seeds=50)


def test_select_chooses_each_case_and_without_a_seed_the_first():
    def choice(seed):
        with bubble(seed):
            chans = [goloop.Chan(1) for _ in range(3)]
            for chan in chans[1:]:
                chan.send(1)
            return goloop.select(*map(goloop.recv, chans))[0]

    assert choice(None) == 1
    assert {choice(seed) for seed in range(30)} == {1, 2}

    async def choose():
        chans = [goloop.Chan(1) for _ in range(2)]
        for chan in chans:
            chan.try_send(1)
        return (await goloop.async_select(*map(goloop.recv, chans)))[0]

    assert {run(choose, seed) for seed in range(30)} == {0, 1}


def test_a_mutex_goes_to_the_longest_waiter_with_every_seed():
    """The documentation says so: it is not free."""

    def main():
        mutex, got = goloop.sync.Mutex(), []
        mutex.lock()

        def take(n):
            with mutex:
                got.append(n)

        for n in range(4):
            goloop.go(take, n)
            testing.wait()
        mutex.unlock()
        testing.wait()
        assert got == [0, 1, 2, 3]

    explore(main, seeds=100)


def test_a_function_can_draw():
    asked = []

    def draw(n):
        asked.append(n)
        return n - 1

    def main():
        order = []
        for n in range(3):
            goloop.go(order.append, n)
        testing.wait()
        return order

    assert run(main) == [0, 1, 2]
    assert run(main, seed=draw) != [0, 1, 2]
    assert asked and min(asked) >= 2


def test_a_function_that_raises_as_it_draws_ends_the_run_with_that():
    def draw(n):
        raise KeyError("draw")

    def main():
        for _ in range(3):
            goloop.go(goloop.gosched)

    with pytest.raises(KeyError, match="draw"):
        run(main, seed=draw)


@pytest.mark.parametrize("seed", ["later", "1:", "1:2:3", "1;2"])
def test_a_text_that_is_no_seed_is_an_error_at_the_call(seed):
    with pytest.raises(ValueError, match="a seed is"):
        bubble(seed)
    with pytest.raises(TypeError, match="a seed is"):
        bubble(1.5)


def test_shrinking_leaves_the_fewest_choices_that_fail():
    """Three of ten goroutines have to be out of order, and no more than the choices for that are left."""

    def main():
        order = []
        for n in range(10):
            goloop.go(order.append, n)
        testing.wait()
        assert order[:2] != [3, 1]

    with pytest.raises(AssertionError) as caught:
        explore(main)
    text = caught.value.__notes__[-1].partition('seed="')[2].rstrip('")')
    assert len(text.split(",")) <= 4, text


def test_what_fails_without_a_seed_is_said_to():
    def main():
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError) as caught:
        explore(main)
    assert "fails without a seed" in caught.value.__notes__[-1]


def test_a_failure_that_does_not_come_again_is_said_to_depend_on_more():
    runs = []

    def main():
        runs.append(True)
        assert len(runs) != 5

    with pytest.raises(AssertionError) as caught:
        explore(main)
    assert "depends on more than its choices" in caught.value.__notes__[-1]


def test_explore_takes_seeds_and_refuses_what_it_cannot_run_again():
    seen = []
    explore(lambda: seen.append(1), seeds=[5, 6])
    assert len(seen) == 3
    for seeds in (0, -1, True):
        with pytest.raises(ValueError, match="at least 1"):
            explore(int, seeds=seeds)
    coroutine = asyncio.sleep(0)
    with pytest.raises(TypeError, match="again and again"):
        explore(coroutine)
    coroutine.close()
    with pytest.raises(TypeError):
        explore(3)


def test_a_skip_and_an_interrupt_end_the_exploration():
    runs = []

    def skip():
        runs.append(True)
        pytest.skip("on purpose")

    with pytest.raises(pytest.skip.Exception):
        explore(skip)

    def interrupt():
        runs.append(True)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        explore(interrupt)
    assert len(runs) == 2
