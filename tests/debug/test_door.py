"""The door answers whoever may ask, one line for one line, and nobody can hold it up."""

import json
import os
import resource
import socket
import stat
import threading
import time

import pytest

from goloop.debug._door import server, wire
from goloop.debug._door.server import Refused, Server
from tests.helpers.waiting import SECONDS, until


def echo(request, client):
    """What the doors of these tests answer."""
    match request.get("do"):
        case "fail":
            return b"" + None
        case "refuse":
            raise Refused("not today")
        case "big":
            return bytes(request["size"])
        case "wait":
            return b"left" if client.left_within(request["seconds"]) else b"stayed"
    return json.dumps(request["say"]).encode()


@pytest.fixture
def door(door_folder):
    opened = Server(echo)
    yield opened
    opened.close()


class Caller:
    """A client of the door, without goloop's own code for it."""

    def __init__(self, door):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(SECONDS)
        self.sock.connect(door.path)
        self.file = self.sock.makefile("rb")

    def sends(self, data):
        self.sock.sendall(data)

    def asks(self, **request):
        self.sends(json.dumps({"goloop": 1, **request}).encode() + b"\n")
        return self.hears()

    def hears(self):
        head = json.loads(self.file.readline())
        assert head["goloop"] == 1
        return self.file.read(head["length"]) if head["ok"] else head["error"]

    def is_cut_off(self):
        try:
            return self.file.read() == b""
        except ConnectionResetError:
            return True

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.file.close()
        self.sock.close()


def test_a_client_asks_as_often_as_it_likes(door):
    with Caller(door) as caller:
        assert [caller.asks(do="echo", say=n) for n in range(5)] == [b"0", b"1", b"2", b"3", b"4"]


def test_requests_may_come_together_and_in_pieces(door):
    with Caller(door) as caller:
        line = b'{"goloop": 1, "do": "echo", "say": 1}\n'
        caller.sends(line + line + line[:10])
        assert [caller.hears(), caller.hears()] == [b"1", b"1"]
        caller.sends(line[10:])
        assert caller.hears() == b"1"


def test_a_refusal_and_a_failure_are_told_and_the_next_request_is_answered(door):
    with Caller(door) as caller:
        assert caller.asks(do="refuse") == "not today"
        failure = caller.asks(do="fail")
        assert "test_door.py" in failure and "TypeError" in failure
        assert caller.asks(do="echo", say="still here") == b'"still here"'


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b"GET / HTTP/1.1\n", "a line is an object in JSON"),
        (b"[1]\n", "a line is an object in JSON"),
        (b"[" * 4000 + b"\n", "a line is an object in JSON"),
        (b"\xff\n", "a line is an object in JSON"),
        (b"{}\n", "goloop speaks version 1 of its protocol, not None"),
        (b'{"goloop": 2}\n', "goloop speaks version 1 of its protocol, not 2"),
        (b"x" * 5000, "a line has at most 4096 bytes"),
        (b"x" * 5000 + b"\n", "a line has at most 4096 bytes"),
    ],
)
def test_what_is_no_request_is_told_and_ends_the_connection(door, line, said):
    with Caller(door) as caller:
        caller.sends(line)
        assert caller.hears() == said
        assert caller.is_cut_off()
    with Caller(door) as caller:
        assert caller.asks(do="echo", say=1) == b"1"


def test_a_line_without_an_end_is_none(door):
    with Caller(door) as caller:
        caller.sends(b'{"goloop": 1')
        caller.sock.shutdown(socket.SHUT_WR)
        assert caller.hears() == "the line has no end"


def test_a_client_that_sends_its_line_too_slowly_is_cut_off(door, monkeypatch):
    monkeypatch.setattr(wire, "PATIENCE", 0.05)
    with Caller(door) as caller:
        caller.sends(b"{")
        assert caller.is_cut_off()


def test_a_client_that_asks_nothing_is_cut_off_in_the_end(door, monkeypatch):
    monkeypatch.setattr(server, "IDLE", 0.05)
    with Caller(door) as caller:
        assert caller.is_cut_off()


def test_a_client_that_does_not_read_is_cut_off_and_holds_up_nobody(door, monkeypatch):
    monkeypatch.setattr(wire, "PATIENCE", 0.2)
    with Caller(door) as slow, Caller(door) as other:
        slow.sends(b'{"goloop": 1, "do": "big", "size": 50000000}\n')
        assert other.asks(do="echo", say=1) == b"1"
        until(lambda: len(door._clients) == 1)
        slow.file.readline()
        assert len(slow.file.read(50_000_000)) < 50_000_000


def test_a_client_that_reads_slowly_but_reads_gets_it_all(door, monkeypatch):
    monkeypatch.setattr(wire, "PATIENCE", 1.0)
    size = 3_000_000
    with Caller(door) as caller:
        caller.sends(b'{"goloop": 1, "do": "big", "size": %d}\n' % size)
        assert json.loads(caller.file.readline())["length"] == size
        got, begun = 0, time.monotonic()
        while got < size:
            got += len(caller.file.read(min(wire.CHUNK, size - got)))
            if got < size / 2:
                time.sleep(0.06)
        assert time.monotonic() - begun > wire.PATIENCE  # in all it took longer than one piece may


def test_a_client_may_leave_in_the_middle(door):
    for _ in range(20):
        with Caller(door) as caller:
            caller.sends(b'{"goloop": 1, "do": "big", "size": 3000000}\n')
            caller.file.read(10)
    until(lambda: not door._clients)
    with Caller(door) as caller:
        assert caller.asks(do="echo", say=1) == b"1"


def test_an_answer_that_takes_time_knows_when_its_client_leaves(door):
    with Caller(door) as caller:
        assert caller.asks(do="wait", seconds=0.01) == b"stayed"
        caller.sends(b'{"goloop": 1, "do": "wait", "seconds": 1000}\n')
    until(lambda: not door._clients)


def test_a_request_that_comes_too_early_waits_for_the_answer_before(door):
    with Caller(door) as caller:
        caller.sends(b'{"goloop": 1, "do": "wait", "seconds": 0.05}\n{"goloop": 1, "do": "echo", "say": 1}\n')
        assert [caller.hears(), caller.hears()] == [b"stayed", b"1"]


def test_clients_do_not_wait_for_one_another_and_are_not_too_many(door):
    callers = [Caller(door) for _ in range(server.MAX_CLIENTS)]
    try:
        callers[0].sends(b'{"goloop": 1, "do": "wait", "seconds": 1000}\n')
        assert [caller.asks(do="echo", say=1) for caller in callers[1:]] == [b"1"] * 7
        with Caller(door) as one_more:
            assert one_more.hears() == "8 others look into this process already"
            assert one_more.is_cut_off()
        with callers.pop():
            pass
        until(lambda: len(door._clients) == server.MAX_CLIENTS - 1)
        with Caller(door) as again:
            assert again.asks(do="echo", say=1) == b"1"
    finally:
        for caller in callers:
            with caller:
                pass


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_another_user_is_refused(door, door_folder):
    """Also where the folder lets it in."""
    everyone = stat.S_IXGRP | stat.S_IXOTH
    above = [path for path in door_folder.parents if path.stat().st_mode & everyone != everyone]
    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in (door_folder, *above)}
    for path, mode in modes.items():
        path.chmod(mode | everyone)
    os.chmod(door.path, 0o777)
    ours, theirs = socket.socketpair()
    try:
        pid = os.fork()
        if pid == 0:
            try:
                os.setresuid(65534, 65534, 65534)
                with Caller(door) as caller:
                    theirs.sendall(caller.hears().encode())
            finally:
                os._exit(0)
        os.waitpid(pid, 0)
    finally:
        for path, mode in modes.items():
            path.chmod(mode)
    theirs.close()
    with ours:
        assert ours.recv(1000) == b"only user 0 may look into this process"


def test_root_may_look_into_a_process_of_another_user(door):
    door._owner = 4711
    with Caller(door) as caller:
        expected = b"1" if os.geteuid() == 0 else "only user 4711 may look into this process"
        assert (caller.asks(do="echo", say=1) if os.geteuid() == 0 else caller.hears()) == expected


def test_a_door_that_closes_ends_its_threads_and_removes_its_socket(door_folder):
    before = threading.active_count()
    door = Server(echo)
    with Caller(door) as idle, Caller(door) as waiting:
        idle.asks(do="echo", say=1)
        waiting.sends(b'{"goloop": 1, "do": "wait", "seconds": 1000}\n')
        until(lambda: len(door._clients) == 2)
        door.close()
        assert idle.is_cut_off()
    assert threading.active_count() == before
    assert os.listdir(door_folder) == []


def test_an_answer_that_is_on_its_way_when_the_door_closes_arrives(door_folder):
    door = Server(echo)
    size = 5_000_000
    with Caller(door) as caller:
        caller.sends(b'{"goloop": 1, "do": "big", "size": %d}\n' % size)
        assert json.loads(caller.file.readline())["length"] == size
        closing = threading.Thread(target=door.close)
        closing.start()
        assert len(caller.file.read(size)) == size
        closing.join()


def test_without_threads_there_is_no_door_and_no_socket(door_folder, monkeypatch):
    def start(self):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    with pytest.raises(RuntimeError, match="can't start new thread"):
        Server(echo)
    assert os.listdir(door_folder) == []


def test_a_client_for_which_there_is_no_thread_hears_so(door, monkeypatch):
    def start(self):
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", start)
        with Caller(door) as caller:
            assert caller.hears() == "can't start new thread"
    with Caller(door) as caller:
        assert caller.asks(do="echo", say=1) == b"1"


def test_a_door_without_a_free_descriptor_answers_when_there_is_one(door):
    """accept() fails meanwhile, of two clients for one at least: the kernel may have reserved one descriptor. They wait
    in the backlog."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken = []
    with socket.socket(socket.AF_UNIX) as one, socket.socket(socket.AF_UNIX) as other:
        resource.setrlimit(resource.RLIMIT_NOFILE, (128, hard))
        try:
            while True:
                try:
                    taken.append(os.dup(one.fileno()))
                except OSError:
                    break
            for sock in (one, other):
                sock.connect(door.path)
                sock.sendall(b'{"goloop": 1, "do": "echo", "say": 1}\n')
            assert len(door._clients) < 2
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            for fd in taken:
                os.close(fd)
        for sock in (one, other):
            sock.settimeout(SECONDS)
            assert b'"ok": true' in sock.recv(100)
