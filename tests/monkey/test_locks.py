"""Lock, RLock and what is built on them, between goroutines and plain threads."""

import asyncio
import copy
import gc
import os
import pickle
import queue
import threading
import time
import weakref

import pytest

from goloop import go, gosched
from tests.helpers.waiting import until


@pytest.mark.parametrize("make", [threading.Lock, threading.RLock])
def test_goroutines_exclude_each_other_on_one_thread(make):
    lock, inside, most, order = make(), [], [], []

    def body(i):
        with lock:
            inside.append(i)
            time.sleep(0.002)
            most.append(len(inside))
            inside.remove(i)
            order.append(i)

    for g in [go(body, i) for i in range(20)]:
        g.result(10)
    assert most == [1] * 20
    assert order == sorted(order)


@pytest.mark.parametrize("make", [threading.Lock, threading.RLock])
def test_a_plain_thread_waits_for_a_goroutine_and_the_other_way_round(make):
    lock, let_go = make(), threading.Event()

    def hold():
        with lock:
            let_go.wait()

    g = go(hold)
    until(lambda: g.state == "lock" and not lock.acquire(False))
    assert not lock.acquire(True, 0.01)
    let_go.set()
    assert lock.acquire(True, 10)
    g.result(10)

    waiter = go(lambda: lock.acquire() and (lock.release() or "had it"))
    until(lambda: waiter.state == "lock")
    lock.release()
    assert waiter.result(10) == "had it"


@pytest.mark.parametrize("make", [threading.Lock, threading.RLock])
def test_everybody_at_once(make):
    """Goroutines on several threads and plain threads: nobody is forgotten and nobody is inside with another."""
    lock, count, wrong = make(), [0], []

    def work(pause):
        for _ in range(100):
            with lock:
                before = count[0]
                if before % 10 == 0:
                    pause()
                count[0] = before + 1
                if count[0] != before + 1:
                    wrong.append(before)

    threads = [threading.Thread(target=work, args=(lambda: time.sleep(0.0001),)) for _ in range(3)]
    goroutines = [go(work, gosched) for _ in range(20)]
    for thread in threads:
        thread.start()
    for g in goroutines:
        g.result(60)
    for thread in threads:
        thread.join(60)
    assert count == [2300] and wrong == []


def test_a_goroutine_does_not_starve_beside_one_that_takes_the_lock_again_at_once():
    lock, stop = threading.Lock(), []

    def greedy():
        turns = 0
        while not stop:
            with lock:
                gosched()
                turns += 1
        return turns

    def modest():
        with lock:
            stop.append(True)

    g = go(greedy)
    go(modest).result(10)
    assert g.result(10) > 0


@pytest.mark.parametrize("make", [threading.Lock, threading.RLock])
def test_timeouts(make):
    lock = make()
    lock.acquire()

    def attempts():
        start = time.monotonic()
        return lock.acquire(False), lock.acquire(timeout=0), lock.acquire(True, 0.02), time.monotonic() - start >= 0.02

    assert go(attempts).result(10) == (False, False, False, True)
    lock.release()
    assert go(lambda: lock.acquire(timeout=1) and (lock.release() or True)).result(10)


def test_an_rlock_is_the_goroutines():
    lock, entered, tried = threading.RLock(), threading.Event(), threading.Event()

    def owner():
        with lock, lock:
            entered.set()
            tried.wait()
            return lock._is_owned(), lock.acquire(False), lock.release()

    def other():
        entered.wait()
        with pytest.raises(RuntimeError, match="cannot release un-acquired lock"):
            lock.release()
        try:
            return lock._is_owned(), lock.acquire(False), lock.acquire(timeout=0.001)
        finally:
            tried.set()

    def both():
        first, second = go(owner), go(other)
        return first.result(), second.result()

    assert go(both).result(10) == ((True, True, None), (False, False, False))
    assert lock.acquire(False)
    assert lock._is_owned()
    lock.release()


def test_an_rlock_given_up_while_owned_does_not_stay():
    def forget():
        for _ in range(300):
            threading.RLock().acquire()
        return weakref.ref(threading.RLock())

    assert go(forget).result(10)() is None
    gc.collect()
    lock = threading.RLock()  # at the address of one of them, perhaps
    assert go(lambda: lock.acquire(timeout=1)).result(10)


@pytest.mark.parametrize("make", [threading.Lock, threading.RLock])
def test_cancelled_while_it_waits(make):
    lock = make()
    lock.acquire()
    g, after = go(lock.acquire), go(lock.acquire)
    until(lambda: g.state == after.state == "lock")
    g.cancel()
    with pytest.raises(asyncio.CancelledError):
        g.result(10)
    lock.release()
    assert after.result(10)


def locks_again(g):
    """Whether it is where Condition.wait() takes the condition's lock again."""
    return any("_acquire_restore" in frame.name + (frame.line or "") for frame in g.stack())


def test_a_cancelled_wait_for_a_condition_has_its_lock_again():
    for lock in (threading.Lock(), threading.RLock()):
        condition, seen = threading.Condition(lock), []

        def wait(condition=condition, seen=seen):
            with condition:
                try:
                    condition.wait()
                finally:
                    seen.append(condition._is_owned())

        g = go(wait)
        until(lambda g=g: g.state == "lock")
        with condition:
            g.cancel()
            until(lambda g=g: locks_again(g))
            assert seen == []
        with pytest.raises(asyncio.CancelledError):
            g.result(10)
        assert seen == [True]
        assert lock.acquire(False)
        lock.release()


def test_notify_is_not_lost_to_a_cancelled_waiter():
    condition = threading.Condition()

    def wait():
        with condition:
            return condition.wait(10)

    first, second = go(wait), go(wait)
    until(lambda: first.state == second.state == "lock")
    with condition:
        first.cancel()
    with pytest.raises(asyncio.CancelledError):
        first.result(10)
    with condition:
        condition.notify()
    assert second.result(10)


def test_release_save_keeps_the_depth():
    lock = threading.RLock()
    condition = threading.Condition(lock)

    def wait():
        with lock, lock, condition:
            assert condition.wait(10)
            depth = 0
            while lock._is_owned():
                lock.release()
                depth += 1
            for _ in range(depth):
                lock.acquire()
            return depth

    g = go(wait)
    until(lambda: g.state == "lock")
    with condition:
        condition.notify()
    assert g.result(10) == 3
    assert lock.acquire(False)
    lock.release()


def test_barrier_semaphore_event(overlap):
    barrier, semaphore, event = threading.Barrier(8), threading.BoundedSemaphore(2), threading.Event()
    inside, most = [], []

    def body(i):
        index = barrier.wait(10)
        with semaphore:
            inside.append(i)
            time.sleep(0.001)
            most.append(len(inside))
            inside.remove(i)
        if len(most) == 8:
            event.set()
        assert event.wait(10)
        return index

    assert sorted(overlap(body)) == list(range(8))
    assert max(most) == 2


def test_queues(overlap):
    numbers, results = queue.Queue(3), queue.SimpleQueue()

    def body(i):
        if i < 4:
            for n in range(50):
                numbers.put((i, n))
        else:
            for _ in range(50):
                results.put(numbers.get(timeout=10))
                numbers.task_done()
        numbers.join()

    overlap(body)
    assert sorted(results.get(timeout=1) for _ in range(200)) == [(i, n) for i in range(4) for n in range(50)]
    assert results.empty()


def test_simple_queue_between_threads_and_goroutines():
    items = queue.SimpleQueue()
    getters = [go(items.get) for _ in range(5)]
    until(lambda: [g.state for g in getters] == ["queue get"] * 5)
    threading.Thread(target=lambda: [items.put(n) for n in range(4)]).start()
    go(items.put_nowait, 4)
    assert sorted(g.result(10) for g in getters) == list(range(5))

    def impatient():
        with pytest.raises(queue.Empty):
            items.get(timeout=0.01)
        with pytest.raises(queue.Empty):
            items.get(block=False)
        return "empty"

    assert go(impatient).result(10) == "empty"


def test_locks_are_still_locks():
    lock, rlock = threading.Lock(), threading.RLock()
    for each in (lock, rlock):
        assert weakref.ref(each)() is each
        with pytest.raises(TypeError, match="cannot pickle"):
            pickle.dumps(each)
        with pytest.raises(TypeError, match="cannot pickle"):
            copy.copy(each)
        each._at_fork_reinit()
        assert repr(each).startswith("<unlocked _thread.")
    assert go(repr, rlock).result(10).startswith("<unlocked _thread.RLock")


def test_a_forked_child_of_a_goroutine_has_locks_of_its_own():
    lock = threading.Lock()
    lock.acquire()
    waiter = go(lock.acquire)
    until(lambda: waiter.state == "lock")

    def child():
        pid = os.fork()
        if pid == 0:
            try:
                lock.release()
                with lock, threading.RLock(), threading.Condition():
                    time.sleep(0.001)
                mine = threading.Lock()
                mine.acquire()
                os._exit(7 if not mine.acquire(timeout=0.01) else 1)
            finally:
                os._exit(2)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    assert go(child).result(10) == 7
    lock.release()
    assert waiter.result(10)
