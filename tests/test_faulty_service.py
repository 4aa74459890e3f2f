# ruff: noqa: RUF001 - dumps have that sign
"""The example service with four faults: each is found with one command."""

import http.client
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.debug.programs import goloop
from tests.helpers.scripts import PATH
from tests.helpers.waiting import SECONDS, until

EXAMPLE = Path(__file__).parent.parent / "examples" / "faulty_service.py"


@pytest.fixture
def service(tmp_path, monkeypatch):
    monkeypatch.setenv("GOLOOP_DEBUG_DIR", str(tmp_path / "doors"))
    monkeypatch.setenv("GOLOOP_DEBUG", "1")
    monkeypatch.setenv("PYTHONPATH", PATH)
    with subprocess.Popen(
        [sys.executable, "-W", "error", EXAMPLE, "127.0.0.1:0"], stdout=subprocess.PIPE, text=True
    ) as program:
        program.port = int(re.search(r":(\d+)/", program.stdout.readline())[1])
        yield program
        program.kill()


def ask(service, path):
    connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=SECONDS)
    connection.request("GET", path)
    answer = connection.getresponse().read().decode()
    connection.close()
    return answer


def dump(service):
    shown = goloop("dump", service.pid)
    assert shown.returncode == 0, shown.stderr
    return shown.stdout


def line_of(text):
    """The number of the line of the example that has this text."""
    return next(n for n, line in enumerate(EXAMPLE.read_text().splitlines(), 1) if text in line)


def test_the_circle_of_locks_is_named_with_the_lines_that_take_them(service):
    assert ask(service, "/") == "ok"
    assert ask(service, "/deadlock") == "two transfers have begun"
    until(lambda: "deadlock" in goloop("ps").stdout)
    shown = dump(service)
    assert re.search(r"deadlock: task (pay_\w+) → lock [AB] → task pay_\w+ → lock [AB] → task \1\n", shown)
    assert f"faulty_service.py:{line_of('        async with ledger')} in pay_in" in shown
    assert f"faulty_service.py:{line_of('        async with accounts')} in pay_out" in shown


def test_goroutines_that_leak_are_counted_with_the_line_that_starts_them(service):
    for _ in range(20):
        assert ask(service, "/leak") == "looked up"
    until(lambda: "20 × goroutine" in dump(service))
    shown = dump(service)
    assert re.search(r"20 × goroutine 1, 2, 3 … look_up \[chan receive", shown)
    assert f"faulty_service.py:{line_of('answers.recv()')} in look_up" in shown
    assert f"faulty_service.py:{line_of('goloop.go(look_up')} in leak" in shown


def test_the_handler_that_computes_is_met_at_its_line(service):
    stop = threading.Event()

    def keep_asking():
        while not stop.is_set():
            ask(service, "/compute")

    asker = threading.Thread(target=keep_asking)
    asker.start()
    try:
        until(
            lambda: re.search(
                r"MainThread running for .*\n.*in checksum\n.*in compute\n.*in serve_client", dump(service)
            )
        )
        trace = goloop("trace", service.pid, "-s", "1", "-o", "-")
        assert trace.returncode == 0, trace.stderr
        assert re.search(r"\n\d+ % .* coroutine +serve_client ", goloop("stats", service.pid).stdout)
    finally:
        stop.set()
        asker.join()


def test_connections_that_leak_are_counted(service):
    for n in range(1, 8):
        assert ask(service, "/keep") == f"{n} connections"
    until(lambda: "7 connections\n" in dump(service))
    shown = dump(service)
    assert len(re.findall(rf"\n  7 tcp connections to 127\.0\.0\.1:{service.port} ", shown)) == 2
    assert "7 × task" in shown and "serve_client [IO read" in shown
