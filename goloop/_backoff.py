"""How long to wait before the next attempt where nothing becomes ready when it could succeed.

A connect() to a Unix socket whose queue is full answers EAGAIN: nothing is under way, and no event tells that there
is room. The same holds for a datagram to a full receiver that the sender is not connected to. goloop.net,
goloop.monkey and the loop's socket methods try again after these pauses.
"""

from collections.abc import Iterator

_FIRST, _LAST = 0.001, 0.02  # seconds


def pauses() -> Iterator[float]:
    """Seconds to wait after each attempt, without an end."""
    pause = _FIRST
    while True:
        yield pause
        pause = min(2 * pause, _LAST)
