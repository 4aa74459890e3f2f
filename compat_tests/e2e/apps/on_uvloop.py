"""python on_uvloop.py -m MODULE [ARGUMENTS]: run a module on uvloop, as python -m goloop does on goloop."""

from __future__ import annotations

import runpy
import sys

import loops

if __name__ == "__main__":
    loops.install()
    sys.argv[:] = sys.argv[2:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
