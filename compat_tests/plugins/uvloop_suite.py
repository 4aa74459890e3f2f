"""Puts the loop under test into uvloop's own suite, whose cases name uvloop where asyncio's name the policy.

The cases with `UV` in their names run on every loop: their base class gets the loop, the policy and the
name of the implementation; uvloop.new_event_loop, uvloop.Loop and uvloop.EventLoopPolicy are replaced for the tests
that name them, and NEW_LOOP for the programs that the signal tests start.
"""

from __future__ import annotations

import asyncio
import importlib
import os
from typing import Any

import pytest
import uvloop
from loop_under_test import LOOPS, UNDER_TEST
from uvloop import _testbase

NAME = os.environ.get("COMPAT_LOOP", "asyncio")
MODULE, _, MAKE = LOOPS[NAME]


def policy() -> Any:
    module = importlib.import_module(MODULE)
    if NAME == "asyncio":
        return asyncio.get_event_loop_policy().__class__()
    return module.EventLoopPolicy()


if NAME != "uvloop":
    uvloop.new_event_loop = uvloop.Loop = UNDER_TEST
    uvloop.EventLoopPolicy = policy

_testbase.UVTestCase.implementation = NAME
_testbase.UVTestCase.new_loop = lambda self: UNDER_TEST()
_testbase.UVTestCase.new_policy = lambda self: policy()


def pytest_pycollect_makeitem(collector: pytest.Collector, name: str, obj: object) -> None:
    if isinstance(obj, type) and issubclass(obj, _testbase.UVTestCase) and hasattr(obj, "NEW_LOOP"):
        obj.NEW_LOOP = f"__import__({MODULE!r}).{MAKE}()"
