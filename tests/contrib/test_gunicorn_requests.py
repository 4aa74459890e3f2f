"""GoroutineWorker: what a request comes to, with gunicorn's own parser and settings."""

import email.utils
import hashlib
import os
import random
import re
import signal
import ssl
import threading
import time

import pytest
import trustme

import goloop
from goloop import go, net
from tests.contrib.conftest import SECONDS
from tests.helpers.waiting import until


@pytest.fixture
def server(gunicorn):
    running = gunicorn()
    yield running
    running.stop()


def head(answer):
    return answer.partition(b"\r\n\r\n")[0].decode().split("\r\n")


def test_a_request_runs_in_a_goroutine_with_the_library_patched_before_the_application_loads(server):
    assert server.get("/where") == b"True http True"
    assert server.wait_for(r"app: loaded by \d+, patched: (\S+)") == ["goloop.monkey._threading"]


def test_requests_that_wait_for_each_other_run_at_once(gunicorn):
    running = gunicorn("plain_app:app", env={"GOLOOP_MAXTHREADS": "4"})  # far fewer threads than requests
    answers = [go(_get, running.address, "/gate/200") for _ in range(200)]
    assert [g.result(SECONDS) for g in answers] == [b"through"] * 200
    running.stop()


def _get(address, path):
    with net.dial("tcp", "{}:{}".format(*address)) as conn:
        conn.write(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        answer = b""
        while data := conn.read():
            answer += data
    headers, _, body = answer.partition(b"\r\n\r\n")
    assert headers.startswith(b"HTTP/1.1 200 OK\r\n"), answer
    return body


def test_two_thousand_connections_at_a_time(gunicorn):
    running = gunicorn("plain_app:app", "--worker-connections", "2000", "--backlog", "2048")
    answers = [go(_get, running.address, "/gate/2000") for _ in range(2000)]
    assert {g.result(SECONDS) for g in answers} == {b"through"}
    running.stop()


def test_keep_alive_serves_one_request_after_the_other(server):
    with server.http() as connection:
        for n in range(20):
            connection.request("GET", "/peer", headers={"X-Test": str(n)})
            answer = connection.getresponse()
            assert answer.headers["Connection"] == "keep-alive"
            assert answer.read() == f"127.0.0.1 HTTP/1.1 {n}".encode()
        connection.request("GET", "/", headers={"Connection": "close"})
        answer = connection.getresponse()
        assert answer.headers["Connection"] == "close" and answer.read()
        assert connection.sock is None


def test_pipelined_requests_are_answered_in_order(server):
    request = b"GET /peer HTTP/1.1\r\nHost: x\r\nX-Test: %d\r\n\r\n"
    last = b"GET /peer HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    answer = server.raw(b"".join(request % n for n in range(10)) + last)
    assert answer.count(b"HTTP/1.1 200 OK") == 11
    assert re.findall(rb"127.0.0.1 HTTP/1.1 (\d)", answer) == [b"%d" % n for n in range(10)]


def test_a_connection_that_stays_silent_is_closed_after_keepalive_seconds(gunicorn):
    running = gunicorn("plain_app:app", "--keep-alive", "1")
    with running.http() as connection:
        connection.request("GET", "/")
        connection.getresponse().read()
        start = time.monotonic()
        assert connection.sock.recv(1) == b""
        assert 0.5 < time.monotonic() - start < SECONDS
    with running.connect() as silent:
        assert silent.recv(1) == b""
    running.stop()


def test_without_keepalive_each_answer_closes(gunicorn):
    running = gunicorn("plain_app:app", "--keep-alive", "0")
    with running.http() as connection:
        connection.request("GET", "/")
        answer = connection.getresponse()
        assert answer.headers["Connection"] == "close" and answer.read()
    running.stop()


# ------------------------------------------------------------------------ bodies
@pytest.mark.parametrize("size", [0, 1, 8192, 3_000_000])
def test_a_body_of_known_length_arrives_whole(server, size):
    body = random.Random(size).randbytes(size)
    answer = server.get("/echo", method="POST", body=body)
    assert answer == f"{hashlib.sha256(body).hexdigest()} {size}".encode()


def test_a_chunked_body_arrives_whole(server):
    pieces = [random.Random(n).randbytes(n * 997) for n in range(1, 60)]
    answer = server.get("/echo", method="POST", body=iter(pieces), encode_chunked=True)
    whole = b"".join(pieces)
    assert answer == f"{hashlib.sha256(whole).hexdigest()} {len(whole)}".encode()


def test_a_body_that_the_application_does_not_read_does_not_disturb_the_next_request(server):
    with server.http() as connection:
        for _ in range(3):
            connection.request("POST", "/", body=bytes(50_000))
            assert connection.getresponse().read().startswith(b"pid")


def test_an_answer_without_a_length_is_chunked(server):
    with server.http() as connection:
        for _ in range(2):
            connection.request("GET", "/stream/30")
            answer = connection.getresponse()
            assert answer.headers["Transfer-Encoding"] == "chunked"
            assert answer.read() == b"".join(b"%06d\n" % i for i in range(30))
    old = server.raw(b"GET /stream/3 HTTP/1.0\r\n\r\n")
    assert "Transfer-Encoding: chunked" not in head(old)
    assert old.endswith(b"\r\n\r\n000000\n000001\n000002\n")


@pytest.mark.parametrize("options", [(), ("--no-sendfile",)])
def test_a_file_is_sent_from_where_it_stands(gunicorn, options):
    running = gunicorn("plain_app:app", *options)
    assert running.get("/file/2560000") == bytes(range(256)) * 9999
    running.stop()


def test_head_has_no_body(server):
    with server.http() as connection:
        connection.request("HEAD", "/peer")
        answer = connection.getresponse()
        assert answer.status == 200 and answer.read() == b"" and int(answer.headers["Content-Length"]) > 10
        connection.request("GET", "/")
        assert connection.getresponse().read().startswith(b"pid")


def test_a_client_that_expects_100_continue_gets_it(server):
    with server.connect() as sock:
        sock.sendall(b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n")
        assert sock.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
        sock.sendall(b"body")
        assert sock.recv(1000).startswith(b"HTTP/1.1 200 OK")


def test_early_hints_are_sent_at_once(server):
    with server.connect() as sock:
        sock.sendall(b"GET /hints HTTP/1.1\r\nHost: x\r\n\r\n")
        assert sock.recv(1000) == b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>\r\n\r\n"
        sock.sendall(b"x")
        assert sock.recv(1000).startswith(b"HTTP/1.1 200 OK")


def test_an_application_that_takes_the_connection_is_not_held_up(server):
    with server.connect() as sock:
        sock.sendall(b"GET /hijack HTTP/1.1\r\nHost: x\r\n\r\n")
        assert sock.recv(1000).endswith(b"\r\n\r\nfirst")
        sock.sendall(b"second")
        assert sock.recv(1000) == b"got second"


# ------------------------------------------------------------------- slow clients
def test_slow_senders_and_slow_readers_keep_nobody_waiting(gunicorn):
    running = gunicorn("plain_app:app", "--keep-alive", "30")
    done = threading.Event()

    def slow_sender():
        with net.dial("tcp", "{}:{}".format(*running.address)) as conn:
            for byte in (
                b"POST /echo HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 30\r\n\r\n" + b"x" * 29
            ):
                conn.write(bytes([byte]))
                goloop.sleep(0.001)
            while not done.is_set():
                goloop.sleep(0.01)
            conn.write(b"x")
            return b"".join(iter(conn.read, b""))

    def slow_reader():
        with net.dial("tcp", "{}:{}".format(*running.address)) as conn:
            conn.write(b"GET /file/2560000 HTTP/1.0\r\n\r\n")
            while not done.is_set():
                goloop.sleep(0.01)
            return b"".join(iter(conn.read, b""))

    slow = [go(slow_sender if n % 2 else slow_reader) for n in range(100)]
    for _ in range(50):
        assert running.get("/").startswith(b"pid")
    assert not any(g.done() for g in slow)
    done.set()
    for n, g in enumerate(slow):
        answer = g.result(SECONDS)
        assert answer.endswith(b" 30" if n % 2 else bytes(range(256))), answer[:200]
        assert len(answer) > 100 if n % 2 else len(answer.partition(b"\r\n\r\n")[2]) == 2559744
    running.stop()


def test_clients_that_go_away_leave_nothing_behind(server):
    pid = int(server.get("/").split()[1])
    before = len(os.listdir(f"/proc/{pid}/fd"))
    for request in (
        b"",
        b"GET",
        b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nx",
        b"GET /file/2560000 HTTP/1.0\r\n\r\n",
    ):
        for _ in range(5):
            with server.connect() as sock:
                sock.sendall(request)
    until(lambda: len(os.listdir(f"/proc/{pid}/fd")) <= before)
    assert server.get("/").startswith(b"pid")


# ------------------------------------------------------------------- what is refused
@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\nno colon\r\n\r\n", 400),
        (b"GET /" + b"x" * 500 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 414),
        (b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 500 + b"\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 12 + b"\r\n", 431),
        (b"POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
    ],
)
def test_a_bad_request_is_answered_and_the_connection_closed(gunicorn, request_, status):
    limits = ["--limit-request-line", "300", "--limit-request-fields", "10", "--limit-request-field_size", "300"]
    running = gunicorn("plain_app:app", *limits)
    answer = running.raw(request_)
    assert answer.startswith(b"HTTP/1.1 %d " % status), answer
    assert "Connection: close" in head(answer)
    assert running.get("/").startswith(b"pid")
    assert running.command.end(15) == 0


def test_an_application_that_fails_is_answered_500_and_logged(gunicorn):
    running = gunicorn()
    for path, error in (("/crash", "ValueError: crashed on purpose"), ("/exit", "SystemExit: ended on purpose")):
        assert running.raw(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode()).startswith(b"HTTP/1.1 500 ")
        running.wait_for(error)
    broken = running.raw(b"GET /broken HTTP/1.1\r\nHost: x\r\n\r\n")
    assert broken.endswith(b"\r\n\r\n" + b"x" * 10)  # and no second answer behind it
    running.wait_for("ValueError: negative count")
    assert running.get("/").startswith(b"pid")
    assert running.command.end(15) == 0


def test_worker_connections_is_how_many_there_are_at_a_time(gunicorn, tmp_path):
    running = gunicorn("plain_app:app", "--worker-connections", "2", "--keep-alive", "0")
    held = [go(_get, running.address, "/hold") for _ in range(2)]
    until(lambda: (tmp_path / "held").exists() and (tmp_path / "held").read_text() == "xx")
    third = go(_get, running.address, "/")
    with pytest.raises(TimeoutError):
        third.join(timeout=0.3)
    (tmp_path / "release").touch()
    assert [g.result(SECONDS) for g in held] == [b"released"] * 2
    assert third.result(SECONDS).startswith(b"pid")
    running.stop()


# ------------------------------------------------------------------------------ rest
def test_the_access_log_has_each_request(gunicorn):
    running = gunicorn(
        "plain_app:app", "--access-logfile", "-", "--access-logformat", "access: %(m)s %(U)s %(s)s %(B)s"
    )
    running.get("/peer")
    running.get("/stream/3")
    assert running.wait_for(r"access: (.*)", times=2) == ["GET /peer 200 23", "GET /stream/3 200 21"]
    running.stop()


def test_what_the_application_says_goes_to_the_log(server):
    server.get("/complain/1")
    server.wait_for("complaint 1")
    server.signal(signal.SIGUSR1)  # open the logs anew
    server.wait_for("Handling signal: usr1")
    server.get("/complain/2")
    server.wait_for("complaint 2")


def test_environs_are_separate_and_have_the_log_that_is_open_now(monkeypatch):
    pytest.importorskip("gunicorn")
    from gunicorn import config, util
    from gunicorn.http import wsgi

    from goloop.contrib.gunicorn import _remembered

    monkeypatch.setattr(util, "http_date", util.http_date)
    monkeypatch.setattr(wsgi, "base_environ", wsgi.base_environ)
    cfg = config.Config()
    names = wsgi.base_environ(cfg).keys()
    _remembered.remember()
    one, other = wsgi.base_environ(cfg), wsgi.base_environ(cfg)
    assert one == other and one is not other and one.keys() == names
    _remembered.forget()
    assert wsgi.base_environ(cfg)["wsgi.errors"] is not one["wsgi.errors"]
    another = config.Config()
    another.set("workers", 2)
    assert wsgi.base_environ(another)["wsgi.multiprocess"] is True
    assert wsgi.base_environ(cfg)["wsgi.multiprocess"] is False
    assert util.http_date(0) == "Thu, 01 Jan 1970 00:00:00 GMT"


def test_each_answer_has_the_time(server):
    def date():
        with server.http() as connection:
            connection.request("GET", "/")
            answer = connection.getresponse()
            answer.read()
            return email.utils.parsedate_to_datetime(answer.headers["Date"]).timestamp()

    first = date()
    assert abs(first - time.time()) < SECONDS
    until(lambda: date() > first)


def test_a_unix_socket(gunicorn, tmp_path):
    path = tmp_path / "socket"
    running = gunicorn(bind=f"unix:{path}")
    assert running.get("/stream/2") == b"000000\n000001\n"
    running.stop()
    assert not path.exists()


@pytest.mark.parametrize("early", [(), ("--do-handshake-on-connect",)])
def test_tls(gunicorn, tmp_path, early):
    authority = trustme.CA()
    issued = authority.issue_cert("localhost")
    issued.private_key_pem.write_to_path(tmp_path / "key.pem")
    (tmp_path / "chain.pem").write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    options = ["--certfile", str(tmp_path / "chain.pem"), "--keyfile", str(tmp_path / "key.pem"), "--timeout", "2"]
    running = gunicorn("plain_app:app", *options, *early)
    context = ssl.create_default_context()
    authority.configure_trust(context)

    def get(n):
        with context.wrap_socket(running.connect(), server_hostname="localhost") as sock:
            body = random.Random(n).randbytes(n * 10_000)
            sock.sendall(
                b"POST /echo HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body)
            )
            sock.sendall(body)
            answer = b"".join(iter(lambda: sock.recv(65536), b""))
            assert answer.endswith(f"{hashlib.sha256(body).hexdigest()} {len(body)}".encode()), answer

    with running.connect() as silent, running.connect() as nonsense:
        nonsense.sendall(b"GET / HTTP/1.1\r\n\r\n")
        for thread in (threads := [threading.Thread(target=get, args=(n,)) for n in range(20)]):
            thread.start()
        for thread in threads:
            thread.join(SECONDS)
        get(1)
        assert silent.recv(1) == b""  # no handshake within the timeout
    with context.wrap_socket(running.connect(), server_hostname="localhost") as sock:
        sock.sendall(b"GET /where HTTP/1.0\r\n\r\n")
        assert b"".join(iter(lambda: sock.recv(65536), b"")).endswith(b"True https True")
    running.stop()


def test_the_package_has_both_workers_and_nothing_else():
    from goloop.contrib import gunicorn

    pytest.importorskip("gunicorn")
    assert gunicorn.GoroutineWorker.__name__ == "GoroutineWorker"
    with pytest.raises(AttributeError, match="has no attribute 'OtherWorker'"):
        _ = gunicorn.OtherWorker
