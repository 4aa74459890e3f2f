"""no_leaks(): what it finds, where that was made, and what it lets pass."""

import asyncio
import os
import select
import socket
import subprocess
import sys
import threading

import pytest

import goloop
from goloop import context, net, testing, timer
from goloop.testing import LeakError, bubble, no_leaks, run
from tests.helpers.waiting import until


def receiver(chan):
    """A goroutine that waits for a value."""
    g = goloop.go(chan.recv)
    until(lambda: g.state == "chan receive")
    return g


def kinds(caught):
    return sorted(leak.kind for leak in caught.value.leaks)


def made_here(caught, function):
    """Whether the text of the only leak has the function that made it."""
    (leak,) = caught.value.leaks
    return any(frame.name == function for frame in leak.stack or ())


def test_a_block_that_leaves_nothing_passes():
    with no_leaks():
        goloop.go(goloop.sleep, 0.001).join()
        goloop.run(asyncio.sleep(0))
        threading.Thread(target=int).start()
        with open(__file__), socket.socket():
            pass
        subprocess.run([sys.executable, "-c", ""], check=True)


def test_a_goroutine_is_found():
    chan = goloop.Chan()

    def make_it():
        receiver(chan)

    with pytest.raises(LeakError, match=r"(?s)1 left behind.*goroutine: .*chan receive") as caught:
        with no_leaks(patience=0):
            make_it()
    assert made_here(caught, "make_it")
    chan.close()


def test_what_is_on_its_way_out_gets_the_time_for_that():
    chan = goloop.Chan()
    ends = threading.Timer(0.05, chan.close)
    ends.start()
    with no_leaks(allow=["ChannelClosed"], patience=30):
        goloop.go(list, chan)
    ends.join()


def test_a_task_is_found():
    async def forever():
        await asyncio.get_running_loop().create_future()

    async def main():
        def make_it():
            return asyncio.create_task(forever())

        with pytest.raises(LeakError, match=r"task: <Task pending") as caught:
            async with no_leaks(patience=0):
                task = make_it()
        assert made_here(caught, "make_it")
        task.cancel()

    goloop.run(main())
    asyncio.run(main())


def test_a_timer_of_a_loop_is_found_and_no_sleep():
    async def main():
        def make_it():
            return asyncio.get_running_loop().call_later(1000, int)

        with pytest.raises(LeakError, match="timer: ") as caught:
            with no_leaks(patience=0):
                handle = make_it()
        assert made_here(caught, "make_it")
        handle.cancel()
        with no_leaks(patience=0, allow=["task: "]):
            task = asyncio.create_task(asyncio.sleep(1000))
            await asyncio.sleep(0)
        task.cancel()

    goloop.run(main())
    asyncio.run(main())


def test_timers_of_goloop_are_found():
    def make_it():
        return timer.Timer(1000)

    with pytest.raises(LeakError, match=r"timer: <ChannelTimer due in") as caught:
        with no_leaks(patience=0):
            kept = make_it()
    assert made_here(caught, "make_it")
    kept.stop()
    with pytest.raises(LeakError, match="timer: <CallbackTimer due in") as caught:
        with no_leaks(patience=0):
            kept = context.with_timeout(context.background(), 1000)
    kept.cancel()


def test_timers_in_a_bubble_are_found():
    def make_it():
        return timer.Timer(1000)

    with bubble():
        with pytest.raises(LeakError, match="timer: <ChannelTimer due in 1e\\+03 s") as caught:
            with no_leaks():
                kept = make_it()
        assert made_here(caught, "make_it")
        kept.stop()


def test_a_file_is_found():
    def make_it():
        return open(__file__)

    with pytest.raises(LeakError, match=r"descriptor: descriptor \d+, .*test_leaks.py") as caught:
        with no_leaks(patience=0):
            file = make_it()
    assert made_here(caught, "make_it")
    file.close()


def test_a_descriptor_of_which_nothing_tells_is_found():
    with pytest.raises(LeakError) as caught:
        with no_leaks(patience=0):
            left = select.epoll()
    assert kinds(caught) == ["descriptor"]
    assert "where it was made is not known" in str(caught.value)
    left.close()


def test_a_connection_is_found_with_its_addresses():
    def make_it():
        return socket.create_server(("127.0.0.1", 0))

    with pytest.raises(LeakError) as caught:
        with no_leaks(patience=0):
            server = make_it()
    assert kinds(caught) == ["connection"]
    assert str(server.getsockname()) in str(caught.value)
    assert made_here(caught, "make_it")
    server.close()


def test_a_connection_that_goloop_net_accepts_is_found_with_who_accepted_it():
    def make_it(listener):
        return listener.accept()

    with net.listen("tcp", "127.0.0.1:0") as listener, net.dial("tcp", str(listener.addr)):
        with pytest.raises(LeakError) as caught:
            with no_leaks(patience=0):
                conn = make_it(listener)
        assert kinds(caught) == ["connection"]
        assert made_here(caught, "make_it")
        conn.close()


def test_a_connection_that_goloop_net_dials_is_found_with_who_dialed_it():
    def make_it(address):
        return net.dial("tcp", address)

    with socket.create_server(("127.0.0.1", 0)) as server:
        with pytest.raises(LeakError) as caught:
            with no_leaks(patience=0):
                conn = make_it(f"127.0.0.1:{server.getsockname()[1]}")
        assert made_here(caught, "make_it")
        conn.close()


@pytest.mark.parametrize("make", ["pipe", "eventfd", "memfd_create", "openpty", "dup"])
def test_descriptors_of_which_python_tells_nothing_are_found_with_their_makers(make):
    def make_it():
        arguments = {"eventfd": (0,), "memfd_create": ("left",), "dup": (0,)}.get(make, ())
        made = getattr(os, make)(*arguments)
        return made if isinstance(made, tuple) else (made,)

    function = getattr(os, make)
    with pytest.raises(LeakError) as caught:
        with no_leaks(patience=0):
            numbers = make_it()
    assert len(caught.value.leaks) == len(numbers)
    for leak in caught.value.leaks:
        assert any(frame.name == "make_it" for frame in leak.stack or ()), leak
    assert getattr(os, make) is function
    for number in numbers:
        os.close(number)


def test_a_number_that_was_used_before_is_not_taken_for_the_thing_before():
    def first():
        os.close(os.dup(0))

    with pytest.raises(LeakError) as caught:
        with no_leaks(patience=0):
            first()
            leaked = os.open(__file__, os.O_RDONLY)
    assert not made_here(caught, "first")
    os.close(leaked)


def test_a_loop_that_is_not_closed_is_found():
    with pytest.raises(LeakError) as caught:
        with no_leaks(patience=0):
            loop = asyncio.SelectorEventLoop()
    assert kinds(caught) == ["connection", "connection", "descriptor"]
    loop.close()


def test_a_thread_is_found():
    end = threading.Event()

    def make_it():
        thread = threading.Thread(target=end.wait, name="left")
        thread.start()
        return thread

    with pytest.raises(LeakError, match="thread: <Thread\\(left") as caught:
        with no_leaks(patience=0):
            thread = make_it()
    assert made_here(caught, "make_it")
    end.set()
    thread.join()


def test_a_child_process_is_found():
    def make_it():
        return subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)

    with pytest.raises(LeakError, match="child process: process") as caught:
        with no_leaks(patience=0, allow=[r"pipe:\["]):
            child = make_it()
    assert made_here(caught, "make_it")
    child.communicate(b"\n")


def test_what_is_allowed_passes():
    chan = goloop.Chan()
    with no_leaks(patience=0, allow=["chan receive"]):
        receiver(chan)
    with no_leaks(patience=0, allow=[lambda leak: leak.kind == "goroutine"]):
        receiver(chan)
    with pytest.raises(LeakError):
        with no_leaks(patience=0, allow=["nothing like it"]):
            receiver(chan)
    chan.close()
    with pytest.raises(TypeError):
        no_leaks(allow=[3])


def test_a_block_that_raises_is_not_looked_at():
    chan = goloop.Chan()
    with pytest.raises(KeyError):
        with no_leaks():
            receiver(chan)
            raise KeyError
    chan.close()


def test_in_a_bubble_the_end_waits_until_all_are_at_rest():
    with bubble() as loop:
        with no_leaks():
            for _ in range(3):
                goloop.go(goloop.gosched)
        with pytest.raises(LeakError) as caught:
            with no_leaks():
                goloop.go(goloop.sleep, 10)
        assert kinds(caught) == ["goroutine"]
        assert loop.time() == 1

    async def main():
        async with no_leaks():
            task = asyncio.create_task(asyncio.sleep(0))
        assert task.done()
        with pytest.raises(LeakError) as caught:
            async with no_leaks():
                task = asyncio.create_task(asyncio.sleep(1))
        assert kinds(caught) == ["task"]
        await task

    run(main)


def test_what_was_there_before_is_no_leak():
    chan = goloop.Chan()
    goloop.go(chan.recv)
    with open(__file__), no_leaks(patience=0):
        pass
    chan.close()


def test_a_leak_s_text_stands_in_the_error():
    assert testing.Leak("thread", "x", None).kind == "thread"
    assert issubclass(LeakError, AssertionError) and issubclass(LeakError, goloop.GoloopError)
