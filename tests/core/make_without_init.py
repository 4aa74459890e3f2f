"""Make every extension type of goloop without its __init__(), and call each of its methods, in a process for each type.

Prints a line for each type that does not survive it. An argument: the name of one type, to see what the calls give.
"""

import asyncio
import importlib
import inspect
import os
import pkgutil
import signal
import sys
import warnings

import goloop
import goloop.core
import goloop.monkey

HEAP = 1 << 9  # Py_TPFLAGS_HEAPTYPE: a class that was made by Python code
SECONDS = 60  # for what takes milliseconds

WAITS = {"_run_once", "_drive", "_run_until_stopped"}  # for the world, by design
CALLED_TOO = {"__init__", "__repr__", "__hash__", "__eq__", "__reduce_ex__"}  # of what every object has


def extension_types():
    found = []
    for info in pkgutil.walk_packages(goloop.core.__path__, "goloop.core."):
        module = importlib.import_module(info.name)
        for value in vars(module).values():
            if isinstance(value, type) and value.__module__ == module.__name__ and not value.__flags__ & HEAP:
                found.append(value)
    return found


def careless(kind):
    """A subclass that forgets super().__init__(); None where there can be none."""
    try:
        return type("Careless", (kind,), {"__init__": lambda self, *args: None})
    except TypeError:
        return None  # final


def instances(kind, loop):
    """Those that can be made at all, with whatever its __cinit__() takes."""
    subclass = careless(kind)
    for args in ((), (loop,), (1,), (loop, goloop.core.poll.pollset.PollSet())):
        for make in (lambda args=args: kind.__new__(kind, *args), lambda args=args: subclass(*args)):
            try:
                thing = make()
            except Exception:
                continue  # it needs something else, or is not to be made at all
            yield thing


def arguments(thing):
    return (), (None,), (0,), (1.5,), (b"x",), (print,), (thing,), (None, None), (print, 1), (None, None, None)


def outcome(call, args):
    try:
        result = call(*args)
        if inspect.iscoroutine(result):
            try:
                result.send(None)
            finally:
                result.close()
        return type(result).__name__
    except BaseException as exc:
        return f"{type(exc).__name__}: {exc}"


def try_all(kind, loop, say):
    for thing in instances(kind, loop):
        for name in dir(kind):
            if name in WAITS or (name in vars(object) and name not in CALLED_TOO):
                continue
            say(f"{type(thing).__name__}.{name}")
            try:
                value = getattr(thing, name)
            except BaseException as exc:
                say(f"  {exc!r}")
                continue
            if callable(value):
                for args in arguments(thing):
                    say(f"  {args!r:.60}: {outcome(value, args)}")
        say(repr(thing))
        del thing


async def on_a_loop(kind, say):
    """On the thread of a running loop whatever would block raises instead."""
    try_all(kind, asyncio.get_running_loop(), say)


def child(kind, say):
    signal.alarm(SECONDS)
    warnings.simplefilter("ignore")
    loop = goloop.new_event_loop()
    loop.set_exception_handler(lambda loop, context: None)
    loop.run_until_complete(on_a_loop(kind, say))


def status_of(kind):
    pid = os.fork()
    if pid == 0:
        with open(os.devnull, "w") as null:
            os.dup2(null.fileno(), 2)
            os.dup2(null.fileno(), 1)
        status = 1
        try:
            child(kind, lambda text: None)
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def main():
    if sys.argv[1:]:
        for kind in extension_types():
            if kind.__name__ == sys.argv[1]:
                child(kind, lambda text: print(text, flush=True))
        return
    for kind in extension_types():
        status = status_of(kind)
        if status:
            how = signal.Signals(-status).name if status < 0 else f"status {status}"
            print(f"{kind.__module__}.{kind.__name__}: {how}", flush=True)


if __name__ == "__main__":
    main()
