"""What runs with the standard library patched. Patching is for a whole process: tests/test_monkey.py starts one."""

import os
import socket
import threading

import pytest

from goloop import go, monkey

if os.environ.get("TESTS_PATCHED"):
    from tests.monkey import before  # noqa: F401  (things that exist before the patch)

    monkey.patch_all()
else:
    collect_ignore_glob = ["test_*.py"]


@pytest.fixture
def overlap():
    """Run a function in several goroutines and return the results, in order. More of them must have been inside of it
    at once than there were threads to block."""

    def overlap(function, n=8, limit=30):
        inside, threads, most = set(), set(), [0]

        def body(i):
            inside.add(i)
            most[0] = max(most[0], len(inside))
            threads.add(threading.get_ident())
            try:
                return function(i)
            finally:
                inside.discard(i)

        results = [g.result(limit) for g in [go(body, i) for i in range(n)]]
        assert most[0] > len(threads), f"{most[0]} of {n} at once, on {len(threads)} threads"
        return results

    return overlap


@pytest.fixture
def pair():
    left, right = socket.socketpair()
    with left, right:
        yield left, right
