"""layers.py finds what goes up or round, in a small tree, and passes what goes down."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent / "layers.py"


@pytest.fixture
def check(tmp_path):
    """Checks a tree with these files under goloop/; returns the exit status and the lines that were printed."""

    def checked(files):
        for name, text in files.items():
            path = tmp_path / "goloop" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        done = subprocess.run([sys.executable, SCRIPT, tmp_path], capture_output=True, text=True, timeout=60)
        assert not done.stdout
        return done.returncode, done.stderr.splitlines()

    return checked


def test_a_tree_that_only_goes_down_passes(check):
    assert check(
        {
            "__init__.py": "from goloop._eventloop.loop import Loop\n",
            "__main__.py": "import os, goloop\n",
            "errors.py": "class Error(Exception): ...\n",
            "core/__init__.py": '"""The core."""\n',
            "core/poll/pollset.pxd": 'cdef extern from "../poll/native/netpoll.h" nogil:\n    pass\n',
            "core/loop/handles.pyx": "from goloop.core.poll.pollset cimport now_ns\n",
            "core/loop/loop_core.pyx": (
                '"""Says:\n\nfrom goloop.core.sched import scheduler\n"""\n'
                "from goloop.core.loop.handles cimport (\n    Handle,  # its own\n    TimerHandle as Timer,\n)\n"
                "# from goloop.core.sched cimport scheduler\nfrom goloop.errors import Error\n"
            ),
            "core/sched/scheduler.pyx": "cimport cython\nfrom goloop.core.loop cimport handles, loop_core\n",
            "runtime/ports.py": "from typing import Any\n",
            "runtime/workers.py": "import goloop._eventloop.loop\nfrom goloop.runtime import ports\n",
            "_eventloop/loop.py": "from goloop.core.loop.loop_core import LoopCore\nfrom goloop.runtime import ports\n",
        }
    ) == (0, [])


@pytest.mark.parametrize(
    ("name", "text", "finding"),
    [
        ("core/loop/handles.pyx", "from goloop.core.sched.scheduler cimport G\n", "goloop.core.sched.scheduler"),
        (
            "core/loop/handles.pxd",
            "from goloop.core.sched.scheduler cimport (\n    G,\n)\n",
            "goloop.core.sched.scheduler",
        ),
        (
            "core/loop/handles.pyx",
            "def f():\n    from goloop.core.sched cimport scheduler\n",
            "goloop.core.sched.scheduler",
        ),
        ("core/loop/handles.pyx", "cimport goloop.core.sched.scheduler as s\n", "goloop.core.sched.scheduler"),
        ("core/loop/handles.pyx", "import goloop.runtime.workers\n", "goloop.runtime.workers"),
        ("core/loop/handles.pyx", 'cdef extern from "../sched/native/sysmon.h":\n    pass\n', "goloop.core.sched"),
        (
            "core/loop/handles.pyx",
            'cdef extern from *:\n    """\n    #include "../sched/native/a.h"\n    """\n',
            "goloop.core.sched",
        ),
        ("core/net/conn.pyx", "from goloop.core.transports.base cimport enter\n", "goloop.core.transports.base"),
        ("core/sched/scheduler.pyx", "from goloop import run\n", "goloop"),
        ("_eventloop/loop.py", "from goloop.runtime import workers\n", "goloop.runtime.workers"),
        ("_eventloop/loop.py", "def f():\n    from goloop.runtime import workers\n", "goloop.runtime.workers"),
        ("_eventloop/loop.py", "def f():\n    import goloop.runtime.workers as w\n", "goloop.runtime.workers"),
        ("_eventloop/loop.py", "if TYPE_CHECKING:\n    from goloop.runtime import workers\n", "goloop.runtime.workers"),
        ("runtime/ports.py", "from goloop.runtime import workers\n", "goloop.runtime.workers"),
        ("context.py", "from goloop import net\n", "goloop.net"),
    ],
)
def test_an_import_that_goes_up_is_named(check, name, text, finding):
    files = {
        "core/sched/scheduler.pyx": "",
        "core/sched/__init__.py": "",
        "core/transports/base.pyx": "",
        "runtime/workers.py": "",
        "net/__init__.py": "",
        name: text,
        "__init__.py": "def run(): ...\n",
    }
    status, lines = check(files)
    assert status == 1
    assert len(lines) == 1
    assert lines[0].startswith(f"goloop/{name}: ")
    assert lines[0].endswith(f" must not use {finding}")


@pytest.mark.parametrize("inside", ["", "def f():\n    "])
def test_a_circle_within_a_package_is_named(check, inside):
    status, lines = check(
        {
            "runtime/a.py": "from goloop.runtime.b import f\n",
            "runtime/b.py": "import goloop.runtime.c\n",
            "runtime/c.py": f"{inside}from goloop.runtime import a\n",
            "runtime/d.py": "from goloop.runtime import a\n",
        }
    )
    assert status == 1
    assert len(lines) == 1
    assert set(lines[0].removeprefix("a circle: ").split(" uses ")) == {f"goloop.runtime.{name}" for name in "abc"}


def test_a_circle_of_cimports_is_named(check):
    status, lines = check(
        {
            "core/sync/chan.pxd": "from goloop.core.sync.locks cimport Locker\n",
            "core/sync/locks.pyx": "from goloop.core.sync cimport chan\n",
            "core/sync/chan.pyx": "",
        }
    )
    assert (status, len(lines)) == (1, 1)
    assert "goloop.core.sync.chan uses goloop.core.sync.locks" in lines[0]


def test_types_alone_may_close_a_circle(check):
    types_only = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from goloop._eventloop.loop import Loop\n"
    files = {"_eventloop/loop.py": "import goloop._eventloop.spawn\n", "_eventloop/spawn.py": types_only}
    assert check(files) == (0, [])


def test_a_module_without_a_place_and_a_relative_import_are_named(check):
    status, lines = check({"extra.py": "", "core/loop/handles.py": "from . import ownership\n"})
    assert status == 1
    assert lines == [
        "goloop/core/loop/handles.py: a relative import; write the whole name",
        "goloop/extra.py: goloop.extra has no place in the table of layers.py",
    ]
