"""goloop.timeout() around what the patched standard library parks for."""

import os
import queue
import select
import socket
import subprocess
import threading
import time
import urllib.request

import pytest

import goloop
from goloop import go

SOON = 0.02


def _locked():
    lock = threading.Lock()
    lock.acquire()
    lock.acquire()


def _condition():
    condition = threading.Condition()
    with condition:
        condition.wait()


def _accept():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.accept()


def _socketpair(wait):
    one, other = socket.socketpair()
    with one, other:
        wait(one)


def _fill(sock):
    while True:
        sock.sendall(bytes(1_000_000))


def _http():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        urllib.request.urlopen(f"http://127.0.0.1:{listener.getsockname()[1]}/")


def _join():
    end = threading.Event()
    thread = threading.Thread(target=end.wait)
    thread.start()
    try:
        thread.join()
    finally:
        end.set()
        thread.join()


PARKS = {
    "sleep": lambda: time.sleep(1000),
    "lock": _locked,
    "condition": _condition,
    "event": lambda: threading.Event().wait(),
    "queue": lambda: queue.Queue().get(),
    "simple queue": lambda: queue.SimpleQueue().get(),
    "recv": lambda: _socketpair(lambda sock: sock.recv(1)),
    "sendall": lambda: _socketpair(_fill),
    "select": lambda: _socketpair(lambda sock: select.select([sock], [], [])),
    "accept": _accept,
    "http": _http,
    "subprocess": lambda: subprocess.run(["sleep", "1000"]),
    "join": _join,
}


@pytest.mark.parametrize("park", PARKS.values(), ids=PARKS)
def test_it_ends_whatever_parks(park):
    def body():
        with pytest.raises(TimeoutError), goloop.timeout(SOON) as limit:
            park()
        assert limit.expired()
        time.sleep(0.001)  # nothing is left of the cancellation
        return True

    assert go(body).result(60)


def test_a_child_process_does_not_outlive_it():
    def body():
        with pytest.raises(TimeoutError), goloop.timeout(SOON):
            subprocess.run(["sleep", "1000"])

    go(body).result(60)
    done = subprocess.run(["pgrep", "-P", str(os.getpid()), "sleep"], capture_output=True, text=True)
    assert done.stdout == ""
