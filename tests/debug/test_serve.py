"""serve() and GOLOOP_DEBUG=1: who has a door, and when."""

import os
import signal
import subprocess
import sys
import textwrap

import pytest

from goloop import debug
from tests.helpers.scripts import PATH, run_python, run_script
from tests.helpers.waiting import until


def left(folder):
    return sorted(os.listdir(folder))


def test_a_process_has_one_door_until_it_is_closed(door_folder):
    with debug.serve() as door:
        assert door.path == str(door_folder / f"{os.getpid()}.sock")
        assert debug.serve().path == door.path and door.url is None
        assert left(door_folder) == [f"{os.getpid()}.sock"]
    assert door.path is None and repr(door) == "<goloop.debug.Door closed>"
    assert left(door_folder) == []
    door.close()
    with debug.serve() as again:
        assert again.path is not None


def test_the_variable_opens_the_door_at_the_import_and_the_exit_closes_it(door_folder):
    code = "import os, goloop; print(os.listdir(os.environ['GOLOOP_DEBUG_DIR']) == [f'{os.getpid()}.sock'])"
    assert run_script(code, GOLOOP_DEBUG="1") == (0, "True\n", "")
    assert left(door_folder) == []
    assert run_script("import goloop, sys; print('goloop.debug' in sys.modules)") == (0, "False\n", "")


def test_a_door_that_cannot_be_opened_does_not_stop_the_program(door_folder):
    door_folder.mkdir(mode=0o755)
    done = run_python("-c", "import goloop; print('runs')", env={"GOLOOP_DEBUG": "1"})
    assert (done.returncode, done.stdout) == (0, "runs\n")
    assert "RuntimeWarning: GOLOOP_DEBUG: nobody can look into this process: " in done.stderr
    assert "is open to other users (mode 755, it must be 700)" in done.stderr


def test_serve_says_that_the_folder_is_not_safe(door_folder):
    door_folder.mkdir(mode=0o755)
    with pytest.raises(PermissionError, match="is open to other users"):
        debug.serve()
    door_folder.chmod(0o700)
    debug.serve().close()


def test_a_forked_child_has_a_door_of_its_own_and_leaves_its_parents_alone(door_folder):
    status, out, err = run_script(
        """
        import json, os, socket, sys, warnings
        from goloop import debug

        warnings.simplefilter("ignore")  # of a fork with threads

        def pid_of(path):
            with socket.socket(socket.AF_UNIX) as sock:
                sock.connect(path)
                sock.sendall(b'{"goloop": 1, "do": "summary"}\\n')
                with sock.makefile() as file:
                    return json.loads(file.read(json.loads(file.readline())["length"]))["pid"]

        door = debug.serve()
        parents = door.path
        held = socket.socket(socket.AF_UNIX)
        held.connect(parents)
        assert pid_of(parents) == os.getpid()
        pid = os.fork()
        if pid == 0:
            held.close()
            assert door.path != parents
            assert pid_of(door.path) == os.getpid() and pid_of(parents) == os.getppid()
            sys.exit(7)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
        assert door.path == parents and pid_of(parents) == os.getpid()
        held.sendall(b'{"goloop": 1, "do": "summary"}\\n')
        assert b'"ok": true' in held.recv(100)
        held.close()
        """
    )
    assert (status, out, err) == (0, "", "")
    assert left(door_folder) == []


def test_a_child_that_lives_on_does_not_keep_its_parents_door_open(door_folder):
    program = subprocess.Popen(
        [
            sys.executable,
            "-c",
            """if True:
            import os, sys
            from goloop import debug
            debug.serve()
            pid = os.fork()
            if pid == 0:
                sys.stdin.read()  # until the test ends
                os._exit(0)
            print(pid, flush=True)
            os.kill(os.getpid(), 9)
            """,
        ],
        env={**os.environ, "PYTHONPATH": PATH},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with program:
        child = int(program.stdout.readline())
        assert program.wait() == -signal.SIGKILL
        shown = run_python("-m", "goloop", "ps").stdout
        assert f"\n{child} " in shown and f"\n{program.pid} " not in shown
        assert left(door_folder) == [f"{child}.sock"]


def test_a_process_that_is_killed_is_no_entry(door_folder):
    program = subprocess.Popen(
        [sys.executable, "-c", "import goloop, time; print(1, flush=True); time.sleep(1000)"],
        env={**os.environ, "PYTHONPATH": PATH, "GOLOOP_DEBUG": "1"},
        stdout=subprocess.PIPE,
    )
    with program:
        program.stdout.readline()
        assert f"\n{program.pid} " in run_python("-m", "goloop", "ps").stdout
        program.kill()
        program.wait()
    assert left(door_folder) == [f"{program.pid}.sock"]
    done = run_python("-m", "goloop", "ps")
    assert done.stdout == "" and done.stderr.startswith("No program has opened its door: ")
    assert left(door_folder) == []


def test_a_program_that_becomes_another_one_loses_its_door(door_folder):
    program = subprocess.Popen(
        [sys.executable, "-c", "import os, goloop; os.execv('/bin/sleep', ['sleep', '1000'])"],
        env={**os.environ, "PYTHONPATH": PATH, "GOLOOP_DEBUG": "1"},
    )
    with program:
        until(
            lambda: (
                os.path.exists(f"/proc/{program.pid}/comm")
                and os.readlink(f"/proc/{program.pid}/exe").endswith(("sleep", "coreutils"))
            )
        )
        shown = run_python("-m", "goloop", "ps")
        program.kill()
    assert shown.stdout == "" and left(door_folder) == []


def test_a_child_that_is_about_to_become_another_program_has_none_either(door_folder):
    status, out, err = run_script(
        """
        import subprocess
        from goloop import debug
        with debug.serve():
            print(subprocess.run(["echo", "hello"], preexec_fn=lambda: None, capture_output=True, text=True).stdout)
        """
    )
    assert (status, out, err) == (0, "hello\n\n", "")
    run_python("-m", "goloop", "ps")
    assert left(door_folder) == []


def test_the_next_process_removes_what_dead_ones_have_left(door_folder):
    run_script("import os, goloop; os._exit(0)", GOLOOP_DEBUG="1")
    assert len(left(door_folder)) == 1
    with debug.serve():
        assert left(door_folder) == [f"{os.getpid()}.sock"]


def test_the_door_is_open_while_the_program_ends(door_folder):
    """A thread that the exit waits for can be looked at."""
    program = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import goloop, sys, threading; threading.Thread(target=sys.stdin.read).start(); print(1, flush=True)",
        ],
        env={**os.environ, "PYTHONPATH": PATH, "GOLOOP_DEBUG": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with program:
        assert program.stdout.readline() == b"1\n"
        assert f"\n{program.pid} " in run_python("-m", "goloop", "ps").stdout
        program.stdin.close()
        assert program.wait() == 0
    assert left(door_folder) == []


def test_an_open_door_wakes_nobody_so_a_deadlock_is_still_one(door_folder):
    code = "import goloop; goloop.go(goloop.Chan().recv).join()"
    done = run_python("-c", code, env={"GOLOOP_DEBUG": "1"})
    assert done.returncode == 1 and "DeadlockError" in done.stderr, done.stderr


def test_gevents_threads_are_none(door_folder):
    pytest.importorskip("gevent")
    code = """
    from gevent import monkey
    monkey.patch_all()
    from goloop import debug
    try:
        debug.serve()
    except RuntimeError as exc:
        print(exc)
    """
    done = run_python("-c", textwrap.dedent(code))
    assert "goloop needs threads, and gevent.monkey has replaced them by greenlets" in done.stdout, done.stderr
