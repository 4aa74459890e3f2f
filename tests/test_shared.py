"""AtomicInt, Map and Pool of goloop.sync, changed by many at once."""

import threading

import pytest

import goloop
from goloop import go
from goloop.sync import AtomicInt, Map, Pool
from tests.helpers.waiting import SECONDS


def by_many(body, times=8):
    """Run body(i) in goroutines and in plain threads at once."""
    threads = [threading.Thread(target=body, args=(i,)) for i in range(times)]
    goroutines = [go(body, i) for i in range(times, 2 * times)]
    for thread in threads:
        thread.start()
    for each in (*threads, *goroutines):
        each.join(SECONDS)


# ---------------------------------------------------------------------- AtomicInt
def test_no_addition_is_lost():
    def body(i):
        for _ in range(2000):
            count.add()
            count.add(-3)

    count = AtomicInt(5)
    by_many(body)
    assert count.load() == 5 - 2 * 2000 * 16 and repr(count) == f"AtomicInt({count.load()})"


def test_each_sum_is_seen_once():
    def body(i):
        for _ in range(500):
            seen.append(count.add())

    seen, count = [], AtomicInt()
    by_many(body)
    assert sorted(seen) == list(range(1, 8001))


def test_store_swap_and_compare_and_swap():
    count = AtomicInt()
    count.store(10**30)
    assert count.swap(4) == 10**30 and count.load() == 4
    assert count.compare_and_swap(4, 5) and not count.compare_and_swap(4, 6) and count.load() == 5
    winners = []
    count.store(0)
    by_many(lambda i: winners.append(i) if count.compare_and_swap(0, 1) else None)
    assert len(winners) == 1


@pytest.mark.parametrize(
    "make",
    [
        lambda: AtomicInt("1"),
        lambda: AtomicInt().add(0.5),
        lambda: AtomicInt().store(None),
        lambda: AtomicInt().swap("x"),
        lambda: AtomicInt().compare_and_swap(0, "1"),
    ],
)
def test_an_atomic_int_is_an_int(make):
    with pytest.raises(TypeError, match="an AtomicInt is an int"):
        make()


# --------------------------------------------------------------------------- Map
def test_a_map_has_gos_operations():
    table = Map()
    assert table.load("a") is None and table.load("a", 0) == 0 and "a" not in table and len(table) == 0
    table.store("a", 1)
    assert table.load_or_store("a", 2) == (1, True) and table.load_or_store("b", 2) == (2, False)
    assert table.swap("a", 3) == 1 and table.swap("c", 4) is None and table.swap("d", 5, "none") == "none"
    assert table.compare_and_swap("a", 3, 6) and not table.compare_and_swap("a", 3, 7)
    assert not table.compare_and_swap("unknown", None, 1)
    assert not table.compare_and_delete("a", 3) and table.compare_and_delete("a", 6) and "a" not in table
    assert not table.compare_and_delete("a", 6)
    assert table.load_and_delete("b") == 2 and table.load_and_delete("b") is None
    assert table.load_and_delete("b", "none") == "none"
    assert dict(table.items()) == {"c": 4, "d": 5} and repr(table) == "<Map of 2>"
    table.clear()
    assert len(table) == 0


def test_one_of_many_stores_and_one_of_many_takes():
    table, stored, taken = Map(), [], []

    def body(i):
        for key in range(300):
            value, loaded = table.load_or_store(key, i)
            if not loaded:
                stored.append((key, value))
            if table.load_and_delete(("take", key)) is not None:
                taken.append(key)

    for key in range(300):
        table.store(("take", key), True)
    by_many(body)
    assert sorted(key for key, _ in stored) == list(range(300)) and sorted(taken) == list(range(300))
    assert all(table.load(key) == value for key, value in stored)


def test_iterating_does_not_mind_changes():
    table = Map()
    for key in range(10):
        table.store(key, key)
    for key, _ in table.items():
        table.load_and_delete(key)
        table.store(key + 100, key)
    assert len(table) == 10


def test_a_key_that_comes_back_from_its_own_comparison():
    class Key:
        def __hash__(self):
            return 1

        def __eq__(self, other):
            table.store("seen", True)
            return self is other

    table = Map()
    table.store(Key(), 1)
    table.store(Key(), 2)
    assert len(table) == 3
    with pytest.raises(TypeError, match="unhashable"):
        table.store([], 1)


# -------------------------------------------------------------------------- Pool
def test_a_pool_gives_what_was_put_before_it_makes_more():
    made = iter(range(100))
    pool = Pool(lambda: next(made))
    assert [pool.get(), pool.get()] == [0, 1]
    pool.put(0)
    pool.put(1)
    assert [pool.get(), pool.get(), pool.get()] == [1, 0, 2]


def test_beyond_the_limit_the_oldest_is_dropped():
    pool = Pool(list, limit=2)
    for n in range(4):
        pool.put([n])
    assert " 2 idle>" in repr(pool) and [pool.get(), pool.get(), pool.get()] == [[3], [2], []]
    none = Pool(list, limit=0)
    none.put([1])
    assert none.get() == []


def test_no_object_is_given_to_two_at_once():
    pool, wrong = Pool(list), []

    def body(i):
        for _ in range(500):
            thing = pool.get()
            thing.append(i)
            if thing != [i]:
                wrong.append(thing)
            if i >= 8:  # a goroutine
                goloop.gosched()
            thing.clear()
            pool.put(thing)

    by_many(body)
    assert wrong == []


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda: Pool(1), TypeError),
        (lambda: Pool(list, limit="1"), TypeError),
        (lambda: Pool(list, limit=-1), ValueError),
    ],
)
def test_a_bad_pool(make, error):
    with pytest.raises(error):
        make()
