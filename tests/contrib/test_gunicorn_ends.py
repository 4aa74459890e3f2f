"""GoroutineWorker: stop and reload lose no request, and what cannot end is ended."""

import contextlib
import os
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path

import pytest

import goloop
from goloop import go, net
from tests.contrib.conftest import SECONDS
from tests.helpers.waiting import until


class Load:
    """Clients that send requests all the time, and count what becomes of them."""

    def __init__(self, address, clients=12):
        self.address = "{}:{}".format(*address)
        self.over = threading.Event()
        self.pids = set()
        self.answered = 0
        self.refused = threading.Event()
        self.lost = []
        self.clients = [go(self.fresh if n % 2 else self.kept, n) for n in range(clients)]

    def connect(self):
        """A connection; None when the server does not listen any more."""
        try:
            return net.dial("tcp", self.address, timeout=0.5)
        except OSError:
            self.refused.set()
            return None

    def ask(self, conn, n):
        """Whether the connection stays open behind the answer."""
        try:
            conn.write(b"GET /sleep/%d HTTP/1.1\r\nHost: x\r\n\r\n" % (n % 5))
            head = b"".join(iter(conn.readline, b"\r\n"))
            assert head.startswith(b"HTTP/1.1 200 OK\r\n"), head
            assert conn.read_exactly(5) == b"slept"
        except (OSError, EOFError, AssertionError) as exc:
            self.lost.append(repr(exc))
            return False
        self.answered += 1
        self.pids.add(head.partition(b"X-Pid: ")[2].split(b"\r\n")[0].decode())
        return b"Connection: keep-alive" in head

    def fresh(self, n):
        while not self.over.is_set() and not self.refused.is_set():
            if (conn := self.connect()) is not None:
                with conn:
                    self.ask(conn, n)

    def kept(self, n):
        while not self.over.is_set() and not self.refused.is_set():
            if (conn := self.connect()) is not None:
                with conn:
                    while self.ask(conn, n) and not self.over.is_set():
                        pass

    def end(self):
        self.over.set()
        for client in self.clients:
            client.result(SECONDS)


def test_a_reload_under_load_loses_no_request(gunicorn):
    running = gunicorn(workers=2)
    load = Load(running.address)
    for generation in range(1, 4):
        until(lambda generation=generation: load.answered > generation * 100)
        running.signal(signal.SIGHUP)
        running.wait_for("Worker exiting", times=2 * generation)
        young = set(running.wait_for(r"Booting worker with pid: (\d+)", times=2 + 2 * generation)[2 * generation :])
        until(lambda young=young: young <= load.pids)
    load.end()
    assert load.lost == [] and not load.refused.is_set()
    running.stop()


@pytest.mark.parametrize("workers", [1, 2])
def test_a_graceful_stop_under_load_loses_no_request(gunicorn, workers):
    running = gunicorn(workers=workers)
    running.wait_for("app: loaded", times=workers)  # a signal before that is lost on gunicorn
    load = Load(running.address, clients=30)
    until(lambda: load.answered > 300)
    running.stop()
    load.end()
    assert load.refused.is_set()
    assert load.lost == []


def test_what_waits_in_the_listen_queue_at_a_stop_is_served(gunicorn, tmp_path):
    running = gunicorn("plain_app:app", "--worker-connections", "1")
    held = go(running.get, "/hold")
    until((tmp_path / "held").exists)
    waiting = [go(running.get, "/") for _ in range(5)]
    until(lambda: _queued(running.address) == 5)
    running.signal(signal.SIGTERM)
    for g in waiting:
        assert g.result(SECONDS).startswith(b"pid")
    assert not held.done()
    (tmp_path / "release").touch()
    assert held.result(SECONDS) == b"released"
    assert running.command.end() == 0
    running.quiet()


def _queued(address):
    """How many connections no one has accepted: the receive queue of the listener. -1: there is none."""
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, local, _, state, queues, *_ = line.split()
        if state == "0A" and int(local.split(":")[1], 16) == address[1]:
            return int(queues.split(":")[1], 16)
    return -1


def test_a_connection_without_a_request_does_not_hold_up_a_stop(gunicorn):
    running = gunicorn("plain_app:app", "--keep-alive", "60", "--graceful-timeout", "60")
    with running.http() as connection, running.connect() as silent:
        connection.request("GET", "/")
        connection.getresponse().read()
        start = time.monotonic()
        running.signal(signal.SIGTERM)
        assert silent.recv(1) == b"" and connection.sock.recv(1) == b""
        assert time.monotonic() - start < 30
    assert running.command.end() == 0
    running.quiet()


def test_a_request_that_comes_on_an_open_connection_during_a_stop_is_answered(gunicorn):
    running = gunicorn("plain_app:app", "--keep-alive", "60")
    with running.http() as connection:
        connection.request("GET", "/")
        connection.getresponse().read()
        running.signal(signal.SIGTERM)
        until(lambda: _queued(running.address) == -1)
        connection.request("GET", "/stream/100")
        answer = connection.getresponse()
        assert answer.headers["Connection"] == "close" and len(answer.read()) == 700
    assert running.command.end() == 0
    running.quiet()


def test_a_request_longer_than_the_graceful_timeout_is_cut_off(gunicorn, tmp_path):
    running = gunicorn("plain_app:app", "--graceful-timeout", "1")
    held = go(running.raw, b"GET /hold HTTP/1.1\r\nHost: x\r\n\r\n")
    until((tmp_path / "held").exists)
    worker = int(running.wait_for(r"Booting worker with pid: (\d+)")[0])
    os.kill(worker, signal.SIGTERM)  # the master would kill it at the same moment
    assert held.result(SECONDS) == b""  # no half an answer
    running.wait_for("Worker graceful timeout")
    running.wait_for("Booting worker with pid", times=2)
    assert "Traceback" not in running.command.output()
    assert running.command.end(signal.SIGTERM) == 0


def test_a_quick_stop_does_not_wait(gunicorn, tmp_path):
    running = gunicorn("plain_app:app", "--graceful-timeout", "60")
    held = go(running.raw, b"GET /hold HTTP/1.1\r\nHost: x\r\n\r\n")
    until((tmp_path / "held").exists)
    start = time.monotonic()
    assert running.command.end(signal.SIGQUIT) == 0
    assert time.monotonic() - start < 30
    held.join(SECONDS)


def test_a_worker_in_which_no_goroutine_gets_to_run_for_longer_than_the_timeout_is_replaced(gunicorn, tmp_path):
    running = gunicorn("plain_app:app", "--timeout", "2", env={"GOLOOP_SHUTDOWN_TIMEOUT": "0"})
    first = running.get("/")
    spinning = []
    for n in range(goloop.gomaxprocs()):
        spinning.append(go(running.raw, b"GET /spin/%d HTTP/1.1\r\nHost: x\r\n\r\n" % n))
        until((tmp_path / f"spinning{n}").exists)  # one more thread is taken
    running.wait_for("WORKER TIMEOUT")
    running.wait_for("Booting worker with pid", times=2)
    for g in spinning:
        with contextlib.suppress(ConnectionResetError):
            assert g.result(SECONDS) == b""
    assert running.get("/") != first
    assert running.command.end(signal.SIGTERM) == 0


def test_a_request_that_computes_keeps_no_new_connection_waiting(gunicorn, tmp_path):
    running = gunicorn()
    spinning = go(running.raw, b"GET /spin HTTP/1.1\r\nHost: x\r\n\r\n")
    until((tmp_path / "spinning0").exists)
    for _ in range(5):
        assert running.get("/").startswith(b"pid")
    assert not spinning.done()
    os.killpg(running.command.process.pid, signal.SIGKILL)
    with contextlib.suppress(ConnectionResetError):
        spinning.result(SECONDS)


def test_requests_that_wait_for_longer_than_the_timeout_do_not_end_a_worker(gunicorn):
    running = gunicorn("plain_app:app", "--timeout", "1")
    assert running.get("/sleep/2500") == b"slept"
    running.stop()


def test_a_worker_is_replaced_after_max_requests(gunicorn):
    running = gunicorn("plain_app:app", "--max-requests", "10")
    pids = {running.get("/") for _ in range(10)}
    running.wait_for("Autorestarting worker")
    running.wait_for("Booting worker with pid", times=2)
    assert len(pids) == 1
    until(lambda: running.get("/") not in pids)
    running.stop()


def test_a_worker_whose_master_is_gone_ends(gunicorn):
    running = gunicorn()
    worker = int(running.get("/").split()[1])
    running.signal(signal.SIGKILL)
    running.command.process.wait()

    def gone():
        try:
            os.kill(worker, 0)
        except ProcessLookupError:
            return True
        return Path(f"/proc/{worker}/stat").read_text().rpartition(")")[2].split()[0] == "Z"

    until(gone)
    assert "Parent changed, shutting down" in running.command.output()


def test_preloaded_applications_are_patched_all_the_same(gunicorn):
    running = gunicorn("plain_app:app", "--preload")
    answers = [go(running.get, "/gate/50") for _ in range(50)]
    assert {g.result(SECONDS) for g in answers} == {b"through"}
    running.stop()


def test_handshakes_are_dropped_when_a_listener_closes_for_good():
    from goloop.contrib.gunicorn._sockets import refuse_handshakes

    with socket.create_server(("127.0.0.1", 0)) as listener:
        before = socket.create_connection(listener.getsockname())
        assert refuse_handshakes(listener)
        with pytest.raises(TimeoutError):
            socket.create_connection(listener.getsockname(), timeout=0.2)
        accepted = listener.accept()[0]
        with before, accepted:
            before.sendall(b"x")
            assert accepted.recv(1) == b"x"
    with socket.socket(socket.AF_UNIX) as other:
        assert not refuse_handshakes(other)


def test_a_listener_that_others_hold_is_left_alone():
    from goloop.contrib.gunicorn._sockets import held_by_workers_alone

    with socket.create_server(("127.0.0.1", 0)) as listener:
        fd = listener.fileno()
        assert held_by_workers_alone(fd, os.getpid())
        other = subprocess.Popen(["cat"], stdin=subprocess.PIPE, pass_fds=[fd], env={"GUNICORN_PID": "1"})
        with other:
            until(lambda: Path(f"/proc/{other.pid}/comm").read_text() == "cat\n")
            assert not held_by_workers_alone(fd, os.getpid())  # as a master that takes over
            other.stdin.close()
        pid = os.fork()
        if pid == 0:
            time.sleep(60)
            os._exit(0)
        try:
            assert held_by_workers_alone(fd, os.getpid())  # as another worker
            assert not held_by_workers_alone(fd, os.getppid())
        finally:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def test_a_master_that_takes_over_under_load_loses_no_request(gunicorn, tmp_path):
    """SIGUSR2 and then SIGTERM, as in a deployment: two masters have the same listener for a while."""
    running = gunicorn("plain_app:app", "--pid", str(tmp_path / "pid"))
    old = running.get("/")
    load = Load(running.address)
    until(lambda: load.answered > 100)
    running.signal(signal.SIGUSR2)
    running.wait_for("Booting worker with pid", times=2)
    running.wait_for("app: loaded", times=2)
    assert running.command.end(signal.SIGTERM) == 0
    before = load.answered
    until(lambda: load.answered > before + 100)
    assert running.get("/") != old
    load.end()
    assert load.lost == [] and not load.refused.is_set()
    until((tmp_path / "pid").exists)  # it is the master now
    os.kill(int((tmp_path / "pid").read_text()), signal.SIGTERM)
    until(lambda: _queued(running.address) == -1)
