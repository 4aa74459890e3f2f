"""python -m goloop: a script or module runs as python would run it, but on goloop's loop."""

import os
import subprocess
import sys

import pytest

PATH = os.pathsep.join(entry for entry in sys.path if entry)

REPORT = """\
import asyncio, sys

async def main():
    return type(asyncio.get_running_loop()).__module__.split(".")[0]

if __name__ == "__main__":
    print(asyncio.run(main()))
    print(sys.argv)
"""


def python(*args, cwd=None, stdin=None):
    return subprocess.run(
        [sys.executable, *map(str, args)],
        cwd=cwd,
        input=stdin,
        env={**os.environ, "PYTHONPATH": PATH},
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


def test_the_module_sees_what_python_would_show_it(script, tmp_path):
    script(
        "import os, sys\n"
        "print(__name__, __file__, __package__, __spec__.name)\n"
        "print(sys.modules['__main__'].__dict__ is globals(), sys.argv)\n",
        "some_module.py",
    )
    ours, pythons = (run("-m", "some_module", "x", cwd=tmp_path).stdout for run in (goloop, python))
    assert ours == pythons


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
