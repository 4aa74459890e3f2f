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
