"""The edge of a bubble: what is made on one side of it is not waited for on the other."""

import asyncio
import threading

import pytest

import goloop
from goloop import net, sync
from goloop.testing import bubble, run

OUTSIDE = "made outside of the bubble"
INSIDE = "made in a bubble, and is used outside"


def taken(lock):
    lock.lock()
    return lock


def read_locked():
    lock = sync.RWMutex()
    lock.rlock()
    return lock


def all_held():
    semaphore = sync.Semaphore(1)
    semaphore.acquire()
    return semaphore


def counting():
    group = sync.WaitGroup()
    group.add(1)
    return group


def locked_cond():
    cond = sync.Cond()
    cond.locker.lock()
    return cond


WAITS = {
    "Mutex.lock": (lambda: taken(sync.Mutex()), lambda it: it.lock()),
    "Mutex.async_lock": (lambda: taken(sync.Mutex()), lambda it: goloop.wait(it.async_lock())),
    "with Mutex": (lambda: taken(sync.Mutex()), lambda it: it.__enter__()),
    "async with Mutex": (lambda: taken(sync.Mutex()), lambda it: goloop.wait(it.__aenter__())),
    "RWMutex.lock": (read_locked, lambda it: it.lock()),
    "RWMutex.rlock": (lambda: taken(sync.RWMutex()), lambda it: it.rlock()),
    "RWMutex.async_rlock": (lambda: taken(sync.RWMutex()), lambda it: goloop.wait(it.async_rlock())),
    "RLocker.lock": (lambda: taken(sync.RWMutex()).rlocker(), lambda it: it.lock()),
    "async with RLocker": (lambda: taken(sync.RWMutex()).rlocker(), lambda it: goloop.wait(it.__aenter__())),
    "Semaphore.acquire": (all_held, lambda it: it.acquire()),
    "Semaphore.async_acquire": (all_held, lambda it: goloop.wait(it.async_acquire())),
    "Cond.wait": (locked_cond, lambda it: it.wait()),
    "Cond.async_wait": (locked_cond, lambda it: goloop.wait(it.async_wait())),
    "Cond.wait_for": (locked_cond, lambda it: it.wait_for(lambda: False)),
    "WaitGroup.wait": (counting, lambda it: it.wait()),
    "WaitGroup.async_wait": (counting, lambda it: goloop.wait(it.async_wait())),
    "Event.wait": (sync.Event, lambda it: it.wait()),
    "Event.async_wait": (sync.Event, lambda it: goloop.wait(it.async_wait())),
    "Future.result": (sync.Future, lambda it: it.result()),
    "await Future": (sync.Future, lambda it: goloop.wait(it)),
}
USES = {
    "Mutex.try_lock": (sync.Mutex, lambda it: it.try_lock()),
    "Mutex.unlock": (lambda: taken(sync.Mutex()), lambda it: it.unlock()),
    "RWMutex.try_rlock": (sync.RWMutex, lambda it: it.try_rlock()),
    "RWMutex.runlock": (read_locked, lambda it: it.runlock()),
    "Semaphore.try_acquire": (lambda: sync.Semaphore(1), lambda it: it.try_acquire()),
    "Semaphore.release": (all_held, lambda it: it.release()),
    "Cond.signal": (sync.Cond, lambda it: it.signal()),
    "Cond.broadcast": (sync.Cond, lambda it: it.broadcast()),
    "WaitGroup.add": (sync.WaitGroup, lambda it: it.add()),
    "WaitGroup.done": (counting, lambda it: it.done()),
    "WaitGroup.go": (sync.WaitGroup, lambda it: it.go(int)),
    "Once.do": (sync.Once, lambda it: it.do(int)),
    "Event.set": (sync.Event, lambda it: it.set()),
    "Event.clear": (sync.Event, lambda it: it.clear()),
    "Future.set_result": (sync.Future, lambda it: it.set_result(1)),
    "Future.set_exception": (sync.Future, lambda it: it.set_exception(OSError())),
}


def type_of(thing):
    return type(thing).__name__.replace("RLocker", "RWMutex")


def error_in_thread(function, *args):
    """What a call in a plain thread raises: its text, or None."""
    texts = []

    def call():
        try:
            function(*args)
        except RuntimeError as exc:
            texts.append(str(exc))

    thread = threading.Thread(target=call)
    thread.start()
    thread.join()
    return texts[0] if texts else None


@pytest.mark.parametrize("name", WAITS)
def test_a_wait_in_a_bubble_for_what_was_made_outside_is_an_error(name):
    make, wait = WAITS[name]
    thing = make()
    with bubble(), pytest.raises(RuntimeError, match=f"this {type_of(thing)} was {OUTSIDE}"):
        wait(thing)
    assert " waiting" not in repr(thing) or " 0 waiting" in repr(thing)


@pytest.mark.parametrize("name", USES)
def test_what_was_made_outside_and_needs_no_wait_can_be_used_in_a_bubble(name):
    """Such as a lock of a module, which nobody holds."""
    make, use = USES[name]
    thing = make()
    with bubble():
        use(thing)


@pytest.mark.parametrize(
    "name", [name for name in (*WAITS, *USES) if "async" not in name and not name.startswith("await")]
)
def test_what_was_made_in_a_bubble_is_an_error_outside(name):
    make, use = {**WAITS, **USES}[name]
    with bubble():
        thing = make()
        text = error_in_thread(use, thing)
    assert text is not None and INSIDE in text


def test_another_bubble_is_outside_too():
    with bubble():
        mutex = taken(sync.Mutex())
        once = sync.Once()
    with bubble():
        with pytest.raises(RuntimeError, match="used outside of it"):
            mutex.lock()
        with pytest.raises(RuntimeError, match="used outside of it"):
            once.do(int)
    assert repr(mutex) == "<Mutex locked, 0 waiting>"


def test_what_a_bubble_has_made_can_be_used_when_all_bubbles_are_over():
    with bubble():
        mutex, event = taken(sync.Mutex()), sync.Event()
    mutex.unlock()
    event.set()
    event.wait()
    assert mutex.try_lock()


def test_a_cond_whose_lock_is_from_outside_is_an_error_with_the_lock_held():
    mutex = sync.Mutex()
    with bubble():
        cond = sync.Cond(mutex)
        with cond:
            with pytest.raises(RuntimeError, match=f"this Mutex was {OUTSIDE}"):
                cond.wait()
            assert mutex.locked
    assert not mutex.locked


def test_a_once_that_runs_outside_is_not_waited_for_in_a_bubble():
    once = sync.Once()
    running, go_on = threading.Event(), threading.Event()

    def work():
        running.set()
        assert go_on.wait(10)

    thread = threading.Thread(target=once.do, args=(work,))
    thread.start()
    assert running.wait(10)
    try:
        with bubble():
            with pytest.raises(RuntimeError, match=f"this Once was {OUTSIDE}"):
                once.do(int)
            with pytest.raises(RuntimeError, match=f"this Once was {OUTSIDE}"):
                goloop.wait(once.async_do(int))
    finally:
        go_on.set()
        thread.join()
    with bubble():
        once.do(int)  # it is done: nothing to wait for


PIPE_USES = {
    "read": lambda conn: conn.read(1),
    "readinto": lambda conn: conn.readinto(bytearray(1)),
    "write": lambda conn: conn.write(b"x"),
    "close": lambda conn: conn.close(),
    "close_write": lambda conn: conn.close_write(),
    "set_deadline": lambda conn: conn.set_deadline(1),
}


@pytest.mark.parametrize("name", PIPE_USES)
def test_a_pipe_from_outside_is_an_error_at_the_call(name):
    ours, theirs = net.pipe()
    with ours, theirs, bubble(), pytest.raises(RuntimeError, match="made outside of the bubble that uses it"):
        PIPE_USES[name](ours)


@pytest.mark.parametrize("name", PIPE_USES)
def test_a_pipe_of_a_bubble_is_an_error_outside(name):
    with bubble():
        ours, theirs = net.pipe()
        with ours, theirs:
            text = error_in_thread(PIPE_USES[name], ours)
            assert not ours.closed
    assert text is not None and INSIDE in text


def test_a_connection_with_a_descriptor_is_an_error_in_a_bubble():
    with net.listen("tcp", "127.0.0.1:0") as listener, net.dial("tcp", str(listener.addr)) as conn:
        with bubble():
            with pytest.raises(RuntimeError, match="made outside of the bubble"):
                listener.accept()
            with pytest.raises(RuntimeError, match="made outside of the bubble"):
                conn.write(b"x")
        listener.accept().close()


LOOPS = [asyncio.SelectorEventLoop, asyncio.new_event_loop, goloop.new_event_loop]


@pytest.mark.parametrize("new_loop", LOOPS, ids=["asyncio", "policy", "goloop"])
def test_another_loop_made_before_is_an_error_where_it_runs_in_a_bubble(new_loop):
    loop = new_loop()
    coroutine = asyncio.sleep(0)
    with bubble():
        with pytest.raises(RuntimeError, match="no other one can run in it"):
            loop.run_forever()
        with pytest.raises(RuntimeError, match="no other one can run in it"):
            loop.run_until_complete(coroutine)
    assert loop.run_until_complete(coroutine) is None
    loop.close()


def test_asyncio_run_is_an_error_in_a_goroutine_of_a_bubble(caplog):
    async def main():
        return "never"

    def call():
        coroutine = main()
        with pytest.raises(RuntimeError, match="no other one can run in it"):
            asyncio.run(coroutine)
        coroutine.close()
        return "noticed"

    async def test():
        return await goloop.go(call)

    assert run(test) == "noticed"
    assert not caplog.records
