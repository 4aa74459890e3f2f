"""The examples, each run as a program, do what they say."""

import contextlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"


def run(name, *args):
    done = subprocess.run(
        [sys.executable, "-W", "error", EXAMPLES / name, *args],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0 and not done.stderr, done.stderr
    return done.stdout.splitlines()


def test_pipeline():
    assert run("pipeline.py", "2000") == ["303 primes below 2000, the last one is 1999"]


def test_virtual_time():
    assert run("virtual_time.py") == [
        "15 calls in 3600 s, the last ones at 2823 and 3423 s",
        "50 of 100 are there",
        'goloop.testing: fails with seed 11; replay: goloop.testing.run(test_deposits, seed="4:1,6:1,8:1")',
        "all in the bubble wait for ever, at 1 s of its time, and no timer is left",
    ]


def test_shared_channel():
    *readings, last = run("shared_channel.py")
    expected = [f"{sensor}: {value}" for sensor in ("indoors", "outdoors", "cellar") for value in range(3)]
    assert sorted(readings) == sorted(expected)
    for sensor in ("indoors", "outdoors", "cellar"):
        assert [r for r in readings if r.startswith(sensor)] == [f"{sensor}: {value}" for value in range(3)]
    assert last == "the loop kept ticking"


def test_crawler():
    pages, times = run("crawler.py", "60")
    assert pages == "60 pages, from 'Page 0' to 'Page 59'"
    assert re.fullmatch(r"\d+\.\d s; one after the other they take at least 1\.2 s", times)


class Client:
    def __init__(self, address, name):
        host, port = address.rsplit(":", 1)
        with socket.create_connection((host, int(port)), timeout=20) as sock:
            self.file = sock.makefile("rw")  # which keeps it open
        assert self.hears() == "your name?"
        self.says(name)

    def says(self, text):
        self.file.write(text + "\n")
        self.file.flush()

    def hears(self):
        return re.sub(r" \(127\.0\.0\.1:\d+\)", "", self.file.readline().rstrip("\n"))


def test_chat():
    server = subprocess.Popen(
        [sys.executable, "-W", "error", EXAMPLES / "chat.py", "127.0.0.1:0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        address = server.stdout.readline().split()[-1]
        ada = Client(address, "Ada")
        assert ada.hears() == "* 1 in the room"
        bob = Client(address, "Bob")
        assert bob.hears() == "* 2 in the room" and ada.hears() == "* Bob is here"
        cleo = Client(address, "Cleo")
        assert cleo.hears() == "* 3 in the room" and ada.hears() == bob.hears() == "* Cleo is here"
        ada.says("hello, all")
        assert bob.hears() == cleo.hears() == "Ada: hello, all"
        bob.file.close()
        assert ada.hears() == cleo.hears() == "* Bob has left"
        cleo.says("just us")
        assert ada.hears() == "Cleo: just us"
        server.send_signal(signal.SIGINT)
        out, err = server.communicate(timeout=20)
        assert (server.returncode, out, err) == (0, "bye\n", "")
        ada.file.close()
        cleo.file.close()
    finally:
        server.kill()
        server.communicate()


# ------------------------------------------------------------------- coming from
COMING = EXAMPLES / "coming_from"


class Site(BaseHTTPRequestHandler):
    """Numbered pages: page n links to 2n+1 and 2n+2."""

    def do_GET(self):
        n = int(self.path.strip("/") or 0)
        links = "".join(f'<a href="/{m}">' for m in (2 * n + 1, 2 * n + 2) if m < 60)
        body = f"<title>page {n:02}</title>{links}".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


@pytest.mark.parametrize("name", ["gevent_before.py", "gevent_after.py"])
def test_the_crawler_before_and_after(name):
    if "before" in name:
        pytest.importorskip("gevent")
    with ThreadingHTTPServer(("127.0.0.1", 0), Site) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        done = subprocess.run(
            [sys.executable, COMING / name, f"http://127.0.0.1:{server.server_port}/"],
            capture_output=True,
            text=True,
            timeout=60,
        )
        server.shutdown()
        thread.join()
    assert (done.stdout, done.stderr) == ("60 pages, from 'page 00' to 'page 59'\n", "")


@contextlib.contextmanager
def listening(*args, signum):
    """A program that says where it listens; it ends with the signal, and says bye."""
    program = subprocess.Popen(args, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        host, port = program.stdout.readline().split()[-1].rsplit(":", 1)
        yield lambda: socket.create_connection((host, int(port)), 20)
        program.send_signal(signum)
        out, err = program.communicate(timeout=20)
        assert (program.returncode, out, err) == (0, "bye\n", "")
    finally:
        program.kill()
        program.communicate()


def ask(connect, *questions):
    with connect() as sock, sock.makefile("rw") as file:
        answers = []
        for question in questions:
            file.write(question + "\n")
            file.flush()
            answers.append(file.readline().rstrip("\n"))
        return answers


@pytest.fixture(params=["go_before.go", "go_after.py"])
def worker_pool(request, tmp_path):
    if request.param.endswith(".py"):
        return [sys.executable, "-W", "error", COMING / request.param]
    if shutil.which("go") is None:
        pytest.skip("Go is not installed")
    program = tmp_path / "program"
    subprocess.run(["go", "build", "-o", program, COMING / request.param], check=True, timeout=110)
    return [program]


def test_the_worker_pool_before_and_after(worker_pool):
    with listening(*worker_pool, "127.0.0.1:0", signum=signal.SIGTERM) as connect:
        answers = ask(connect, "360", "97", "many", "1000003")
        assert answers == ["360 = 2 2 2 3 3 5", "97 = 97", "a number, please", "1000003 = 1000003"]
        with ThreadPoolExecutor(20) as pool:
            results = list(pool.map(lambda n: ask(connect, str(n)), range(2, 60)))
        assert all(result[0].startswith(f"{n} = ") for n, result in enumerate(results, 2))
        idle = connect()
        idle.sendall(b"6\n")
        assert idle.makefile().readline() == "6 = 2 3\n"  # it was accepted: a connection in the backlog is reset
    with idle:
        assert idle.recv(1) == b""  # it did not hold up the end


@pytest.mark.parametrize("name", ["threads_before.py", "threads_after.py"])
def test_the_threaded_server_before_and_after(name):
    args = [sys.executable, "-W", "error", COMING / name, "127.0.0.1", "0"]
    with listening(*args, signum=signal.SIGINT) as connect:
        assert ask(connect, "get a", "set a 1", "set a 2", "get a", "what") == [
            *("-", "-", "1", "2"),
            "set KEY VALUE, or get KEY",
        ]
        with ThreadPoolExecutor(20) as pool:
            results = list(pool.map(lambda n: ask(connect, f"set k{n} v{n}", f"get k{n}"), range(50)))
        assert results == [["-", f"v{n}"] for n in range(50)]


# ------------------------------------------------------------------ all of them
NEEDS = {"gevent_before.py": ["gevent"], "cluster.py": ["distributed"]}
PROGRAMS = [*sorted(EXAMPLES.glob("*.py")), *sorted(COMING.glob("*.py"))]


def start(program, *args):
    for needed in NEEDS.get(program.name, ()):
        pytest.importorskip(needed)
    return subprocess.run([sys.executable, program, *args], capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.name)
def test_an_example_says_what_it_does(program):
    done = start(program, "-h")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"usage: {program.name}") and len(done.stdout.splitlines()) > 4


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.name)
def test_an_example_takes_wrong_arguments_without_a_traceback(program):
    done = start(program, "--coffee")
    assert done.returncode == 2 and f"{program.name}: error: " in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("chat.py", ["nowhere"]),
        ("chat.py", ["192.0.2.1:80"]),
        ("crawler.py", ["0"]),
        ("pipeline.py", ["2"]),
        ("coming_from/gevent_after.py", ["http://127.0.0.1:9/"]),
        ("coming_from/gevent_before.py", ["http://127.0.0.1:9/"]),
        ("coming_from/go_after.py", ["nowhere"]),
        ("coming_from/threads_after.py", ["127.0.0.1", "99999"]),
        ("coming_from/threads_before.py", ["127.0.0.1", "99999"]),
    ],
)
def test_what_an_example_cannot_do_is_an_error_and_no_traceback(name, args):
    done = start(EXAMPLES / name, *args)
    assert done.returncode in (1, 2) and done.stderr.strip() and not done.stdout
    if "before" not in name:  # gevent prints what its greenlets raise
        assert "Traceback" not in done.stderr


def test_the_index_has_every_example():
    index = (EXAMPLES.parent / "docs" / "start" / "examples.md").read_text()
    shown = [f"[`{each.name}`]" for each in EXAMPLES.glob("*.py")] + ["[`coming_from/`]"]
    assert [each for each in shown if each not in index] == []
