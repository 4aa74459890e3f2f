"""A subinterpreter cannot have goloop, and is told so; the main interpreter of the process is not disturbed."""

import pytest

from tests.helpers.scripts import run_python

PROGRAM = """
import sys
try:
    import _interpreters as interpreters
except ImportError:
    import _xxsubinterpreters as interpreters

kind, order = sys.argv[1:]
if order == "before":
    import goloop
if sys.version_info >= (3, 13):
    other = interpreters.create(kind)
else:
    other = interpreters.create(isolated=kind == "isolated")
interpreters.run_string(other, '''
try:
    import goloop
except ImportError as exc:
    print(exc)
''')
interpreters.destroy(other)
import asyncio, goloop
print(goloop.run(asyncio.sleep(0, "the main one works")))
"""


@pytest.mark.parametrize("order", ["before", "after"])
@pytest.mark.parametrize("kind", ["isolated", "legacy"])
def test_the_import_fails_in_a_subinterpreter_with_a_clear_sentence(kind, order):
    done = run_python("-c", PROGRAM, kind, order)
    assert (done.returncode, done.stderr) == (0, "")
    said, works = done.stdout.splitlines()
    assert said.startswith("goloop works in the main interpreter of a process only, not in a subinterpreter")
    assert works == "the main one works"
