"""A trace for somebody outside: begun, and brought to the bytes of its file. One at a time, as all traces."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from goloop.debug._trace import Trace, start_trace, stop_trace

LONGEST = 600.0  # seconds


class Recording:
    """The trace of a recording() block, once that has ended."""

    trace: Trace

    def content(self) -> bytes:
        """Return the file, for Perfetto and Chrome. It takes seconds for a large one, in any thread."""
        return "".join(self.trace.chunks()).encode()


@contextlib.contextmanager
def recording() -> Iterator[Recording]:
    """Record what happens during the block. RuntimeError if a trace is made already, or somebody ends this one."""
    start_trace()
    made = Recording()
    try:
        yield made
    except BaseException:
        with contextlib.suppress(RuntimeError):  # it has been ended, and another exception is on its way
            stop_trace()
        raise
    made.trace = stop_trace()
