"""select, poll, epoll and the selectors on top of them."""

import errno
import os
import select
import selectors
import socket
import time

import pytest

from goloop import go
from tests.helpers.waiting import until

LIMIT = 10  # seconds
SELECTORS = [selectors.SelectSelector, selectors.PollSelector, selectors.EpollSelector]


@pytest.mark.parametrize("kind", SELECTORS)
def test_a_selector_lets_others_run_while_it_waits(kind, overlap):
    def body(i):
        left, right = socket.socketpair()
        with left, right, kind() as selector:
            selector.register(left, selectors.EVENT_READ, i)
            selector.register(right, selectors.EVENT_READ)
            assert selector.select(0.01) == []
            go(lambda: (time.sleep(0.01), right.send(b"x")))
            ((key, events),) = selector.select()
            assert events == selectors.EVENT_READ
            selector.modify(left, selectors.EVENT_READ | selectors.EVENT_WRITE)
            assert selector.select(LIMIT)[0][1] == selectors.EVENT_READ | selectors.EVENT_WRITE
            return key.data

    assert overlap(body) == list(range(8))


def test_select_waits_for_one_of_several(pair):
    left, right = pair
    waiters = [
        go(select.select, [left, right], [], []),
        go(select.select, iter([right, left]), (), [right], LIMIT),
        go(select.select, [left.fileno()], [], []),
        go(select.select, [], [], [left], 0.02),
    ]
    until(lambda: [g.state for g in waiters[:3]] == ["IO wait"] * 3)
    assert waiters[3].result(LIMIT) == ([], [], [])
    right.send(b"x")
    assert [g.result(LIMIT)[0] for g in waiters[:3]] == [[left], [left], [left.fileno()]]
    assert go(select.select, [left], [left, right], []).result(LIMIT) == ([left], [left, right], [])


def test_exceptional_conditions_and_hangups():
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
        with server.accept()[0] as connection:
            g = go(select.select, [], [], [connection])
            client.send(b"!", socket.MSG_OOB)
            assert g.result(LIMIT) == ([], [], [connection])
            connection.recv(1, socket.MSG_OOB)
            client.close()
            # The hang-up is none of its business, and must not keep it busy.
            before = time.process_time()
            assert go(select.select, [], [], [connection], 0.3).result(LIMIT) == ([], [], [])
            assert time.process_time() - before < 0.2


def test_poll(pair):
    left, right = pair
    poll = select.poll()
    poll.register(left, select.POLLIN)
    assert go(poll.poll, 10).result(LIMIT) == []
    assert go(poll.poll, 0).result(LIMIT) == []
    g = go(poll.poll)
    until(lambda: g.state == "IO wait")
    right.send(b"x")
    assert g.result(LIMIT) == [(left.fileno(), select.POLLIN)]
    poll.register(right, select.POLLOUT)
    assert sorted(go(poll.poll, -1).result(LIMIT)) == sorted(
        [(left.fileno(), select.POLLIN), (right.fileno(), select.POLLOUT)]
    )
    poll.unregister(right)
    left.recv(1)
    g = go(poll.poll, LIMIT * 1000)
    until(lambda: g.state == "IO wait")
    right.close()
    assert g.result(LIMIT)[0][1] & select.POLLHUP


def test_epoll(pair):
    left, right = pair
    with select.epoll() as epoll:
        epoll.register(left, select.EPOLLIN)
        assert go(epoll.poll, 0.01).result(LIMIT) == []
        g = go(epoll.poll, timeout=-1, maxevents=3)
        until(lambda: g.state == "IO wait")
        right.send(b"x")
        assert g.result(LIMIT) == [(left.fileno(), select.EPOLLIN)]
    with pytest.raises(ValueError, match="closed epoll"):
        go(epoll.poll, 1).result(LIMIT)


def test_files_and_closed_descriptors(tmp_path):
    with (tmp_path / "file").open("w+b") as file:
        assert go(select.select, [file], [file], [], LIMIT).result(LIMIT) == ([file], [file], [])
        poll = select.poll()
        poll.register(file, select.POLLIN)
        assert go(poll.poll, 1000).result(LIMIT) == [(file.fileno(), select.POLLIN)]
    fd = os.dup(0)
    os.close(fd)
    with pytest.raises(OSError, match="Bad file") as caught:
        go(select.select, [fd], [], []).result(LIMIT)
    assert caught.value.errno == errno.EBADF
