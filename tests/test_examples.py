"""The examples, each run as a program, do what they say."""

import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

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
