"""python -m goloop [options] (script | folder | zip file | - | -m module | -c code) [arguments]: run any program with
goloop as its event loop. python -m goloop ps | dump | top | stats | trace: look into one that runs.

The program gets what python itself would give it: its own __main__, sys.argv, sys.path, tracebacks and exit status.
"""

from __future__ import annotations

import argparse
import io
import os
import pkgutil
import runpy
import sys
from importlib.machinery import BuiltinImporter, SourceFileLoader, SourcelessFileLoader
from types import CodeType, ModuleType
from typing import Any

import goloop
from goloop import _environment, _takeover

_COMMANDS = {
    "ps": "list the programs that can be looked into",
    "dump": "show every task and goroutine of one, and what it waits for",
    "top": "show its loops, busiest functions and slowest waits, live",
    "stats": "show its numbers",
    "trace": "record what it runs when",
}


def main() -> None:
    """Run the program that the command line names, or the command. (A program with the name of one: ./ps.)"""
    if sys.argv[1:2] and sys.argv[1] in _COMMANDS:
        from goloop.debug._outside import commands

        sys.exit(commands.run(sys.argv[1:]))
    own, arguments = _split(sys.argv[1:])
    options = _parse(own)
    # Set in the environment, they hold for every loop, those of child processes included.
    for wanted, variable in (
        (options.handoff, "GOLOOP_HANDOFF"),
        (options.watch, "GOLOOP_WATCH"),
        (options.debug, "PYTHONASYNCIODEBUG"),
        (options.monkey, "GOLOOP_MONKEY"),
    ):
        if wanted:
            os.environ[variable] = "1"
    if options.monkey:
        goloop.monkey.patch_all()  # the import of goloop was before
    _takeover.report_at_exit()
    goloop.install()
    program_main = _new_main_module()
    try:
        if options.module is not None:
            sys.argv[:] = ["-m", *arguments]  # the module's file takes the first place
            runpy._run_module_as_main(options.module)  # type: ignore[attr-defined]
        elif options.code is not None:
            sys.argv[:] = ["-c", *arguments]
            _run_code(options.code, program_main)
        else:
            sys.argv[:] = [options.program, *arguments]
            _run_program(options.program, program_main)
    except SystemExit:
        raise
    except BaseException:
        _hide_launcher()
        raise


# ---------------------------------------------------------------- arguments
def _split(args: list[str]) -> tuple[list[str], list[str]]:
    """Return the launcher's arguments, up to the one that names the program, and the program's own."""
    for i, arg in enumerate(args):
        if arg in ("-m", "-c"):
            value = args[i + 1 : i + 2]
            if value and value[0].startswith("-"):
                return [*args[:i], arg + value[0]], args[i + 2 :]  # in one piece it does not look like an option
            return args[: i + 2], args[i + 2 :]
        if arg == "--":
            return args[: i + 2], args[i + 2 :]
        if arg == "-" or arg.startswith(("-m", "-c")) or not arg.startswith("-"):
            return args[: i + 1], args[i + 1 :]
    return args, []


def _parse(args: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m goloop",
        description="Run a Python program, unchanged, with goloop as its asyncio event loop.",
        usage="%(prog)s [-h] [--version] [--handoff] [--monkey] [--watch] [--debug]"
        " (PROGRAM | -m MODULE | -c CODE) [ARGUMENTS]\n"
        "       %(prog)s (ps | dump PID | top PID | stats PID | trace PID)",
        epilog=f"{_describe_commands()}\n\n{_environment.describe()}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"goloop {goloop.__version__}")
    parser.add_argument("--handoff", action="store_true", help="as GOLOOP_HANDOFF=1")
    parser.add_argument("--monkey", action="store_true", help="as GOLOOP_MONKEY=1")
    parser.add_argument("--watch", action="store_true", help="as GOLOOP_WATCH=1")
    parser.add_argument("--debug", action="store_true", help="asyncio's debug mode, as PYTHONASYNCIODEBUG=1")
    program = parser.add_mutually_exclusive_group(required=True)
    program.add_argument("-m", dest="module", metavar="MODULE", help="a module or package to run")
    program.add_argument("-c", dest="code", metavar="CODE", help="a program as text")
    program.add_argument(
        "program", nargs="?", metavar="PROGRAM", help="a script, or a folder or zip file with a __main__.py; -: stdin"
    )
    options = parser.parse_args(args)
    if options.debug and sys.flags.ignore_environment:
        parser.error("--debug cannot reach the loops, because python was started with -E or -I")
    return options


def _describe_commands() -> str:
    lines = ["commands that look into a running program (COMMAND --help says more):"]
    return "\n".join([*lines, *(f"  {name:7}{what}" for name, what in _COMMANDS.items())])


# --------------------------------------------------------------- the program
def _new_main_module() -> ModuleType:
    """Put the program's __main__ in the place of this one, as python makes it before it knows the program."""
    module = ModuleType("__main__")
    module.__loader__ = BuiltinImporter
    if sys.version_info < (3, 14):
        module.__annotations__ = {}
    sys.modules["__main__"] = module
    return module


def _run_code(text: str, main: ModuleType) -> None:
    if sys.version_info >= (3, 14):
        import textwrap

        text = textwrap.dedent(text)
    _set_first_path("")
    exec(compile(text, "<string>", "exec", dont_inherit=True), main.__dict__)


def _run_program(name: str, main: ModuleType) -> None:
    if name == "-":
        _set_first_path("")
        _set_file(main, "<stdin>")
        text = sys.stdin.buffer.read() if sys.stdin is not None else b""
        exec(compile(text, "<stdin>", "exec", dont_inherit=True), main.__dict__)
        return
    path = os.path.join(os.getcwd(), name)
    if pkgutil.get_importer(path) is not None:
        if sys.flags.safe_path:
            sys.path.insert(0, path)  # python does so all the same
        _set_first_path(path)
        runpy._run_module_as_main("__main__", alter_argv=False)  # type: ignore[attr-defined]
        return
    code, loader = _load(path)
    _set_first_path(os.path.dirname(os.path.realpath(path)))
    _set_file(main, path)
    main.__loader__ = loader
    exec(code, main.__dict__)


def _load(path: str) -> tuple[CodeType, Any]:
    try:
        with io.open_code(path) as file:
            content = file.read()  # once: it may be a pipe
    except OSError as exc:
        sys.stderr.write(f"python -m goloop: can't open file {path!r}: [Errno {exc.errno}] {exc.strerror}\n")
        sys.exit(2)
    code = pkgutil.read_code(io.BytesIO(content))
    if code is not None:
        return code, SourcelessFileLoader("__main__", path)
    return compile(content, path, "exec", dont_inherit=True), SourceFileLoader("__main__", path)


def _set_first_path(entry: str) -> None:
    """Replace the current folder, which python put in front for this module, by what the program has there."""
    if not sys.flags.safe_path:
        sys.path[0] = entry


def _set_file(main: ModuleType, path: str) -> None:
    main.__file__ = path
    if sys.version_info < (3, 15):
        main.__cached__ = None  # type: ignore[attr-defined]


def _hide_launcher() -> None:
    """Let the traceback that python is about to print begin where the program does."""
    program_hook = getattr(sys, "excepthook", sys.__excepthook__)

    def excepthook(kind: Any, value: Any, traceback: Any) -> None:
        sys.excepthook = program_hook
        entry = traceback
        while entry is not None:
            if entry.tb_frame.f_code.co_filename == main.__code__.co_filename:
                traceback = entry.tb_next
            entry = entry.tb_next
        sys.last_traceback = traceback
        program_hook(kind, value.with_traceback(traceback), traceback)

    sys.excepthook = excepthook


if __name__ == "__main__":
    main()
