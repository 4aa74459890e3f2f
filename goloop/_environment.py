"""The environment variables that goloop knows: one table, and one strict way to read them.

This module stands below everything else of goloop, the compiled core included, and imports none of it. Each get()
reads a value anew, so a program can set a variable before it makes a loop. The import of goloop looks at all of them.
"""

from __future__ import annotations

import os
import signal
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

PREFIX = "GOLOOP_"

_SWITCH = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}


class Variable(NamedTuple):
    """One variable. parse: returns the setting for a text in lower case, or None for a text that is none."""

    parse: Callable[[str], Any]
    default: Any
    values: str  # what an error says about the variable
    meaning: str
    exact: bool = False  # parse gets the text as it is


def _one_of(*words: str) -> Callable[[str], str | None]:
    return lambda text: text if text in words else None


def _count(text: str) -> int | None:
    """Return a whole number, at least 1."""
    return int(text) if text.isascii() and text.isdigit() and int(text) else None


def _seconds(text: str) -> float | None:
    """Return a number of seconds, at least 0."""
    try:
        seconds = float(text)
    except ValueError:
        return None
    return seconds if 0 <= seconds < float("inf") else None


def _absolute_path(text: str) -> str | None:
    return text if os.path.isabs(text) and "\0" not in text else None


def _switch(meaning: str) -> Variable:
    return Variable(_SWITCH.get, None, "must be one of 1/0, true/false, yes/no, on/off", meaning)


def _signal_or_switch(text: str) -> Any:
    """Return a signal's number, False for none."""
    if text in _SWITCH:
        return signal.SIGQUIT if _SWITCH[text] else False
    found = getattr(signal, f"SIG{text.upper().removeprefix('SIG')}", None)
    return found if isinstance(found, signal.Signals) else None


VARIABLES = {
    "GOLOOP_DEBUG": _switch(
        "1: let `python -m goloop ps` and its like look into the program (goloop.debug.serve()). Default: 0. Read at "
        "the import."
    ),
    "GOLOOP_DEBUG_DIR": Variable(
        _absolute_path,
        None,
        "is an absolute path",
        "The folder for the sockets of goloop.debug.serve(), the same for a program and for those who look into it. "
        "Default: /tmp/goloop-UID.",
        exact=True,
    ),
    "GOLOOP_DUMP": Variable(
        _signal_or_switch,
        None,
        "must be one of 1/0, true/false, yes/no, on/off, or the name of a signal, such as USR2",
        "1: SIGQUIT (Ctrl-\\) writes a dump of all tasks and goroutines to the standard error, and the program goes "
        "on. The name of a signal: that one does. Default: 0. Read at the import.",
    ),
    "GOLOOP_HANDOFF": _switch(
        "1: while a callback is stuck in a blocking call, another thread runs the loop's other callbacks. "
        "Default: 0. Loop(handoff=...) and run(handoff=...) go first."
    ),
    "GOLOOP_IO": Variable(
        _one_of("inline", "offload", "auto"),
        "auto",
        "must be one of inline, offload, auto",
        "Which thread does the kernel work of streams: the loop's (inline), the netpoller's (offload), or the "
        "netpoller's while that pays (auto, the default).",
    ),
    "GOLOOP_MAXTHREADS": Variable(
        _count,
        512,
        "is a number of threads, at least 1",
        "How many threads goloop starts at most for goroutines and stuck loops. Default: 512. Read at the import.",
    ),
    "GOLOOP_MONKEY": _switch(
        "1: patch the standard library, so that it parks goroutines instead of blocking their threads "
        "(goloop.monkey.patch_all()). Default: 0. Read at the import."
    ),
    "GOLOOP_PANIC": Variable(
        _one_of("report", "crash"),
        "report",
        "must be one of report, crash",
        "What becomes of an exception in a goroutine that no join() or await receives: the loop's exception handler "
        "is told (report, the default), or the process ends with status 2 (crash). Read at the import.",
    ),
    "GOLOOP_SCHEDTRACE": Variable(
        _count,
        None,
        "is a number of milliseconds, at least 1",
        "Print a line about workers, goroutines and loops to stderr every so many milliseconds (Go: schedtrace). "
        "Default: none. Read at the import.",
    ),
    "GOLOOP_SHUTDOWN_TIMEOUT": Variable(
        _seconds,
        5.0,
        "is a number of seconds, at least 0",
        "How long cancelled goroutines have for their clean-up, when their loop closes and at exit. Default: 5 s. "
        "Read at the import.",
    ),
    "GOLOOP_WATCH": _switch(
        "1: report callbacks that are stuck, while they are. Default: 1 in asyncio's debug mode, else 0. "
        "Loop(watch=...) and run(watch=...) go first."
    ),
}


def get(name: str) -> Any:
    """Return what a variable says: the default where it is unset or empty. ValueError where it is none of its values.

    A switch is a bool, and None where it is unset.
    """
    text = os.environ.get(name, "")
    return parse(name, text) if text else VARIABLES[name].default


def parse(name: str, text: str) -> Any:
    """Return what a variable says with this text, in any case of its letters unless they are a path's. ValueError for
    other texts."""
    variable = VARIABLES[name]
    setting = variable.parse(text if variable.exact else text.lower())
    if setting is None:
        raise ValueError(f"{name} {variable.values}, not {text!r}")
    return setting


def check() -> None:
    """Read every variable, and warn of names that start as goloop's do and are not known. Called at the import."""
    for name in VARIABLES:
        get(name)
    for name in sorted(os.environ):
        if name.startswith(PREFIX) and name not in VARIABLES:
            warnings.warn(
                f"{name} is not an environment variable of goloop; the closest one is {_closest(name)}",
                RuntimeWarning,
                stacklevel=3,
            )


def describe() -> str:
    """Return what `python -m goloop --help` says of the variables."""
    from textwrap import fill

    lines = ["environment variables (an empty one counts as unset):"]
    for name, variable in VARIABLES.items():
        lines += [f"  {name}", fill(variable.meaning, 100, initial_indent=" " * 6, subsequent_indent=" " * 6)]
    return "\n".join(lines)


def _closest(name: str) -> str:
    from difflib import get_close_matches  # only a mistake needs it

    return get_close_matches(name.upper(), list(VARIABLES), n=1, cutoff=0.0)[0]
