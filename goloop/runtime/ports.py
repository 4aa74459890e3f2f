"""What the parts below the runtime ask of it: the one way in which they call upwards.

This module imports nothing of goloop. runtime.install puts an implementation in; until then nothing is offered.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol


class Runtime(Protocol):
    """What the runtime offers to loops and to the watch. Each method says which thread calls it."""

    def enable_handoff(self, loop: Any) -> None:
        """Let a new loop be handed off; the thread that makes it. RuntimeError where that is not possible."""

    def loop_starts(self, loop: Any, watched: bool) -> None:
        """run_forever() begins, in the thread that calls. watched: slow callbacks of the loop are reported."""

    def loop_stops(self, loop: Any) -> None:
        """run_forever() ends, in the thread that calls."""

    def loop_closes(self, loop: Any) -> None:
        """A loop is about to close: its goroutines end first. The thread that closes it."""

    def loop_closed(self, loop: Any) -> None:
        """A loop with handoff was closed; the thread that closed it."""

    def carry(self, job: Callable[[], None]) -> bool:
        """Run job() in a thread of its own, since it may block. False: there is no thread to be had. Any thread."""


class _Nothing:
    def enable_handoff(self, loop: Any) -> None:
        raise RuntimeError("goloop's runtime is not installed")

    def loop_starts(self, loop: Any, watched: bool) -> None:
        pass

    def loop_stops(self, loop: Any) -> None:
        pass

    def loop_closes(self, loop: Any) -> None:
        pass

    def loop_closed(self, loop: Any) -> None:
        pass

    def carry(self, job: Callable[[], None]) -> bool:
        return False


current: Runtime = _Nothing()


def set_runtime(runtime: Runtime) -> None:
    """Put the runtime in."""
    global current
    current = runtime
