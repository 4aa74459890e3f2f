"""The workloads: functions for child.py, and the cases made of them."""

from __future__ import annotations

_kept: list[object] = []


def keep(thing: object) -> None:
    """Hold on to something, a server for example, until the process ends. Not every loop takes attributes."""
    _kept.append(thing)
