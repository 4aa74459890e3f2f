"""Opens the door of a process that has not done so itself, from Python 3.14 on: sys.remote_exec() runs a script in it.

The process runs it in its main thread, when that next comes back to Python code.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time

from goloop.debug._outside import client, processes

PATIENCE = 10.0  # seconds for the main thread to come to the script
PAUSE = 0.02  # seconds between two looks at whether it has

# It writes nothing where all is well: then the socket is there. It must not import what the program has not. If nobody
# waits for it any more it is still there, and then it cleans up.
_SCRIPT = """\
def _goloop_opens_the_door():
    import os, sys
    try:
        if "goloop" not in sys.modules:
            raise RuntimeError("it has not imported goloop")
        from goloop.debug import serve
        serve()
    except BaseException as exc:
        with open({failure!r}, "w") as file:
            file.write(str(exc) or type(exc).__name__)
    try:
        os.unlink({script!r})
        os.rmdir(os.path.dirname({script!r}))
    except OSError:
        pass
_goloop_opens_the_door()
del _goloop_opens_the_door
"""


def open_door(pid: int) -> client.Connection:
    """Let the process open its door, and return a connection. Trouble with a sentence that says what is missing."""
    theirs = processes.python_with_goloop(pid)
    hint = "start it with GOLOOP_DEBUG=1, or let it call goloop.debug.serve()"
    if theirs is None:
        raise client.Trouble(f"process {pid} does not use goloop (it has not imported it)")
    if theirs < (3, 14):
        raise client.Trouble(f"process {pid} has not opened its door: {hint}")
    ours = sys.version_info[:2]
    if theirs != ours:
        raise client.Trouble(
            f"process {pid} runs Python 3.{theirs[1]}, and only the same version can open its door from outside (this "
            f"is {ours[0]}.{ours[1]}): use that Python, or {hint}"
        )
    place = tempfile.mkdtemp(prefix="open-goloop-")
    script, failure = os.path.join(place, "script.py"), os.path.join(place, "failure")
    pending = False
    try:
        with open(script, "w") as file:
            file.write(_SCRIPT.format(script=script, failure=failure))
        _readable(place, script, processes.owner(pid))
        _run_in(pid, script, hint)
        pending = True
        connection = _await_door(pid, failure)
        if connection is not None:
            pending = False
            return connection
    except client.Trouble:
        pending = False
        raise
    finally:
        if not pending:
            shutil.rmtree(place, ignore_errors=True)
    raise client.Trouble(
        f"the main thread of process {pid} has run no Python code for {PATIENCE:g} s, so it could not open its door "
        f"(it will when it does): it is idle, or stuck in a call. Another time, {hint}"
    )


def _run_in(pid: int, script: str, hint: str) -> None:
    try:
        sys.remote_exec(pid, script)  # type: ignore[attr-defined,unused-ignore]
    except PermissionError:
        raise client.Trouble(
            f"the system lets nobody but root open the door of process {pid} from outside (see "
            f"/proc/sys/kernel/yama/ptrace_scope): run this as root, or {hint}"
        ) from None
    except (RuntimeError, OSError) as exc:
        raise client.Trouble(f"the door of process {pid} cannot be opened from outside ({exc}): {hint}") from None


def _readable(place: str, script: str, user: int) -> None:
    if user != os.geteuid():  # root looks into another user's process
        for path in (place, script):
            os.chown(path, user, -1)


def _await_door(pid: int, failure: str) -> client.Connection | None:
    """Return a connection once the script has run, None if it has not within PATIENCE."""
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        if (connection := client.connect(pid)) is not None:
            return connection
        if os.path.exists(failure):
            with open(failure) as file:
                if said := file.read():
                    raise client.Trouble(f"process {pid} cannot open its door: {said}")
        if not processes.exists(pid):
            raise client.Trouble(f"process {pid} has ended")
        time.sleep(PAUSE)
    return None
