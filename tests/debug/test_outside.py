"""python -m goloop ps | dump | top | stats | trace: what they show of a program, and what they say when they cannot."""

import contextlib
import io
import json
import os
import signal
import socket
import stat
import sys
import threading

import pytest

from goloop.debug._door import folder, wire
from goloop.debug._outside import client, commands, processes, text
from tests.debug.programs import goloop, running
from tests.helpers.waiting import until

SERVICE = """
    import asyncio, goloop

    async def wait_for_work(queue):
        await queue.get()

    async def main():
        queue = asyncio.Queue()
        tasks = [asyncio.create_task(wait_for_work(queue)) for _ in range(30)]
        empty = goloop.Chan()
        goroutines = [goloop.go(empty.recv) for _ in range(7)]
        await asyncio.sleep(0)
        print("ready", flush=True)
        await asyncio.sleep(1000)

    goloop.run(main())
"""
# Its main thread is stuck until it gets a line; then it says so, and is stuck again.
STUCK = """
    import asyncio, goloop, sys

    async def handle():
        while True:
            print("stuck", flush=True)
            sys.stdin.readline()
            await asyncio.sleep(0)

    goloop.run(handle())
"""


@pytest.fixture
def service(door_folder):
    with running(SERVICE) as program:
        yield program


def test_ps_lists_the_programs_with_a_door(service):
    with running(SERVICE) as other:
        shown = goloop("ps")
        assert (shown.returncode, shown.stderr) == (0, "")
        header, *rows = shown.stdout.splitlines()
        assert header.split() == [
            "PID",
            "UP",
            "PYTHON",
            "LOOPS",
            "TASKS",
            "GOROUTINES",
            "CONNECTIONS",
            "STATE",
            "COMMAND",
        ]
        rows = {row.split()[0]: row.split() for row in rows}
        assert rows.keys() == {str(service.pid), str(other.pid)}
        assert rows[str(service.pid)][4:8] == ["1", "31", "7", "0"] and "ok" in rows[str(service.pid)]
        found = json.loads(goloop("ps", "--json").stdout)
        assert {each["pid"]: each["tasks"] for each in found} == {service.pid: 31, other.pid: 31}


def test_dump_shows_tasks_and_goroutines(service):
    shown = goloop("dump", service.pid)
    assert (shown.returncode, shown.stderr) == (0, "")
    assert "wait_for_work" in shown.stdout and "chan receive" in shown.stdout
    found = json.loads(goloop("dump", service.pid, "--json").stdout)
    assert len(found["tasks"]) == 31 and len(found["goroutines"]) == 7


def test_stats_shows_the_numbers(service):
    shown = goloop("stats", service.pid)
    assert (shown.returncode, shown.stderr) == (0, "")
    assert f"process {service.pid}: up " in shown.stdout
    assert "goroutines: 7 (7 chan receive), 7 started so far" in shown.stdout
    assert "in thread MainThread: busy " in shown.stdout
    found = json.loads(goloop("stats", service.pid, "--json").stdout)
    assert found["goroutines"]["chan receive"] == 7 and found["pid"] == service.pid


def test_trace_brings_a_trace_home(service, tmp_path):
    file = tmp_path / "out.json"
    done = goloop("trace", service.pid, "--seconds", "0.1", "-o", file)
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == f"{file}: {file.stat().st_size:,} bytes; open it in ui.perfetto.dev or chrome://tracing\n"
    assert "traceEvents" in json.loads(file.read_text())
    assert "traceEvents" in json.loads(goloop("trace", service.pid, "-s", "0.1", "-o", "-").stdout)
    assert sorted(os.listdir(tmp_path)) == ["doors", "out.json"]


def test_a_trace_that_cannot_be_written_is_an_error(service, tmp_path):
    done = goloop("trace", service.pid, "-s", "0.1", "-o", tmp_path / "missing" / "out.json")
    assert done.returncode == 1
    assert done.stderr.endswith("out.json cannot be written: No such file or directory\n")
    (tmp_path / "full").symlink_to("/dev/full")
    done = goloop("trace", service.pid, "-s", "0.1", "-o", tmp_path / "full")
    assert done.returncode == 1 and done.stderr.endswith("full cannot be written: No space left on device\n")
    assert sorted(os.listdir(tmp_path)) == ["doors", "full"] and (tmp_path / "full").is_symlink()


def test_a_trace_that_fails_leaves_the_file_before_it(service, tmp_path):
    file = tmp_path / "out.json"
    file.write_text("before")
    with client.connect(service.pid) as first:
        wire.send_request(first._sock, "trace", seconds=500)
        until(lambda: goloop("trace", service.pid, "-s", "0.01", "-o", "-").returncode == 1)
        assert goloop("trace", service.pid, "-s", "0.01", "-o", file).returncode == 1
    assert file.read_text() == "before"
    assert sorted(os.listdir(tmp_path)) == ["doors", "out.json"]


def test_a_trace_goes_through_a_pipe_and_a_link(service, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with open(os.open(tmp_path / "pipe", os.O_RDWR), "rb", buffering=0) as pipe:
        assert goloop("trace", service.pid, "-s", "0.01", "-o", tmp_path / "pipe").returncode == 0
        assert pipe.read(10).startswith(b"{")
    assert stat.S_ISFIFO(os.stat(tmp_path / "pipe").st_mode)
    (tmp_path / "link.json").symlink_to("real.json")
    assert goloop("trace", service.pid, "-s", "0.01", "-o", tmp_path / "link.json").returncode == 0
    assert (tmp_path / "link.json").is_symlink() and "traceEvents" in (tmp_path / "real.json").read_text()


def test_there_is_one_trace_at_a_time_and_a_reader_that_leaves_ends_its_own(service, tmp_path):
    with client.connect(service.pid) as first:
        wire.send_request(first._sock, "trace", seconds=500)

        def second():
            return goloop("trace", service.pid, "-s", "0.01", "-o", tmp_path / "out.json")

        until(lambda: second().returncode == 1)
        assert "a trace is made already" in second().stderr
    until(lambda: second().returncode == 0)


def test_top_draws_the_program(service):
    pytest.importorskip("rich")
    shown = goloop("top", service.pid, "-n", "2", "-d", "0.1", COLUMNS="160", LINES="50")
    assert (shown.returncode, shown.stderr) == (0, "")
    assert f"({service.pid}) up " in shown.stdout and "31 tasks, 7 goroutines" in shown.stdout
    rows = [line.split() for line in shown.stdout.splitlines()]
    assert ["task", "wait_for_work", "30"] in [row[:3] for row in rows]
    assert any(row[:2] == ["1", "MainThread"] for row in rows)


def test_top_without_rich_says_what_to_install(service, tmp_path):
    (tmp_path / "rich.py").write_text("raise ImportError")
    shown = goloop("top", service.pid, PYTHONPATH=f"{tmp_path}{os.pathsep}{os.pathsep.join(sys.path)}")
    assert shown.returncode == 1
    assert shown.stderr == "python -m goloop top: top is drawn by rich: pip install 'goloop[top]'\n"


def test_every_command_answers_while_the_loop_is_stuck(door_folder, tmp_path):
    with running(STUCK) as program:
        assert f"\n{program.pid} " in goloop("ps").stdout
        assert "handle" in goloop("dump", program.pid).stdout
        assert goloop("stats", program.pid).returncode == 0
        assert goloop("top", program.pid, "-n", "1").returncode == 0
        assert goloop("trace", program.pid, "-s", "0.05", "-o", tmp_path / "out.json").returncode == 0
        program.hears("go on")  # it was in that call all the time
        assert program.says() == "stuck"


def test_a_program_can_be_looked_into_while_it_forks(door_folder):
    code = """
        import os, goloop
        goloop.go(goloop.sleep, 1000)
        print("ready", flush=True)
        while True:
            if os.fork() == 0:
                os._exit(0)
            os.wait()
    """
    with running(code) as program:
        for _ in range(10):
            shown = goloop("dump", program.pid)
            assert (shown.returncode, shown.stderr) == (0, "")


# ------------------------------------------------------------- what is missing
def test_a_process_that_there_is_not(door_folder):
    done = goloop("dump", 2**22 + 1)
    assert (done.returncode, done.stdout, done.stderr) == (
        1,
        "",
        f"python -m goloop dump: there is no process {2**22 + 1}\n",
    )


def test_a_process_without_goloop(door_folder):
    with running("import time; print(1, flush=True); time.sleep(1000)") as program:
        done = goloop("stats", program.pid)
    assert done.returncode == 1
    assert done.stderr.endswith(f"process {program.pid} does not use goloop (it has not imported it)\n")


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="from 3.14 on the door is opened from outside")
def test_a_program_that_has_not_opened_its_door(door_folder):
    with running(SERVICE, GOLOOP_DEBUG="0") as program:
        done = goloop("dump", program.pid)
    assert done.returncode == 1
    assert done.stderr.endswith(
        f"process {program.pid} has not opened its door: start it with GOLOOP_DEBUG=1, or let it call "
        "goloop.debug.serve()\n"
    )


NEEDS_REMOTE_EXEC = pytest.mark.skipif(sys.version_info < (3, 14), reason="sys.remote_exec() is new in 3.14")
CLOSED = """
    import asyncio, goloop, sys

    async def main():
        print("ready", flush=True)
        sys.stdin.readline()
        print("awake", flush=True)
        while True:
            await asyncio.sleep(0.01)

    goloop.run(main())
"""


@NEEDS_REMOTE_EXEC
def test_a_door_is_opened_from_outside(door_folder):
    with running(CLOSED, GOLOOP_DEBUG="0") as program:
        program.hears("go on")
        assert program.says() == "awake"
        for _ in range(2):
            done = goloop("dump", program.pid)
            assert (done.returncode, done.stderr) == (0, "") and "main" in done.stdout


@NEEDS_REMOTE_EXEC
def test_a_main_thread_that_runs_no_python_opens_the_door_when_it_does(door_folder, monkeypatch):
    from goloop.debug._outside import remote

    monkeypatch.setattr(remote, "PATIENCE", 0.1)
    with running(CLOSED, GOLOOP_DEBUG="0") as program:
        with pytest.raises(client.Trouble, match=r"has run no Python code for 0\.1 s, so it could not open its door"):
            remote.open_door(program.pid)
        program.hears("go on")
        assert program.says() == "awake"
        until(lambda: goloop("ps").stdout.count(str(program.pid)))


@NEEDS_REMOTE_EXEC
def test_a_process_that_forbids_it_says_so(door_folder):
    with running(CLOSED, "-X", "disable-remote-debug", GOLOOP_DEBUG="0") as program:
        done = goloop("dump", program.pid)
    assert done.returncode == 1 and "cannot be opened from outside (" in done.stderr
    assert "start it with GOLOOP_DEBUG=1" in done.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_a_process_of_another_user(service):
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.setresuid(65534, 65534, 65534)
            said = io.StringIO()
            with contextlib.redirect_stderr(said):
                status = commands.run(["dump", str(service.pid)]) != 1
            wanted = f"process {service.pid} belongs to user 0: only that user and root may look into it"
            status = status or wanted not in said.getvalue()
        finally:
            os._exit(int(status))
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_a_process_that_is_stopped(service, monkeypatch):
    service.send_signal(signal.SIGSTOP)
    until(lambda: processes.state(service.pid) == "T")
    with client.connect(service.pid) as connection:
        with pytest.raises(client.Trouble, match=rf"process {service.pid} is stopped \(SIGSTOP, or a debugger\)"):
            connection.ask("stats", patience=0.05)
    monkeypatch.setattr(commands, "PS", 0.05)
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        assert commands.run(["ps"]) == 0
    assert "silent" in said.getvalue() and "is stopped" in said.getvalue()
    service.send_signal(signal.SIGCONT)


def test_a_process_whose_interpreter_lock_is_kept(service):
    """As far as this side can tell: it does not answer, and is not stopped."""
    with client.connect(service.pid) as connection:
        connection._lines.line = lambda patience: (_ for _ in ()).throw(TimeoutError)
        with pytest.raises(client.Trouble, match="something keeps its interpreter lock"):
            connection.ask("stats", patience=0.05)


def test_a_process_that_ends_in_the_middle_of_its_answer(door_folder):
    """A door that is none, of this process: the answer is cut off."""
    with folder.opened(folder.path(), make=True) as fd:
        listener, _ = folder.listen(fd, os.getpid(), 1)

    def cut_off():
        sock, _ = listener.accept()
        with sock:
            sock.recv(1000)
            sock.sendall(b'{"goloop": 1, "ok": true, "length": 100}\n1234')

    with listener:
        thread = threading.Thread(target=cut_off)
        thread.start()
        with client.connect(os.getpid()) as connection:
            with pytest.raises(client.Trouble, match="has not finished its answer: the answer ends after 4 of 100"):
                connection.ask("stats")
        thread.join()


def test_a_door_that_speaks_another_version(door_folder):
    with folder.opened(folder.path(), make=True) as fd:
        listener, _ = folder.listen(fd, os.getpid(), 1)

    def newer():
        sock, _ = listener.accept()
        with sock:
            sock.recv(1000)
            sock.sendall(b'{"goloop": 7, "ok": true, "length": 0}\n')

    with listener:
        thread = threading.Thread(target=newer)
        thread.start()
        with client.connect(os.getpid()) as connection:
            with pytest.raises(client.Trouble, match="goloop speaks version 1 of its protocol, not 7"):
                connection.ask("stats")
        thread.join()


def test_a_socket_of_another_process_is_not_taken_for_the_one_that_is_asked_for(door_folder):
    """A number that has gone to another process, or a trap."""
    with folder.opened(folder.path(), make=True) as fd:
        listener, _ = folder.listen(fd, 1, 1)
    with listener:
        assert client.connect(1) is None


def test_an_unsafe_folder_is_said_to_be(door_folder):
    door_folder.mkdir(mode=0o755)
    for command in (["ps"], ["dump", os.getpid()]):
        done = goloop(*command)
        assert done.returncode == 1 and "is open to other users (mode 755, it must be 700)" in done.stderr


@pytest.mark.parametrize(
    "args",
    [
        ["dump"],
        ["dump", "me"],
        ["top", "1", "-n", "0"],
        ["trace", "1", "-s", "1e9"],
        ["trace", "1", "-s", "nan"],
        ["ps", "1"],
    ],
)
def test_bad_arguments_are_an_error_with_the_usage(args):
    done = goloop(*args)
    assert done.returncode == 2 and done.stderr.startswith("usage: python -m goloop ")


def test_the_help_names_the_commands():
    shown = goloop("--help").stdout
    for name in ("ps", "dump", "top", "stats", "trace"):
        assert f"\n  {name:7}" in shown
        assert goloop(name, "--help").returncode == 0


def test_a_program_with_the_name_of_a_command_is_run_by_its_path(tmp_path, monkeypatch):
    (tmp_path / "ps").write_text("print('mine')")
    monkeypatch.chdir(tmp_path)
    assert goloop("./ps").stdout == "mine\n"


def test_a_reader_of_the_output_may_leave(service):
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.close()
        pid = os.fork()
        if pid == 0:
            os.dup2(ours.fileno(), 1)
            os.execv(sys.executable, [sys.executable, "-m", "goloop", "dump", str(service.pid)])
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 1


# ------------------------------------------------------------------------ words
@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (None, "-"),
        (0, "0 µs"),
        (0.0000123, "12.3 µs"),
        (0.3, "300 ms"),
        (1, "1 s"),
        (119.96, "120 s"),
        (120, "2 min"),
        (7200, "2.0 h"),
        (172800, "2.0 d"),
    ],
)
def test_durations(seconds, words):
    assert text.duration(seconds) == words


@pytest.mark.parametrize(
    ("count", "words"), [(0, "0 B"), (999, "999 B"), (1000, "1 kB"), (1_500_000, "1.5 MB"), (2e9, "2.0 GB")]
)
def test_sizes(count, words):
    assert text.size(count) == words
