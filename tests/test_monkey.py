"""goloop.monkey. Patching is for a whole process: tests/monkey runs in processes of its own, a file in each."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from goloop import monkey

HERE = Path(__file__).resolve().parent
PATCHED = sorted((HERE / "monkey").glob("test_*.py"))
NAMES = ["dns", "queue", "select", "socket", "ssl", "subprocess", "threading", "time"]


def python(*args, **env):
    return subprocess.run(
        [sys.executable, "-X", "dev", *args],
        env={**os.environ, **env},
        cwd=HERE.parent,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )


def test_nothing_is_patched_by_an_import():
    assert [name for name in NAMES if monkey.is_patched(name)] == []


@pytest.mark.parametrize(
    ("path", "threads"),
    # With one thread for all goroutines nothing overlaps but what parks. Locks are also between threads.
    [*((path, "1") for path in PATCHED), (HERE / "monkey" / "test_locks.py", "4")],
    ids=lambda value: getattr(value, "stem", value),
)
def test_patched(path, threads):
    args = ["-m", "pytest", "-p", "no:cacheprovider", "-p", "no:xdist", "-rs", str(path)]
    done = python(*args, TESTS_PATCHED="1", GOLOOP_MAXTHREADS=threads, PYTEST_ADDOPTS="", PYTEST_XDIST_WORKER="")
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
    if " passed" not in done.stdout:  # what cannot run at all says why
        pytest.skip("; ".join(line for line in done.stdout.splitlines() if line.startswith("SKIPPED")))


def script(text):
    done = python("-W", "error", "-c", text)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_patch_all_chooses():
    shown = script("""
from goloop import monkey
monkey.patch_all(ssl=False, subprocess=False)
monkey.patch_all(ssl=False, subprocess=False)
monkey.patch_time()
print(*[name for name in "dns queue select socket ssl subprocess threading time".split() if monkey.is_patched(name)])
""")
    assert shown == [name for name in NAMES if name not in ("ssl", "subprocess")]


@pytest.mark.parametrize("name", NAMES)
def test_each_patch_alone(name):
    shown = script(f"""
import time
from goloop import go, monkey
monkey.patch_{name}()
print(monkey.is_patched("{name}"), *[n for n in {NAMES} if monkey.is_patched(n)])
assert go(lambda: time.sleep(0.001)).result(10) is None
""")
    assert shown == ["True", name]


def test_unknown_names():
    with pytest.raises(TypeError, match="sockets"):
        monkey.patch_all(sockets=True)
    with pytest.raises(ValueError, match="there is no patch 'sockets'; there are time, threading"):
        monkey.is_patched("sockets")


# --------------------------------------------------------- what is not patched
def test_unpatched_tells_which_parts_are_not():
    assert {name: why for name, why in monkey.unpatched().items() if name in NAMES} == {
        name: f"goloop.monkey.patch_{name}() was not called" for name in NAMES
    }
    shown = script("""
from goloop import monkey
monkey.patch_all(ssl=False)
print(*monkey.unpatched())
""")
    assert shown == ["ssl"]


def test_unpatched_tells_of_drivers_that_wait_in_c():
    pytest.importorskip("psycopg")
    pytest.importorskip("psycopg2")
    shown = script("""
import sqlite3, psycopg, psycopg2.extensions
from goloop import monkey
monkey.patch_all()
print(*sorted(monkey.unpatched()))
monkey.patch_psycopg()
monkey.patch_psycopg2()
print(*sorted(monkey.unpatched()))
""")
    assert shown == ["_sqlite3", "psycopg", "psycopg2", "_sqlite3"]


def test_a_part_that_cannot_be_patched_is_told_each_time_and_the_rest_is_patched():
    shown = script("""
import time
time.sleep = lambda seconds: None
from goloop import monkey
for call in monkey.patch_all, monkey.patch_all, monkey.patch_time:
    try:
        call()
    except SystemError as exc:
        assert str(exc).startswith("not patched, and blocking goroutines' threads as ever: time (TypeError: "), exc
        print("told")
monkey.patch_socket()
print(monkey.is_patched("time"), *monkey.unpatched())
""")
    assert shown == ["told", "told", "told", "False", "time"]


@pytest.mark.parametrize(("value", "shown"), [("1", ["True"]), ("on", ["True"]), ("0", ["False", *NAMES])])
def test_the_variable_patches_at_the_import(value, shown):
    text = "import goloop; print(goloop.monkey.is_patched('socket'), *sorted(goloop.monkey.unpatched()))"
    done = python("-W", "error", "-c", text, GOLOOP_MONKEY=value)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == shown
