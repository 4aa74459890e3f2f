"""python -m goloop [-m module | script.py] [args...]: run any program with goloop as its event loop."""

from __future__ import annotations

import argparse
import os
import runpy
import sys

import goloop


def main() -> None:
    """Run the program that the command line names, as python itself would."""
    parser = argparse.ArgumentParser(
        prog="python -m goloop",
        description="Run a Python program with goloop as its asyncio event loop.",
        usage="python -m goloop [-h] [--version] (-m module | script.py) [args...]",
    )
    parser.add_argument("--version", action="version", version=f"goloop {goloop.__version__}")
    parser.add_argument("-m", dest="module", nargs=argparse.REMAINDER, help="a module to run, and its arguments")
    parser.add_argument("program", nargs=argparse.REMAINDER, help="a script to run, and its arguments")
    options = parser.parse_args()
    program = options.module if options.module is not None else options.program
    if not program:
        parser.error("a script or -m module is expected")

    goloop.install()
    sys.argv[:] = program
    if options.module is not None:
        runpy.run_module(program[0], run_name="__main__", alter_sys=True)
    else:
        if not os.path.exists(program[0]):
            parser.exit(2, f"python -m goloop: can't open file {program[0]!r}: No such file or directory\n")
        # As python does for a script: its folder, not the current one, comes first.
        sys.path[0] = os.path.dirname(os.path.abspath(program[0]))
        runpy.run_path(program[0], run_name="__main__")


if __name__ == "__main__":
    main()
