"""add_reader and add_writer: when their callbacks are called, replaced, removed, freed."""

import asyncio
import contextlib
import contextvars
import os
import socket
import weakref

import pytest

from tests.helpers.outcomes import outcome_of
from tests.helpers.sockets import stream_pair
from tests.helpers.waiting import turn


@pytest.fixture
def make_pair():
    """Make pairs of connected sockets that are closed after the test."""
    with contextlib.ExitStack() as stack:
        yield lambda: stack.enter_context(stream_pair())


class Callback:
    def call(self):
        pass


def fill(sock):
    """Send until the socket takes no more; return how much it took."""
    total = 0
    try:
        while True:
            total += sock.send(b"x" * 65536)
    except BlockingIOError:
        return total


# Callbacks


def test_a_reader_is_called_with_its_arguments_when_there_is_data(both, make_pair):
    def scenario(loop):
        one, other = make_pair()
        seen = []

        def readable(*args):
            seen.append((args, one.recv(100)))
            loop.stop()

        returned = loop.add_reader(one.fileno(), readable, 1, "two")
        turn(loop)
        seen.append("quiet")
        other.send(b"data")
        loop.run_forever()
        loop.remove_reader(one.fileno())
        return returned, seen

    assert both(scenario) == (None, ["quiet", ((1, "two"), b"data")])


def test_a_writer_is_called_when_there_is_room(both, make_pair):
    def scenario(loop):
        one, other = make_pair()
        seen = []

        def writable(*args):
            seen.append(args)
            loop.remove_writer(one.fileno())
            loop.stop()

        fill(one)
        returned = loop.add_writer(one.fileno(), writable, 1, "two")
        turn(loop)
        seen.append("full")
        while outcome_of(other.recv, 1 << 20)[0] != "BlockingIOError":
            pass
        loop.run_forever()
        return returned, seen

    assert both(scenario) == (None, ["full", (1, "two")])


def test_a_reader_that_does_not_read_is_called_each_iteration(both, make_pair):
    def scenario(loop):
        one, other = make_pair()
        seen = []
        other.send(b"x")
        loop.add_reader(one, seen.append, "called")
        counts = []
        for _ in range(4):
            turn(loop)
            counts.append(len(seen))
        loop.remove_reader(one)
        turn(loop)
        return counts, len(seen)

    assert both(scenario) == ([1, 2, 3, 4], 4)


def test_a_reader_that_reads_a_little_is_called_for_the_rest(both, make_pair):
    def scenario(loop):
        one, other = make_pair()
        seen = []

        def readable():
            seen.append(one.recv(1))
            if not seen[-1]:
                loop.remove_reader(one)
                loop.stop()

        loop.add_reader(one, readable)
        other.send(b"hello")
        other.shutdown(socket.SHUT_WR)
        loop.run_forever()
        return seen

    assert both(scenario) == [b"h", b"e", b"l", b"l", b"o", b""]


def test_one_descriptor_has_a_reader_and_a_writer(both, make_pair):
    def scenario(loop):
        one, other = make_pair()
        seen = []
        other.send(b"x")
        loop.add_writer(one, seen.append, "writer")
        loop.add_reader(one, seen.append, "reader")
        turn(loop)
        both_called = list(seen)
        removed = [loop.remove_reader(one)]
        turn(loop)
        writer_only = seen[2:]
        removed += [loop.remove_writer(one), loop.remove_reader(one), loop.remove_writer(one)]
        turn(loop)
        return both_called, writer_only, removed, len(seen)

    assert both(scenario) == (["reader", "writer"], ["writer"], [True, True, False, False], 3)


def test_adding_again_replaces(both, make_pair):
    def scenario(loop):
        one, other = make_pair()
        seen = []
        other.send(b"x")
        for name in ("first", "second"):
            loop.add_reader(one, seen.append, f"{name} reader")
            loop.add_writer(one, seen.append, f"{name} writer")
        turn(loop)
        return seen[:], loop.remove_reader(one), loop.remove_reader(one), loop.remove_writer(one)

    assert both(scenario) == (["second reader", "second writer"], True, False, True)


def test_replacing_and_removing_free_the_callback_at_once(both, make_pair):
    def scenario(loop):
        one, _other = make_pair()
        freed = []
        for add, remove in ((loop.add_reader, loop.remove_reader), (loop.add_writer, loop.remove_writer)):
            first, second = Callback(), Callback()
            refs = weakref.ref(first), weakref.ref(second)
            add(one, first.call)
            add(one, second.call)
            del first, second
            freed.append([ref() is None for ref in refs])
            remove(one)
            freed.append([ref() is None for ref in refs])
        return freed

    assert both(scenario) == [[True, False], [True, True]] * 2


def test_a_reader_can_remove_itself_and_the_writer(both, make_pair):
    def scenario(loop):
        one, other = make_pair()
        seen = []

        def readable():
            seen.append(("reader", loop.remove_writer(one), loop.remove_reader(one)))

        other.send(b"x")
        loop.add_reader(one, readable)
        loop.add_writer(one, seen.append, "writer")
        turn(loop)
        turn(loop)
        return seen

    assert both(scenario) == [("reader", True, True)]


def test_a_reader_can_replace_itself(both, make_pair):
    def scenario(loop):
        one, other = make_pair()
        seen = []

        def first():
            seen.append("first")
            loop.add_reader(one, seen.append, "second")

        other.send(b"x")
        loop.add_reader(one, first)
        turn(loop)
        turn(loop)
        return seen[:], loop.remove_reader(one)

    assert both(scenario) == (["first", "second"], True)


def test_of_two_ready_readers_the_first_can_remove_the_other(both, make_pair):
    def scenario(loop):
        (one, one_peer), (two, two_peer) = make_pair(), make_pair()
        seen = []

        def readable(other):
            seen.append(loop.remove_reader(other))

        loop.add_reader(one, readable, two)
        loop.add_reader(two, readable, one)
        one_peer.send(b"x")
        two_peer.send(b"x")
        turn(loop)
        return seen[:], sorted([loop.remove_reader(one), loop.remove_reader(two)])

    assert both(scenario) == ([True], [False, True])


def test_callbacks_run_in_the_context_of_the_call(both, make_pair):
    def scenario(loop):
        one, other = make_pair()
        var, seen = contextvars.ContextVar("var", default="unset"), []

        def callback(kind):
            seen.append((kind, var.get(), asyncio.current_task()))

        context = contextvars.copy_context()
        context.run(var.set, "caller")
        other.send(b"x")
        context.run(loop.add_reader, one, callback, "reader")
        context.run(loop.add_writer, one, callback, "writer")
        turn(loop)
        return seen[:]

    assert both(scenario) == [("reader", "caller", None), ("writer", "caller", None)]


def test_a_reader_that_raises_is_reported_and_stays(both, make_pair):
    def scenario(loop):
        one, other = make_pair()
        reports = []
        loop.set_exception_handler(lambda loop, context: reports.append(str(context["exception"])))

        def readable():
            raise ValueError(len(reports))

        other.send(b"x")
        loop.add_reader(one, readable)
        turn(loop)
        turn(loop)
        return reports[:], loop.remove_reader(one)

    assert both(scenario) == (["0", "1"], True)


# Ends


def test_the_peers_end_wakes_a_reader(both, make_pair):
    def scenario(loop):
        one, other = make_pair()
        seen = []

        def readable():
            seen.append(one.recv(10))
            loop.remove_reader(one)
            loop.stop()

        loop.add_reader(one, readable)
        loop.call_soon(other.close)
        loop.run_forever()
        return seen

    assert both(scenario) == [b""]


def test_a_pipes_reading_end_going_away_wakes_the_writer(both):
    def scenario(loop):
        reading, writing = os.pipe()
        os.set_blocking(writing, False)
        seen = []

        def writable():
            seen.append(outcome_of(os.write, writing, b"x")[0])
            loop.remove_writer(writing)
            loop.stop()

        while outcome_of(os.write, writing, b"x" * 4096) == 4096:
            pass
        loop.add_writer(writing, writable)
        loop.call_soon(os.close, reading)
        loop.run_forever()
        os.close(writing)
        return seen

    assert both(scenario) == ["BrokenPipeError"]


def test_a_pipes_writing_end_going_away_wakes_the_reader(both):
    def scenario(loop):
        reading, writing = os.pipe()
        seen = []

        def readable():
            seen.append(os.read(reading, 10))
            loop.remove_reader(reading)
            loop.stop()

        loop.add_reader(reading, readable)
        loop.call_soon(os.close, writing)
        loop.run_forever()
        os.close(reading)
        return seen

    assert both(scenario) == [b""]


def test_an_eventfd_is_watched_like_any_other(both):
    def scenario(loop):
        fd = os.eventfd(0, os.EFD_NONBLOCK)
        seen = []
        loop.add_reader(fd, lambda: seen.append(os.eventfd_read(fd)))
        for n in (3, 4):
            os.eventfd_write(fd, n)
            turn(loop)
        turn(loop)
        loop.remove_reader(fd)
        os.close(fd)
        return seen

    assert both(scenario) == [3, 4]
