"""python -m goloop: a script or module runs as python would run it, but on goloop's loop."""

import os
import py_compile
import re
import subprocess
import sys
import zipfile

import pytest

from tests.helpers.scripts import PATH

REPORT = """\
import asyncio, sys

async def main():
    return type(asyncio.get_running_loop()).__module__.split(".")[0]

if __name__ == "__main__":
    print(asyncio.run(main()))
    print(sys.argv)
"""


def python(*args, cwd=None, stdin=None, **variables):
    return subprocess.run(
        [sys.executable, *map(str, args)],
        cwd=cwd,
        input=stdin,
        env={**os.environ, "PYTHONPATH": PATH, **variables},
        capture_output=True,
        text=True,
        timeout=60,
    )


def goloop(*args, **kwargs):
    return python("-m", "goloop", *args, **kwargs)


@pytest.fixture
def script(tmp_path):
    """Write a script; return its path."""

    def write(source, name="script.py"):
        path = tmp_path / name
        path.write_text(source)
        return path

    return write


def test_a_script_runs_on_goloop_with_its_arguments(script):
    path = script(REPORT)
    done = goloop(path, "one", "--two", "-m", "three")
    assert done.stderr == ""
    assert done.stdout == f"goloop\n{[str(path), 'one', '--two', '-m', 'three']}\n"
    assert done.returncode == 0


def test_a_module_runs_on_goloop_with_its_arguments(script, tmp_path):
    script(REPORT, "some_module.py")
    done = goloop("-m", "some_module", "one", "--two", cwd=tmp_path)
    assert done.stderr == ""
    loop, argv = done.stdout.splitlines()
    assert loop == "goloop"
    assert argv == str([str(tmp_path / "some_module.py"), "one", "--two"])


def test_a_package_runs_by_its_main_module(script, tmp_path):
    (tmp_path / "some_package").mkdir()
    script("", "some_package/__init__.py")
    script("from . import part\nprint(__name__, __package__, part.value)\n", "some_package/__main__.py")
    script("value = 42\n", "some_package/part.py")
    done = goloop("-m", "some_package", cwd=tmp_path)
    assert (done.stdout, done.stderr) == ("__main__ some_package 42\n", "")


def test_the_script_sees_what_python_would_show_it(script, tmp_path):
    script("here = True\n", "beside.py")
    path = script(
        "import os, sys, beside\n"
        "print(__name__, __file__, __spec__, __doc__)\n"
        "print(sys.modules['__main__'].__dict__ is globals(), sys.argv, os.path.realpath(sys.path[0]))\n"
    )
    assert goloop(path, "x").stdout == python(path, "x").stdout


@pytest.mark.parametrize(
    ("source", "status"),
    [
        ("", 0),
        ("import sys; sys.exit()", 0),
        ("import sys; sys.exit(3)", 3),
        ("raise SystemExit('text')", 1),
        ("1 / 0", 1),
        ("import asyncio, sys\nasync def main(): sys.exit(4)\nasyncio.run(main())", 4),
    ],
)
def test_the_exit_status_is_the_scripts(script, source, status):
    assert goloop(script(source)).returncode == status


def test_a_traceback_names_the_scripts_line(script):
    path = script("def fail():\n    raise ValueError('text')\n\nfail()\n")
    done = goloop(path)
    assert f'File "{path}", line 4' in done.stderr
    assert done.stderr.endswith("ValueError: text\n")


def test_a_missing_script_is_named(tmp_path):
    done = goloop(tmp_path / "missing.py")
    assert done.returncode == 2
    assert "missing.py" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_missing_module_is_named():
    done = goloop("-m", "no_such_module_anywhere")
    assert done.returncode == 1
    assert "no_such_module_anywhere" in done.stderr


def test_without_a_program_it_tells_its_usage():
    done = goloop()
    assert done.returncode == 2
    assert done.stderr.startswith("usage: python -m goloop")


def test_help_and_version():
    import goloop as package

    shown, version = goloop("--help"), goloop("--version")
    assert (shown.returncode, version.returncode) == (0, 0)
    assert shown.stdout.startswith("usage: python -m goloop")
    assert package.__version__ in version.stdout


def test_standard_input_is_the_scripts(script):
    assert goloop(script("print(input())"), stdin="line\n").stdout == "line\n"


def test_a_script_can_have_any_name(script):
    assert goloop(script(REPORT, "no suffix")).stdout.startswith("goloop\n")


def test_a_folder_with_a_main_module_runs(script, tmp_path):
    script("import beside\nprint(__name__, beside.here)\n", "__main__.py")
    script("here = True\n", "beside.py")
    ours, pythons = goloop(tmp_path), python(tmp_path)
    assert pythons.stdout == "__main__ True\n"
    assert ours.stdout == pythons.stdout


# As python's own: each is run by both, and everything that shows is compared

SHOW = """\
import sys
ours = {name: value for name, value in globals().items() if name not in ("__builtins__", "sys")}
print(ours, sys.argv, sys.path[0], sys.modules["__main__"].__dict__ is globals())
"""


def both(*args, **kwargs):
    """Return what python and the launcher make of the same arguments, without the addresses of objects."""
    return [
        (done.returncode, *(re.sub("0x[0-9a-f]+", "0x", text) for text in (done.stdout, done.stderr)))
        for done in (python(*args, **kwargs), goloop(*args, **kwargs))
    ]


@pytest.fixture
def programs(script, tmp_path):
    """A folder with one and the same program in every form."""
    (tmp_path / "folder").mkdir()
    script(SHOW)
    script(SHOW, "folder/__main__.py")
    script(SHOW, "folder/inside.py")
    (tmp_path / "link.py").symlink_to("folder/inside.py")
    with zipfile.ZipFile(tmp_path / "archive.zip", "w") as archive:
        archive.writestr("__main__.py", SHOW)
    py_compile.compile(str(tmp_path / "script.py"), cfile=str(tmp_path / "compiled.pyc"))
    return tmp_path


@pytest.mark.parametrize(
    "args",
    [
        ["script.py"],
        ["./script.py", "-x", "--handoff", "--", "-m"],
        ["folder/inside.py"],
        ["link.py"],
        ["compiled.pyc"],
        ["folder", "one"],
        ["archive.zip", "--debug"],
        ["-m", "script", "-c", "--watch"],
        ["-mscript", "--version"],
        ["-m", "folder.inside"],
        ["-m", "folder"],
        ["-c", SHOW, "-h"],
        [f"-c{SHOW}", "one"],
        ["-c", "-1"],
        ["-c", ""],
        ["-", "one"],
        ["--", "script.py", "--"],
    ],
    ids=lambda args: args[0][:8] + " " + "".join(args[1:])[:12],
)
def test_the_program_sees_what_python_would_show_it(programs, args):
    pythons, ours = both(*args, cwd=programs, stdin=SHOW)
    assert pythons[0] == 0
    assert ours == pythons


@pytest.mark.parametrize("args", [["script.py"], ["folder"], ["-m", "script"], ["-c", SHOW], ["-"]], ids=" ".join)
def test_a_safe_path_stays_as_it_is(programs, args):
    path = os.pathsep.join([str(programs), PATH])
    pythons, ours = both(*args, cwd=programs, stdin=SHOW, PYTHONSAFEPATH="1", PYTHONPATH=path)
    assert pythons[0] == 0
    assert ours == pythons


FAIL = "def fail():\n    raise ValueError('text')\n\nfail()\n"
HOOK = "import sys\nsys.excepthook = lambda kind, exc, tb: print(exc, tb is exc.__traceback__, tb.tb_frame.f_code)\n"


@pytest.mark.parametrize(
    "source",
    [
        FAIL,
        HOOK + FAIL,
        "1 +",
        "import fails",
        "try:\n    import fails\nfinally:\n    1 / 0",
        "raise SystemExit('text')",
        "import sys\nsys.exit(7)",
        "import os, signal, time\nos.kill(os.getpid(), signal.SIGINT)\ntime.sleep(30)",
        "import atexit\natexit.register(lambda: print(__name__, atexit))\nraise BaseException",
        "import threading\nthreading.Thread(target=lambda: (threading.main_thread().join(), print(__name__))).start()",
    ],
)
@pytest.mark.parametrize("args", [["script.py"], ["-m", "script"]], ids=" ".join)
def test_a_program_ends_as_with_python(script, tmp_path, source, args):
    script(FAIL, "fails.py")
    script(source)
    pythons, ours = both(*args, cwd=tmp_path)
    assert ours == pythons


def test_the_tracebacks_of_code_and_stdin_begin_with_the_program():
    for args in (["-c", FAIL], ["-"]):
        said = goloop(*args, stdin=FAIL).stderr
        assert re.findall('File "(.*)", line', said) == [f"<{'string' if len(args) == 2 else 'stdin'}>"] * 2


def test_a_program_that_is_no_file_is_refused(tmp_path):
    pythons, ours = both(tmp_path)  # a folder without a __main__.py
    assert ours == pythons and ours[0] == 1
    (tmp_path / "unreadable.py").symlink_to("unreadable.py")
    done = goloop("unreadable.py", cwd=tmp_path)
    assert done.returncode == 2 and done.stderr.startswith("python -m goloop: can't open file ")


@pytest.mark.parametrize(
    "args", [["-m"], ["-c"], ["--handoff"], ["--hand", "x.py"], ["--no-such-option", "x.py"]], ids=" ".join
)
def test_arguments_that_cannot_be_understood_are_an_error_with_the_usage(args):
    done = goloop(*args)
    assert done.returncode == 2
    assert done.stderr.startswith("usage: python -m goloop")


# Options

OPTIONS = """\
import asyncio, os

async def main():
    loop = asyncio.get_running_loop()
    print(loop._handoff, loop._watches(), loop.get_debug())

asyncio.run(main())
"""


@pytest.mark.parametrize(
    ("args", "seen"),
    [
        ([], "False False False"),
        (["--handoff"], "True False False"),
        (["--watch"], "False True False"),
        (["--debug"], "False True True"),
        (["--handoff", "--watch", "--debug"], "True True True"),
    ],
    ids=str,
)
def test_options_hold_for_the_programs_loops(script, args, seen):
    off = {"GOLOOP_HANDOFF": "", "GOLOOP_WATCH": "", "PYTHONASYNCIODEBUG": "", "PYTHONDEVMODE": ""}
    assert goloop(*args, script(OPTIONS), **off).stdout == seen + "\n"


def test_debug_where_python_ignores_the_environment_is_an_error(script):
    done = python("-E", "-m", "goloop", "--debug", script(OPTIONS))
    assert done.returncode == 2
    assert "python was started with -E or -I" in done.stderr


# Which loop ran

FOREIGN = """\
import asyncio

async def main():
    pass

loop = asyncio.unix_events._UnixSelectorEventLoop()
loop.run_until_complete(main())
loop.close()
"""
FOREIGN_CLASS = "asyncio.unix_events._UnixSelectorEventLoop"
NONE_OF_OURS = f"python -m goloop: none of the loops that ran was goloop's, but {FOREIGN_CLASS}\n"


def test_at_the_end_it_says_which_loop_ran_if_none_was_goloops(script):
    done = goloop(script(FOREIGN))
    assert (done.returncode, done.stderr) == (0, NONE_OF_OURS)


@pytest.mark.parametrize("source", [FOREIGN + "asyncio.run(main())\n", "import asyncio\n", ""])
def test_it_says_nothing_if_one_was_or_if_none_ran(script, source):
    done = goloop(script(source))
    assert (done.returncode, done.stderr) == (0, "")


def test_a_forked_child_tells_of_its_own_loops(script):
    source = FOREIGN + "import os, sys\npid = os.fork()\nif pid:\n    asyncio.run(main())\n    os.waitpid(pid, 0)\n"
    assert goloop(script(source)).stderr == ""
    source = "import os\npid = os.fork()\nif pid:\n    os.waitpid(pid, 0)\nelse:\n" + re.sub("(?m)^", "    ", FOREIGN)
    assert goloop(script(source)).stderr == NONE_OF_OURS


def test_a_spawned_child_runs_on_goloop_and_has_the_options_too(script, tmp_path):
    path = script(
        "import asyncio, concurrent.futures, multiprocessing\n"
        "async def main():\n"
        "    loop = asyncio.get_running_loop()\n"
        "    return type(loop).__module__, loop._handoff, __name__\n"
        "def work():\n"
        "    return asyncio.run(main())\n"
        "if __name__ == '__main__':\n"
        "    context = multiprocessing.get_context('spawn')\n"
        "    with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as pool:\n"
        "        print(pool.submit(work).result())\n"
    )
    done = goloop("--handoff", path)
    assert (done.stdout, done.stderr) == ("('goloop._eventloop.loop', True, '__mp_main__')\n", "")


def test_a_spawned_child_says_which_loop_ran(script, tmp_path):
    script(f"def work():\n{re.sub('(?m)^', '    ', FOREIGN)}\n", "work.py")
    path = script(
        "import multiprocessing, work\n"
        "if __name__ == '__main__':\n"
        "    child = multiprocessing.get_context('spawn').Process(target=work.work)\n"
        "    child.start()\n"
        "    child.join()\n"
        "    print(child.exitcode)\n"
    )
    done = goloop(path)
    assert (done.stdout, done.stderr) == ("0\n", NONE_OF_OURS)


# Frameworks that choose uvloop where they find it


@pytest.mark.parametrize(
    "choice",
    [
        "loop = uvloop.new_event_loop()\nloop.run_until_complete(main())\nloop.close()",
        "with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:\n    runner.run(main())",
        "uvloop.install()\nasyncio.run(main())",
        "uvloop.run(main())",
    ],
)
def test_a_program_that_chooses_uvloop_gets_goloop(script, tmp_path, choice):
    script(
        "def fail(*args, **kwargs):\n    raise AssertionError('uvloop is used')\n"
        "Loop = new_event_loop = run = install = EventLoopPolicy = fail\n",
        "uvloop.py",
    )
    head = "import asyncio\nasync def main():\n    print(type(asyncio.get_running_loop()).__module__)\nimport uvloop\n"
    done = goloop(script(head + choice))
    assert (done.stdout, done.stderr) == ("goloop._eventloop.loop\n", "")


PATCHED = """\
import multiprocessing, time
import goloop

def show():
    print(goloop.monkey.is_patched("time"), goloop.monkey.unpatched(), flush=True)

if __name__ == "__main__":
    assert goloop.go(time.sleep, 0.001).result(10) is None
    show()
    for method in ("spawn", "fork"):
        child = multiprocessing.get_context(method).Process(target=show)
        child.start()
        child.join()
"""


def test_monkey_patches_before_the_program_and_in_its_children(script):
    done = goloop("--monkey", script(PATCHED))
    assert (done.stdout, done.returncode) == ("True {}\n" * 3, 0)
    assert done.stderr.count("Warning") == done.stderr.count("use of fork"), done.stderr
    done = goloop("-c", "import goloop; print(goloop.monkey.is_patched('time'))")
    assert done.stdout == "False\n"
