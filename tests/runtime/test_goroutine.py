"""go() and what its handle tells: results, exceptions, waiting from goroutines, coroutines and threads."""

import goloop


def test_a_result():
    assert goloop.go(divmod, 7, 2).result() == (3, 1)
