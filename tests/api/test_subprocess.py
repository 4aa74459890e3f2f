"""Subprocesses: asyncio.create_subprocess_exec and _shell, and the protocol interface below them."""

import asyncio
import os
import pathlib
import signal
import subprocess
import sys
import threading

import pytest

import goloop
from tests.helpers.outcomes import async_outcome_of, logged, outcome_of
from tests.helpers.recorders import decreed, stock
from tests.helpers.scripts import run_loop_script
from tests.helpers.waiting import async_until, settle

PIPE = subprocess.PIPE


@pytest.fixture(autouse=True)
def no_child_left():
    yield
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


async def shell(script, data=None, **options):
    """Run a script with its three streams in pipes; return the exit status, output and errors."""
    for name in ("stdin", "stdout", "stderr"):
        options.setdefault(name, PIPE)
    process = await asyncio.create_subprocess_exec("/bin/sh", "-c", script, **options)
    out, err = await process.communicate(data)
    return process.returncode, out, err


# Running


def test_exec(both):
    async def scenario(loop):
        script = 'read -r answer; echo "$1 $answer"; echo err >&2; exit 3'
        process = await asyncio.create_subprocess_exec(
            "/bin/sh", "-c", script, "sh", "a  b", stdin=PIPE, stdout=PIPE, stderr=PIPE
        )
        before = process.pid > 0, process.returncode
        out, err = await process.communicate(b"c\n")
        return before, out, err, process.returncode, await process.wait()

    assert both(scenario) == ((True, None), b"a  b c\n", b"err\n", 3, 3)


@pytest.mark.parametrize("kind", [str, os.fsencode])
def test_shell(both, kind):
    async def scenario(loop):
        process = await asyncio.create_subprocess_shell(kind("echo $((6 * 7)) | cat; exit 4"), stdout=PIPE)
        return await process.communicate(), process.returncode

    assert both(scenario) == ((b"42\n", None), 4)


def test_program_may_be_a_path_or_bytes(both):
    async def scenario(loop):
        codes = []
        for program in (pathlib.Path("/bin/sh"), b"/bin/sh"):
            process = await asyncio.create_subprocess_exec(program, "-c", b"exit 5")
            codes.append(await process.wait())
        return codes

    assert both(scenario) == [5, 5]


@pytest.mark.parametrize("size", [0, 1, 400_000, 5_000_000])
def test_communicate(both, size):
    data = bytes(range(256)) * (size // 256) + b"x" * (size % 256)

    async def scenario(loop):
        code, out, err = await shell("tee /dev/stderr", data)
        return code, out == data, err == data

    assert both(scenario) == (0, True, True)


def test_communicate_with_a_child_that_does_not_read(both):
    async def scenario(loop):
        return await shell("exec <&-; echo no thanks", b"x" * 1_000_000)

    assert both(scenario) == (0, b"no thanks\n", b"")


def test_conversation(both):
    async def scenario(loop):
        process = await asyncio.create_subprocess_exec("cat", stdin=PIPE, stdout=PIPE)
        answers = []
        for i in range(20):
            process.stdin.write(b"%d\n" % i)
            await process.stdin.drain()
            answers.append(int(await process.stdout.readline()))
        process.stdin.close()
        await process.stdin.wait_closed()
        return answers, await process.stdout.read(), await process.wait()

    assert both(scenario) == (list(range(20)), b"", 0)


def test_forty_at_once(both):
    async def scenario(loop):
        return await asyncio.gather(*(shell(f"cat; exit {i}", b"%d" % i) for i in range(40)))

    assert both(scenario) == [(i, b"%d" % i, b"") for i in range(40)]


@pytest.mark.parametrize(
    ("script", "code"),
    [
        ("exit 0", 0),
        ("exit 255", 255),
        ("kill -TERM $$", -signal.SIGTERM),
        ("kill -KILL $$", -signal.SIGKILL),
        ("kill -ABRT $$", -signal.SIGABRT),
    ],
)
def test_exit_codes(both, script, code):
    async def scenario(loop):
        process = await asyncio.create_subprocess_exec("/bin/sh", "-c", f"ulimit -c 0; {script}")
        return await process.wait(), process.returncode

    assert both(scenario) == (code, code)


def test_loop_in_another_thread(both):
    def scenario(loop):
        outcome = []

        def work():
            outcome.append(loop.run_until_complete(shell("cat; exit 6", b"threaded")))

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        return outcome

    assert both(scenario) == [(6, b"threaded", b"")]


def test_children_of_others_are_left_alone(both):
    async def scenario(loop):
        with subprocess.Popen(["/bin/sh", "-c", "exit 7"]) as foreign:
            ours = await shell("exit 8")
            await settle()
            return ours[0], foreign.wait()

    assert both(scenario) == (8, 7)


# What the child gets


def test_stdin_is_a_real_pipe(both):
    async def scenario(loop):
        return await shell(
            "for fd in stdin stdout stderr; do test -p /dev/$fd && echo pipe; done; cat /dev/stdin", b"read"
        )

    assert both(scenario) == (0, b"pipe\npipe\npipe\nread", b"")


def test_devnull_and_stdout_for_stderr(both):
    async def scenario(loop):
        process = await asyncio.create_subprocess_exec(
            "/bin/sh",
            "-c",
            "cat; echo out; echo err >&2",
            stdin=subprocess.DEVNULL,
            stdout=PIPE,
            stderr=subprocess.STDOUT,
        )
        return await process.communicate(), process.stdin, process.stderr

    assert both(scenario) == ((b"out\nerr\n", None), None, None)


def test_files_and_descriptors_as_streams(both, tmp_path):
    async def scenario(loop):
        (tmp_path / "in").write_bytes(b"from a file")
        with open(tmp_path / "in", "rb") as source, open(tmp_path / "out", "wb") as sink:
            await shell("cat; echo err >&2", stdin=source, stdout=sink.fileno(), stderr=subprocess.DEVNULL)
        return (tmp_path / "out").read_bytes()

    assert both(scenario) == b"from a file"


def test_environment_directory_and_descriptors(both, tmp_path):
    async def scenario(loop):
        reader, writer = os.pipe()
        os.set_blocking(reader, False)
        try:
            script = f"echo $NAME; pwd; echo through > /dev/fd/{writer}"
            code, out, err = await shell(script, cwd=tmp_path, env={"NAME": "value"}, pass_fds=[writer])
            return code, out.decode().replace(str(tmp_path), "DIR"), err, os.read(reader, 100)
        finally:
            os.close(reader)
            os.close(writer)

    assert both(scenario) == (0, "value\nDIR\n", b"", b"through\n")


def test_other_descriptors_are_closed(both):
    async def scenario(loop):
        reader, writer = os.pipe()
        os.set_inheritable(writer, True)
        try:
            return await shell(f"test -e /dev/fd/1 && test ! -e /dev/fd/{writer}")
        finally:
            os.close(reader)
            os.close(writer)

    assert both(scenario) == (0, b"", b"")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # a fork in a process with threads, since 3.12
def test_preexec_fn_and_session(both):
    async def scenario(loop):
        script = "import os; print(os.getcwd(), os.getsid(0) == os.getpid())"
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-S", "-c", script, stdout=PIPE, preexec_fn=lambda: os.chdir("/"), start_new_session=True
        )
        return (await process.communicate())[0]

    assert both(scenario) == b"/ True\n"


# Signals


@pytest.mark.parametrize(
    ("method", "args", "code"), [("kill", (), -9), ("terminate", (), -15), ("send_signal", (signal.SIGUSR1,), -10)]
)
def test_signals_and_none_after_the_exit(both, method, args, code):
    async def scenario(loop):
        process = await asyncio.create_subprocess_exec("sleep", "100")
        getattr(process, method)(*args)
        return await process.wait(), outcome_of(getattr(process, method), *args)

    assert both(scenario) == (code, ("ProcessLookupError", ""))


def test_many_waiters_and_a_cancelled_one(both):
    async def scenario(loop):
        process = await asyncio.create_subprocess_exec("cat", stdin=PIPE)
        tasks = [loop.create_task(process.wait()) for _ in range(30)]
        await settle()
        tasks[0].cancel()
        await settle()
        early = [task.done() for task in tasks[1:]]
        process.stdin.close()
        codes = await asyncio.gather(*tasks[1:])
        return any(early), set(codes), tasks[0].cancelled(), await process.wait()

    assert both(scenario) == (False, {0}, True, 0)


def test_pipe_that_outlives_the_child(both):
    """A grandchild holds the child's output open: the exit is known at once, the end of the output comes later.

    wait() waits for the exit. In asyncio up to 3.14 it waits for the pipe as well, so asyncio is not asked for that.
    """

    async def scenario(loop):
        script = "sleep 100 & echo $!; read -r go; exit 9"
        process = await asyncio.create_subprocess_exec("/bin/sh", "-c", script, stdin=PIPE, stdout=PIPE)
        grandchild = int(await process.stdout.readline())
        waiting = [loop.create_task(process.wait()) for _ in range(2)]
        await settle()
        waiting[0].cancel()
        process.stdin.write(b"go\n")
        await async_until(lambda: process.returncode is not None)
        if not stock(loop):
            await waiting[1]
        early = process.returncode, process.stdout.at_eof()
        os.kill(grandchild, signal.SIGKILL)
        return early, await process.stdout.read(), await waiting[1], await process.wait()

    assert both(scenario) == ((9, False), b"", 9, 9)


# Cancellation and errors


@pytest.mark.parametrize("turns", range(1, 9))
def test_cancelled_while_starting_leaves_no_zombie(both, turns):
    """The pipes that are connected in the meantime are closed, too, and none of them under its transport."""

    def childless():
        try:
            return os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT) and False
        except ChildProcessError:
            return True

    async def scenario(loop):
        reports = []
        loop.set_exception_handler(lambda _, context: reports.append(str(context)))
        before = asyncio.all_tasks()
        task = loop.create_task(asyncio.create_subprocess_exec("sleep", "100", stdin=PIPE, stdout=PIPE, stderr=PIPE))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        if not task.cancelled():
            process = task.result()
            process.kill()
            await process.communicate()
        await async_until(childless)
        await async_until(lambda: asyncio.all_tasks() <= before)  # asyncio's own, which connects the pipes, has ended
        await settle()
        return reports

    assert both(scenario) == []


@pytest.mark.parametrize("turns", [1, 2, 3, 4, 5])
def test_cancelling_all_tasks_while_one_starts_a_child_leaves_nothing(both, turns):
    """Among them asyncio's own task that connects the pipes."""

    @decreed("ended", because="asyncio up to 3.13 waits for ever for pipes that nobody connects")
    async def scenario(loop):
        before = asyncio.all_tasks()
        task = loop.create_task(asyncio.create_subprocess_exec("sleep", "100", stdin=PIPE, stdout=PIPE, stderr=PIPE))
        for _ in range(turns):
            await asyncio.sleep(0)
        for each in asyncio.all_tasks() - before:
            each.cancel()
        await asyncio.wait([task])
        if not task.cancelled():
            process = task.result()
            process.kill()
            await process.communicate()
        return "ended"

    assert both(scenario) == "ended"


def test_cancelled_communicate_leaves_the_child_alone(both):
    async def scenario(loop):
        process = await asyncio.create_subprocess_exec("sleep", "100", stdout=PIPE)
        task = loop.create_task(process.communicate())
        await settle()
        task.cancel()
        await asyncio.wait([task])
        running = process.returncode
        process.kill()
        return task.cancelled(), running, await process.communicate(), process.returncode

    assert both(scenario) == (True, None, (b"", None), -9)


def test_missing_program_and_directory(both, tmp_path):
    async def scenario(loop):
        (tmp_path / "file").write_text("no program")
        return [
            (await async_outcome_of(asyncio.create_subprocess_exec(*args, **options)))[0]
            for args, options in [
                (["/no/such/program"], {}),
                (["true"], {"cwd": "/no/such"}),
                ([tmp_path / "file"], {}),
            ]
        ]

    assert both(scenario) == ["FileNotFoundError", "FileNotFoundError", "PermissionError"]


BAD = [{"universal_newlines": True}, {"text": True}, {"encoding": "utf-8"}, {"errors": "strict"}, {"bufsize": 4096}]


@pytest.mark.parametrize("options", [*BAD, {"shell": True}], ids=repr)
def test_wrong_arguments_of_exec(both, options):
    async def scenario(loop):
        return await async_outcome_of(loop.subprocess_exec(asyncio.SubprocessProtocol, "true", **options))

    assert both(scenario)[0] == "ValueError"


@pytest.mark.parametrize("options", [*BAD, {"shell": False}, {"cmd": 5}, {"cmd": ["true"]}], ids=repr)
def test_wrong_arguments_of_shell(both, options):
    async def scenario(loop):
        return await async_outcome_of(loop.subprocess_shell(asyncio.SubprocessProtocol, **{"cmd": "true", **options}))

    assert both(scenario)[0] == "ValueError"


@pytest.mark.parametrize("program", [5, None], ids=repr)
def test_program_of_another_type(both, program):
    async def scenario(loop):
        return await async_outcome_of(loop.subprocess_exec(asyncio.SubprocessProtocol, program))

    assert both(scenario)[0] == "TypeError"


# What the kernel does not tell, and what the loop leaves behind


def test_children_end_while_sigchld_is_ignored(both):
    """The kernel keeps no status then, and a child may be gone before anybody can watch it."""

    @decreed(
        [255] * 20, because="asyncio fails to open a descriptor of a child that is gone, and leaves the rest to it"
    )
    async def scenario(loop):
        codes = []
        started = subprocess.Popen.__init__

        def slowly(self, *args, **kwargs):
            started(self, *args, **kwargs)
            while os.path.exists(f"/proc/{self.pid}"):
                os.sched_yield()

        before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        try:
            with logged() as lines, pytest.MonkeyPatch.context() as patch:
                for turn in range(20):
                    patch.setattr(subprocess.Popen, "__init__", slowly if turn % 2 else started)
                    process = await asyncio.create_subprocess_exec("/bin/true", stdout=PIPE)
                    await process.communicate()
                    codes.append(process.returncode)
            assert len(lines) == 20 and all("exit status already read" in text for _, text in lines)
        finally:
            signal.signal(signal.SIGCHLD, before)
        return codes

    assert both(scenario) == [255] * 20


LEFT_OPEN = """
    keep = []

    async def main():
        pipes = {} if wanted == "no pipes" else {"stdin": -1, "stdout": -1, "stderr": -1}
        process = await asyncio.create_subprocess_exec("sleep", "100", **pipes)
        keep.append(process)
        if wanted == "killed":
            process.kill()
        print(process.pid, flush=True)

    loop.run_until_complete(main())
    loop.close()
    code = keep[0].returncode
    keep[0]._transport.close()
    keep.clear()
    try:
        print("a child is left", os.waitpid(-1, os.WNOHANG))
    except ChildProcessError:
        print("no child", code)
"""


def on_goloop(source):
    """Run a script that has a loop of ours; asyncio fails it, and is not asked. Its exit status and standard output."""
    loop = goloop.new_event_loop()
    try:
        return run_loop_script(loop, source)
    finally:
        loop.close()


@pytest.mark.parametrize("wanted", ["pipes", "no pipes", "killed", "unclosed"])
def test_a_child_that_is_open_when_its_loop_closes_is_ended_quietly(wanted, capfd):
    script = f"    wanted = {wanted!r}\n" + LEFT_OPEN
    if wanted == "unclosed":
        script = script.replace("    keep[0]._transport.close()\n", "")
    code, output = on_goloop(script)
    pid, rest = output.split(maxsplit=1)
    assert (code, rest) == (0, "no child -9\n")
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid), 0)
    assert capfd.readouterr().err == ""


def test_a_forked_child_that_closes_the_loop_leaves_its_parents_children_alone():
    code, output = on_goloop(
        """
        async def main():
            process = await asyncio.create_subprocess_exec("cat", stdin=-1, stdout=-1)
            fork = os.fork()
            if not fork:
                asyncio._set_running_loop(None)
                loop._thread_id = None
                loop.close()
                os._exit(0)
            print(os.waitpid(fork, 0)[1])
            print((await process.communicate(b"alive"))[0].decode(), process.returncode)

        loop.run_until_complete(main())
        loop.close()
        """
    )
    assert (code, output) == (0, "0\nalive 0\n")


# The protocol interface


class Witness(asyncio.SubprocessProtocol):
    """Writes down what happens to a child process."""

    def __init__(self):
        self.events = []
        self.lost = asyncio.Event()

    def connection_made(self, transport):
        self.transport = transport
        self.events.append("made")

    def pipe_data_received(self, fd, data):
        self.events.append(("data", fd, data))

    def pipe_connection_lost(self, fd, exc):
        self.events.append(("end", fd, exc and type(exc).__name__))

    def process_exited(self):
        self.events.append(("exited", self.transport.get_returncode()))

    def connection_lost(self, exc):
        self.events.append(("lost", exc))
        self.lost.set()


def test_order_of_events(both):
    """The exit may overtake the end of a pipe, never the data in it; connection_lost comes last."""

    async def scenario(loop):
        transport, witness = await loop.subprocess_exec(Witness, "/bin/sh", "-c", "cat; echo err >&2; exit 2")
        stdin = transport.get_pipe_transport(0)
        stdin.write(b"in")
        stdin.write_eof()
        await witness.lost.wait()
        transport.close()
        events = witness.events
        ordered = all(
            events.index(("data", fd, data)) < events.index(("end", fd, None))
            for fd, data in ((1, b"in"), (2, b"err\n"))
        )
        return events[0], events[-1], ordered, sorted(events[1:-1], key=repr)

    assert both(scenario) == (
        "made",
        ("lost", None),
        True,
        [
            ("data", 1, b"in"),
            ("data", 2, b"err\n"),
            ("end", 0, None),
            ("end", 1, None),
            ("end", 2, None),
            ("exited", 2),
        ],
    )


def test_without_pipes_only_the_exit_is_told(both):
    async def scenario(loop):
        transport, witness = await loop.subprocess_shell(Witness, "exit 3", stdin=None, stdout=None, stderr=None)
        await witness.lost.wait()
        transport.close()
        return witness.events, transport.get_pipe_transport(0)

    assert both(scenario) == (["made", ("exited", 3), ("lost", None)], None)


def test_a_transport_tells_its_process_and_its_pipes(both):
    async def scenario(loop):
        transport, witness = await loop.subprocess_exec(Witness, "cat", stderr=None)
        pipes = [transport.get_pipe_transport(fd) for fd in range(4)]
        facts = (
            isinstance(transport, asyncio.SubprocessTransport),
            transport.get_pid() == transport.get_extra_info("subprocess").pid,
            transport.get_returncode(),
            transport.get_protocol() is witness,
            transport.is_closing(),
            [
                isinstance(pipes[0], asyncio.WriteTransport),
                isinstance(pipes[1], asyncio.ReadTransport),
                pipes[2],
                pipes[3],
            ],
        )
        transport.close()
        await witness.lost.wait()
        return facts, transport.get_returncode(), transport.is_closing(), transport.get_pid() > 0

    assert both(scenario) == ((True, True, None, True, False, [True, True, None, None]), -9, True, True)


def test_close_kills_the_child_and_ends_its_pipes(both):
    async def scenario(loop):
        transport, witness = await loop.subprocess_exec(Witness, "sleep", "100")
        transport.close()
        transport.close()
        await witness.lost.wait()
        return witness.events[0], sorted(witness.events[1:-1], key=repr), witness.events[-1]

    ends = [("end", fd, None) for fd in range(3)]
    assert both(scenario) == ("made", [*ends, ("exited", -9)], ("lost", None))


def test_child_that_closes_its_end_of_a_pipe(both):
    async def scenario(loop):
        transport, witness = await loop.subprocess_exec(Witness, "/bin/sh", "-c", "exec <&- 2>&-; exec sleep 100")
        await async_until(lambda: sum(event[0] == "end" for event in witness.events) == 2)
        ends = sorted(event[1] for event in witness.events[1:])
        running = transport.get_returncode()
        transport.kill()
        await witness.lost.wait()
        transport.close()
        return ends, running, transport.get_returncode()

    assert both(scenario) == ([0, 2], None, -9)
