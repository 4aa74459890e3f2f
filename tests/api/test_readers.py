"""add_reader, add_writer and their removal, on the descriptors that people watch: sockets, pipes, eventfds."""

import asyncio
import contextvars
import errno
import os
import re
import resource
import socket
import weakref

import pytest

from looptools import attempt, turn


@pytest.fixture
def pair():
    one, other = socket.socketpair()
    one.setblocking(False)
    other.setblocking(False)
    with one, other:
        yield one, other


@pytest.fixture
def make_pair():
    """Make pairs of connected sockets that are closed after the test."""
    made = []

    def make():
        sockets = socket.socketpair()
        for sock in sockets:
            sock.setblocking(False)
        made.extend(sockets)
        return sockets

    yield make
    for sock in made:
        sock.close()


class WithFileno:
    def __init__(self, value):
        self.value = value

    def __repr__(self):
        return "<with fileno>"

    def fileno(self):
        return self.value


def numberless(outcome):
    """An outcome without descriptor numbers and transports in it."""
    kind, text = outcome
    return kind, re.sub(r"<.*>|\d+", "N", text)


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
        while attempt(other.recv, 1 << 20)[0] != "BlockingIOError":
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
        one, other = make_pair()
        freed = []
        for add, remove in ((loop.add_reader, loop.remove_reader), (loop.add_writer, loop.remove_writer)):
            first, second = WithFileno(1), WithFileno(2)
            refs = weakref.ref(first), weakref.ref(second)
            add(one, first.fileno)
            add(one, second.fileno)
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
            seen.append(attempt(os.write, writing, b"x")[0])
            loop.remove_writer(writing)
            loop.stop()

        while attempt(os.write, writing, b"x" * 4096) == 4096:
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


# Arguments


METHODS = ["add_reader", "add_writer", "remove_reader", "remove_writer"]


def call(loop, method, fd):
    return attempt(getattr(loop, method), fd, *((print,) if method.startswith("add") else ()))


@pytest.mark.parametrize("method", METHODS)
def test_objects_without_a_number_are_refused(both, method):
    def scenario(loop):
        return [call(loop, method, WithFileno(value)) for value in (None, "x")] + [call(loop, method, "text")]

    assert both(scenario) == [("ValueError", "Invalid file object: <with fileno>")] * 2 + [
        ("ValueError", "Invalid file object: 'text'")
    ]


@pytest.mark.parametrize("method", METHODS)
def test_negative_numbers_are_refused(both, method):
    def scenario(loop):
        return [call(loop, method, fd) for fd in (-1, WithFileno(-1))]

    assert [kind for kind, text in both(scenario)] == ["ValueError"] * 2


def test_objects_with_a_number_and_the_number_are_the_same(both, make_pair):
    def scenario(loop):
        one, other = make_pair()
        seen = []
        other.send(b"x")
        loop.add_reader(one, seen.append, "socket")
        loop.add_reader(WithFileno(one.fileno()), seen.append, "object")
        turn(loop)
        loop.add_writer(WithFileno(one.fileno()), seen.append, "writer")
        return seen[:], loop.remove_reader(one.fileno()), loop.remove_reader(one), loop.remove_writer(one)

    assert both(scenario) == (["object"], True, False, True)


def test_removing_what_was_never_added_is_false(both, pair):
    def scenario(loop):
        return [loop.remove_reader(pair[0]), loop.remove_writer(pair[0]), loop.remove_reader(10**6)]

    assert both(scenario) == [False, False, False]


@pytest.mark.parametrize("method", METHODS)
def test_a_transports_descriptor_is_refused(both, make_pair, method):
    async def scenario(loop):
        one, other = make_pair()
        transport, protocol = await loop.create_connection(asyncio.Protocol, sock=one)
        outcomes = [numberless(call(loop, method, fd)) for fd in (one.fileno(), WithFileno(one.fileno()))]
        transport.close()
        return outcomes

    assert both(scenario) == [("RuntimeError", "File descriptor N is used by transport N")] + [
        ("RuntimeError", "File descriptor N")
    ]


def test_a_closed_number_is_an_os_error(both):
    def scenario(loop):
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        unused = min(limit, 4096) - 1
        outcomes = []
        for method in (loop.add_reader, loop.add_writer, loop.add_reader):
            try:
                method(unused, print)
            except OSError as exc:
                outcomes.append(exc.errno)
        return outcomes, loop.remove_reader(unused), loop.remove_writer(unused)

    assert both(scenario) == ([errno.EBADF] * 3, False, False)


def test_a_regular_file_cannot_be_watched(both, tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"content")

    def scenario(loop):
        with path.open("rb") as file, open(os.devnull, "wb") as null:
            return [
                attempt(loop.add_reader, file, print)[0],
                attempt(loop.add_writer, null.fileno(), print)[0],
                loop.remove_reader(file),
                loop.remove_writer(null.fileno()),
            ]

    assert both(scenario) == ["PermissionError", "PermissionError", False, False]


# Numbers that are closed and used again


def test_a_number_closed_before_its_removal_can_be_used_again(both, make_pair):
    def scenario(loop):
        one, peer = make_pair()
        seen, fd = [], one.fileno()
        loop.add_reader(fd, seen.append, "old")
        peer.send(b"x")
        turn(loop)
        one.close()
        removed = loop.remove_reader(fd), loop.remove_reader(fd)
        two, two_peer = make_pair()
        two_peer.send(b"x")
        if two.fileno() != fd:
            os.dup2(two.fileno(), fd)
        loop.add_reader(fd, seen.append, "new")
        turn(loop)
        removed += (loop.remove_reader(fd),)
        if two.fileno() != fd:
            os.close(fd)
        return seen[:], removed

    assert both(scenario) == (["old", "new"], (True, False, True))


def test_a_number_removed_and_used_again_is_not_woken_by_the_old_file(both, make_pair):
    def scenario(loop):
        (one, peer), (two, two_peer) = make_pair(), make_pair()
        seen, fd = [], os.dup(one.fileno())
        loop.add_reader(fd, seen.append, "old")
        peer.send(b"x")
        loop.remove_reader(fd)
        os.dup2(two.fileno(), fd)
        loop.add_reader(fd, seen.append, "new")
        turn(loop)
        quiet = list(seen)
        two_peer.send(b"x")
        turn(loop)
        loop.remove_reader(fd)
        os.close(fd)
        return quiet, seen

    assert both(scenario) == ([], ["new"])


def test_many_numbers_come_and_go(both, make_pair):
    def scenario(loop):
        seen = []
        for n in range(300):
            one, other = make_pair()
            other.send(b"x")
            loop.add_reader(one, seen.append, n)
            turn(loop)
            loop.remove_reader(one)
            one.close()
            other.close()
        return seen == list(range(300))

    assert both(scenario) is True


# More than one loop


def test_two_loops_watch_one_descriptor(both, make_pair):
    def scenario(loop):
        one, peer = make_pair()
        other, seen = type(loop)(), []
        try:
            loop.add_reader(one, seen.append, "loop")
            other.add_reader(one, seen.append, "other")
            peer.send(b"x")
            turn(loop)
            turn(other)
            removed = [loop.remove_reader(one), loop.remove_reader(one)]
            turn(other)
            return seen[:], removed, other.remove_reader(one)
        finally:
            other.close()

    assert both(scenario) == (["loop", "other", "other"], [True, False], True)


def test_a_closed_loop_adds_and_removes_nothing(both, make_pair):
    def scenario(loop):
        one, other = make_pair()
        loop.add_reader(one, print)
        loop.close()
        return [call(loop, method, one) for method in METHODS]

    closed = ("RuntimeError", "Event loop is closed")
    assert both(scenario) == [closed, closed, False, False]


def test_a_closed_loop_lets_go_of_its_readers(both, make_pair):
    def scenario(loop):
        one, other = make_pair()
        callback = WithFileno(1)
        ref = weakref.ref(callback)
        loop.add_reader(one, callback.fileno)
        del callback
        loop.close()
        successor = type(loop)()
        seen = []
        other.send(b"x")
        successor.add_reader(one, seen.append, "successor")
        turn(successor)
        successor.close()
        return ref() is None, seen

    assert both(scenario) == (True, ["successor"])
