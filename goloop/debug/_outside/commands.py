"""python -m goloop ps | dump | top | stats | trace: the arguments, and what is printed."""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

from goloop.debug._outside import client, processes, remote, text

MAX_TRACE = 600.0  # seconds
PREPARING = 600.0  # seconds that a program may take to put a large trace into words; it takes one or two as a rule
PS = 3.0  # seconds that ps waits for each


def run(args: Sequence[str]) -> int:
    """Run a command; return the exit status. 1: it could not be done, and standard error says why. 2: bad usage."""
    options = _parser().parse_args(args)
    try:
        command: Callable[[argparse.Namespace], None] = options.command
        command(options)
        sys.stdout.flush()
    except client.Trouble as exc:
        print(f"python -m goloop {args[0]}: {exc}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # `… | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m goloop",
        description="Look into a running program. It has to be this user's, and to have opened its door: "
        "GOLOOP_DEBUG=1 or goloop.debug.serve(). From Python 3.14 on the door is opened from here.",
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, command: Callable[[argparse.Namespace], None], what: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=what, description=what, allow_abbrev=False)
        added.set_defaults(command=command)
        if name != "ps":
            added.add_argument("pid", type=_pid, metavar="PID", help="the number of the process, as ps has it")
        return added

    as_json = {"action": "store_true", "help": "print JSON"}
    add("ps", _ps, "List the programs that can be looked into.").add_argument("--json", **as_json)  # type: ignore[arg-type]
    add("dump", _dump, "Show every task and goroutine, and what it waits for.").add_argument("--json", **as_json)  # type: ignore[arg-type]
    top = add("top", _top, "Show loops, lag, the busiest functions and the slowest waits, live (needs goloop[top]).")
    top.add_argument("-d", "--delay", type=_delay, default=1.0, metavar="SECONDS", help="between two looks; default 1")
    top.add_argument("-n", "--count", type=_count, metavar="N", help="end after N looks")
    add("stats", _stats, "Show the numbers: lag, throughput, time by function.").add_argument("--json", **as_json)  # type: ignore[arg-type]
    trace = add("trace", _trace, "Record what runs when, as a file for Perfetto (ui.perfetto.dev) or chrome://tracing.")
    trace.add_argument("-s", "--seconds", type=_trace_seconds, default=5.0, help="how long to record; default 5")
    trace.add_argument("-o", "--output", default="trace.json", metavar="FILE", help="default trace.json; -: stdout")
    return parser


def _pid(said: str) -> int:
    if not said.isdecimal() or not 0 < int(said) < 2**31:
        raise argparse.ArgumentTypeError(f"{said!r} is no number of a process")
    return int(said)


def _count(said: str) -> int:
    if not said.isdecimal() or not int(said):
        raise argparse.ArgumentTypeError(f"{said!r} is no number from 1 on")
    return int(said)


def _seconds(said: str, low: float, high: float) -> float:
    try:
        seconds = float(said)
    except ValueError:
        seconds = -1.0
    if not low <= seconds <= high:
        raise argparse.ArgumentTypeError(f"{said!r} is no number of seconds from {low:g} to {high:g}")
    return seconds


def _delay(said: str) -> float:
    return _seconds(said, 0.1, 3600)


def _trace_seconds(said: str) -> float:
    return _seconds(said, 0.01, MAX_TRACE)


def _connect(pid: int) -> client.Connection:
    """Return a connection with the process, whose door is opened if that is possible from here."""
    if not processes.exists(pid):
        raise client.Trouble(f"there is no process {pid}")
    if os.geteuid() not in (0, owner := processes.owner(pid)):
        raise client.Trouble(f"process {pid} belongs to user {owner}: only that user and root may look into it")
    return client.connect(pid) or remote.open_door(pid)


# ------------------------------------------------------------- the commands
def _ps(options: argparse.Namespace) -> None:
    found: list[dict[str, Any]] = []
    for pid, said in client.everybody("summary", PS):
        if pid != os.getpid():
            known = {"error": str(said)} if isinstance(said, client.Trouble) else json.loads(said)
            found.append({**known, "pid": pid, "command": processes.command(pid)})
    if options.json:
        print(json.dumps(found, indent=2))
    elif found:
        print(text.ps(found))
    else:
        print(
            "No program has opened its door: start one with GOLOOP_DEBUG=1, or let it call goloop.debug.serve().",
            file=sys.stderr,
        )


def _dump(options: argparse.Namespace) -> None:
    with _connect(options.pid) as connection:
        _write(connection.ask("dump", format="json" if options.json else "text", patience=60.0))


def _stats(options: argparse.Namespace) -> None:
    with _connect(options.pid) as connection:
        answer = connection.ask("stats")
    if options.json:
        _write(answer)
    else:
        print(text.stats(json.loads(answer)))


def _top(options: argparse.Namespace) -> None:
    try:
        from goloop.debug._outside import top
    except ImportError:
        raise client.Trouble("top is drawn by rich: pip install 'goloop[top]'") from None
    with _connect(options.pid) as connection:
        top.show(connection, options.delay, options.count)


def _trace(options: argparse.Namespace) -> None:
    with _connect(options.pid) as connection:
        if options.output == "-":
            _write(_ask_trace(connection, options.seconds))
            return
        try:
            size = _save(os.path.realpath(options.output), lambda: _ask_trace(connection, options.seconds))
        except OSError as exc:
            raise client.Trouble(f"{options.output} cannot be written: {exc.strerror}") from None
    print(f"{options.output}: {size:,} bytes; open it in ui.perfetto.dev or chrome://tracing", file=sys.stderr)


def _save(path: str, make: Callable[[], bytes]) -> int:
    """Write what make() returns to a file, whole or not at all; return its size. A pipe or device is written to.

    The file is opened before make() is called, so a place that cannot be written to is an error at once.
    """
    if os.path.exists(path) and not os.path.isfile(path):
        with open(path, "wb") as special:
            return special.write(make())
    handle, part = tempfile.mkstemp(prefix=f".{os.path.basename(path)}.", dir=os.path.dirname(path))
    try:
        with os.fdopen(handle, "wb") as file:
            size = file.write(make())
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(part, 0o666 & ~umask)
        os.replace(part, path)
    except BaseException:
        os.unlink(part)
        raise
    return size


def _ask_trace(connection: client.Connection, seconds: float) -> bytes:
    return connection.ask("trace", seconds=seconds, patience=seconds + PREPARING)


def _write(answer: bytes) -> None:
    sys.stdout.buffer.write(answer)
    if not answer.endswith(b"\n"):
        sys.stdout.buffer.write(b"\n")
