"""Child processes and name resolution."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time

import pytest

from goloop import go
from tests.helpers.waiting import until

LIMIT = 20  # seconds
WAIT = "sleep 0.1; "


def test_run_lets_others_run_until_the_child_ends(overlap):
    def body(i):
        return subprocess.run(WAIT + f"cat; exit {i}", shell=True, input=b"x" * i, capture_output=True, check=False)

    done = overlap(body)
    assert [(each.returncode, each.stdout, each.stderr) for each in done] == [(i, b"x" * i, b"") for i in range(8)]


@pytest.mark.parametrize(
    ("options", "output"),
    [
        ({}, b"one\r\ntwo"),
        ({"text": True}, "one\ntwo"),
        ({"bufsize": 0}, b"one\r\ntwo"),
        ({"encoding": "ascii"}, "one\ntwo"),
    ],
)
@pytest.mark.parametrize("pipe", ["stdout", "stderr"])
def test_communicate_reads_a_single_pipe_to_its_end(overlap, options, output, pipe):
    def body(i):
        where = {"stdout": "", "stderr": ">&2"}[pipe]
        command = WAIT + f"printf 'one\\r\\n' {where}; sleep 0.01; printf two {where}"
        process = subprocess.Popen(command, shell=True, **{pipe: subprocess.PIPE}, **options)
        return process.communicate()

    assert overlap(body) == [(output, None) if pipe == "stdout" else (None, output)] * 8


@pytest.mark.parametrize("text", [False, True])
def test_communicate_returns_the_rest_of_a_pipe_that_was_read_before(overlap, text):
    def body(i):
        process = subprocess.Popen("echo a; echo b; " + WAIT + "echo c", shell=True, stdout=subprocess.PIPE, text=text)
        return process.stdout.readline(), process.communicate()[0]

    expected = ("a\n", "b\nc\n") if text else (b"a\n", b"b\nc\n")
    assert overlap(body) == [expected] * 8


def test_input_only(overlap):
    def body(i):
        process = subprocess.Popen(WAIT + "cat > /dev/null; exit 3", shell=True, stdin=subprocess.PIPE)
        return process.communicate(bytes(300_000)), process.returncode

    assert overlap(body) == [((None, None), 3)] * 8


def test_wait_with_a_timeout(overlap):
    def body(i):
        with subprocess.Popen(["sleep", "60"]) as process:
            with pytest.raises(subprocess.TimeoutExpired, match=r"timed out after 0\.05 seconds"):
                process.wait(0.05)
            with pytest.raises(subprocess.TimeoutExpired):
                process.communicate(timeout=0.01)
            process.terminate()
            return process.wait(LIMIT), process.wait()

    assert overlap(body) == [(-signal.SIGTERM, -signal.SIGTERM)] * 8


def test_waitpid(overlap):
    def body(i):
        pid = os.spawnlp(os.P_NOWAIT, "sh", "sh", "-c", WAIT + f"exit {i}")
        if i % 2:
            return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        assert os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT).si_status == i
        return os.waitid(os.P_PID, pid, os.WEXITED).si_status

    assert overlap(body) == list(range(8))


def test_waitpid_for_any_child():
    def body():
        with pytest.raises(ChildProcessError):
            os.waitpid(os.getpid(), 0)
        with pytest.raises(ChildProcessError):
            os.waitid(os.P_PID, os.getpid(), os.WEXITED)
        children = {os.spawnlp(os.P_NOWAIT, "sh", "sh", "-c", WAIT) for _ in range(3)}
        return children == {os.waitpid(-1, 0)[0], os.wait()[0], os.waitid(os.P_ALL, 0, os.WEXITED).si_pid}

    assert go(body).result(LIMIT)


def test_two_wait_for_one_child():
    process = subprocess.Popen(["sleep", "60"])
    waiters = [go(process.wait) for _ in range(3)]
    until(lambda: sorted(g.state for g in waiters) == ["IO wait", "lock", "lock"])
    process.kill()
    assert [g.result(LIMIT) for g in waiters] == [-signal.SIGKILL] * 3


def test_cancelling_run_kills_the_child():
    g = go(subprocess.run, ["sleep", "60"], stdout=subprocess.PIPE)
    until(lambda: g.state == "IO wait")
    g.cancel()
    with pytest.raises(asyncio.CancelledError):
        g.result(LIMIT)


def test_multiprocessing_and_fork(overlap):
    def body(i):
        pid = os.fork()
        if pid == 0:
            time.sleep(0.001)
            os._exit(i)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    assert overlap(body) == list(range(8))


def test_looking_up_a_name_lets_others_run(overlap, monkeypatch):
    def body(i):
        try:
            return (
                socket.getaddrinfo("localhost", 80, socket.AF_INET, socket.SOCK_STREAM)[0][4],
                socket.getaddrinfo(host="127.0.0.1", port=80)[0][4],
                socket.gethostbyname("localhost"),
                socket.gethostbyname_ex("localhost")[2],
                socket.gethostbyaddr("127.0.0.1")[2],
                socket.getnameinfo(("127.0.0.1", 80), socket.NI_NUMERICHOST)[0],
            )
        finally:
            time.sleep(0.01)

    address = ("127.0.0.1", 80)
    expected = (address, address, "127.0.0.1", ["127.0.0.1"], ["127.0.0.1"], "127.0.0.1")
    assert body(0)[:3] == expected[:3]
    assert [each[:3] for each in overlap(body)] == [expected[:3]] * 8


def test_names_that_do_not_exist():
    def body():
        with pytest.raises(socket.gaierror) as caught:
            socket.getaddrinfo("no.such.host.invalid", 80)
        with pytest.raises(socket.gaierror), socket.socket() as sock:
            sock.connect(("no.such.host.invalid", 80))
        with pytest.raises(TypeError):
            socket.getaddrinfo(1.5, 80)
        return caught.value.errno

    expected = body()
    assert go(body).result(LIMIT) == expected
    assert sys.is_finalizing() is False


def test_a_lookup_parks_in_a_thread_of_its_own(overlap):
    from goloop.monkey._threadpool import offload

    with pytest.raises(ZeroDivisionError):
        go(offload, lambda: 1 // 0).result(LIMIT)
    from tests.monkey import before  # the original: it blocks

    blocking = before.sleep
    assert overlap(lambda i: offload(blocking, 0.05), 80) == [None] * 80
