"""What add_reader and add_writer watch: objects and numbers, those refused, those closed and used again."""

import asyncio
import contextlib
import errno
import os
import resource
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


class WithFileno:
    def __init__(self, value):
        self.value = value

    def __repr__(self):
        return "<with fileno>"

    def fileno(self):
        return self.value


METHODS = ["add_reader", "add_writer", "remove_reader", "remove_writer"]


def call(loop, method, fd):
    return outcome_of(getattr(loop, method), fd, *((print,) if method.startswith("add") else ()))


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


def test_removing_what_was_never_added_is_false(both, make_pair):
    def scenario(loop):
        one, _other = make_pair()
        return [loop.remove_reader(one), loop.remove_writer(one), loop.remove_reader(10**6)]

    assert both(scenario) == [False, False, False]


@pytest.mark.parametrize("method", METHODS)
def test_a_transports_descriptor_is_refused(both, make_pair, method):
    async def scenario(loop):
        one, _other = make_pair()
        transport, _protocol = await loop.create_connection(asyncio.Protocol, sock=one)
        outcomes = [call(loop, method, fd) for fd in (one.fileno(), WithFileno(one.fileno()))]
        transport.close()
        return [(kind, text.partition(" is used by transport ")[1]) for kind, text in outcomes]

    assert both(scenario) == [("RuntimeError", " is used by transport ")] * 2


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
                outcome_of(loop.add_reader, file, print)[0],
                outcome_of(loop.add_writer, null.fileno(), print)[0],
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
        one, _other = make_pair()
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
