"""The numbers of the last minutes, so that the graphs of a page that has just been opened are not empty."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import Any

from goloop.debug._collect import snapshot
from goloop.debug._door import summaries
from goloop.debug._stats import Stats, stats

INTERVAL = 1.0  # seconds between two samples
KEPT = 600  # samples
SHARE = 50  # a snapshot is taken after so many times the time that the last one took: at most 2 % of one processor


class History:
    """Samples, the oldest first. Used on the page's loop."""

    def __init__(self) -> None:
        self.samples: deque[dict[str, Any]] = deque(maxlen=KEPT)
        self._earlier: tuple[float, Stats] | None = None
        self._next_look = 0.0
        self._seen: dict[str, Any] = {"tasks": 0, "connections": 0, "stuck": 0.0}

    async def run(self) -> None:
        """Take a sample now and after every INTERVAL, until it is cancelled."""
        while True:
            self.sample()
            await asyncio.sleep(INTERVAL)

    def sample(self) -> None:
        """Take one sample."""
        self._look()
        now, found = time.monotonic(), stats()
        if self._earlier is not None:
            before, was = self._earlier
            self.samples.append(
                {
                    "time": found.time,
                    **_rates(found, was, now - before),
                    "goroutines": sum(found.goroutines.values()),
                    **self._seen,
                }
            )
        self._earlier = now, found

    def _look(self) -> None:
        """Take a snapshot, if that is cheap enough by now."""
        begun = time.monotonic()
        if begun >= self._next_look:
            seen = snapshot()
            self._seen = {
                "tasks": len(seen.tasks) + seen.omitted.get("tasks", 0),
                "connections": len(seen.connections) + seen.omitted.get("connections", 0),
                "stuck": max((summaries.running_for(seen, loop) for loop in seen.loops), default=0.0),
            }
            self._next_look = begun + SHARE * (time.monotonic() - begun)


def _rates(now: Stats, was: Stats, seconds: float) -> dict[str, float]:
    """Return what has happened a second between two looks, and how long what was due had to wait."""
    before = {loop.number: loop for loop in was.loops}
    pairs = [(loop, before[loop.number]) for loop in now.loops if loop.number in before]
    lags = [loop.lag - earlier.lag for loop, earlier in pairs]

    def rate(name: str) -> float:
        return max(0.0, sum(float(getattr(loop, name) - getattr(earlier, name)) for loop, earlier in pairs) / seconds)

    return {
        "lag": max((lag.quantile(1.0) for lag in lags), default=0.0),
        "busy": min(rate("busy"), len(pairs)),  # one callback counts when it ends, with all its time
        "callbacks": rate("callbacks"),
        "received": rate("received") + max(0.0, (now.received - was.received) / seconds),
        "written": rate("written") + max(0.0, (now.written - was.written) / seconds),
        "accepts": rate("accepts") + max(0.0, (now.accepts - was.accepts) / seconds),
        "cpu": (now.cpu - was.cpu) / seconds,
    }
