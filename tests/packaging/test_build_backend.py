"""A build that cannot succeed says at once, in a sentence, what the machine lacks."""

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

BACKEND = Path(__file__).parents[2] / "build_backend" / "goloop_backend.py"
CC = shutil.which("gcc")
HEADERS = Path(sysconfig.get_path("include"), "Python.h").exists()

pytestmark = pytest.mark.skipif(not BACKEND.exists(), reason="this is an installed goloop, without its build backend")


def check(before: str = "pass", **env: str) -> "subprocess.CompletedProcess[str]":
    """Run the backend's check, after `before`, which makes the machine another one."""
    program = f"import runpy, sys; {before}; runpy.run_path({str(BACKEND)!r}, run_name='__main__')"
    return subprocess.run([sys.executable, "-c", program], env=os.environ | env, capture_output=True, text=True)


@pytest.mark.skipif(CC is None or not HEADERS, reason="needs a machine that can build goloop: gcc and Python's headers")
def test_nothing_is_said_where_goloop_can_be_built():
    result = check(CC="gcc", CFLAGS="", CPPFLAGS="")
    assert (result.returncode, result.stderr) == (0, "")


def test_a_missing_compiler_is_named(tmp_path):
    result = check(PATH=str(tmp_path), CC="gcc -pthread")
    assert result.returncode == 1
    assert "there is no C compiler (gcc): install gcc" in result.stderr
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.skipif(CC is None, reason="needs gcc, to find that the headers are missing")
def test_missing_headers_are_named_with_the_version():
    result = check("import sysconfig; sysconfig.get_path = lambda name: '/nowhere'", CC="gcc", CFLAGS="", CPPFLAGS="")
    assert result.returncode == 1
    assert f"the headers of Python {sys.version_info[0]}.{sys.version_info[1]} are missing" in result.stderr
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.skipif(CC is None, reason="needs gcc, to have it fail")
def test_a_compiler_that_does_not_work_is_quoted():
    result = check(CC="gcc", CFLAGS="-fno-such-option")
    assert result.returncode == 1
    assert "gcc does not work" in result.stderr
    assert "-fno-such-option" in result.stderr


@pytest.mark.parametrize(
    ("before", "said"),
    [
        ("sys.platform = 'darwin'", "runs on Linux only (it stands on epoll), and this is darwin"),
        ("sys.implementation.name = 'pypy'", "needs CPython 3.11 or later, and this is pypy"),
        ("sys.version_info = (3, 10, 1)", "needs CPython 3.11 or later, and this is cpython 3.10"),
    ],
)
def test_another_platform_or_python_is_named(before, said):
    result = check(before)
    assert result.returncode == 1
    assert said in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_the_requirements_are_given_only_where_goloop_can_be_built(tmp_path):
    program = (
        f"import sys; sys.path.insert(0, {str(BACKEND.parent)!r}); import goloop_backend as backend\n"
        "print(backend.get_requires_for_build_sdist())\n"
        "backend.get_requires_for_build_wheel()"
    )
    env = os.environ | {"PATH": str(tmp_path), "CC": "gcc"}
    result = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True)
    assert "Cython" in result.stdout
    assert result.returncode == 1
    assert "there is no C compiler" in result.stderr
