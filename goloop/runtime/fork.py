"""What a fork of the process means to goloop: one table, in the order in which it is worked through.

The native threads look after themselves (pthread_atfork in netpoll.c and sysmon.c); what stands here needs Python.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from goloop._eventloop import signals
from goloop.core.sched import handoff, waiter
from goloop.core.sync import timer_thread
from goloop.runtime import helper_threads, substitutes, watch, workers

_in_child: list[Callable[[], None]] = [
    signals.after_fork_in_child,  # first: a signal to the child must not reach the parent's handlers
    waiter.after_fork_in_child,  # waits of the parent are void
    timer_thread.after_fork_in_child,
    workers.after_fork_in_child,
    helper_threads.after_fork_in_child,
    substitutes.after_fork_in_child,
    handoff.after_fork_in_child,
    watch.after_fork_in_child,
    # Behind these: what add() has brought, oldest first.
]


def install() -> None:
    """Tell Python of the table. Once."""
    os.register_at_fork(
        before=workers.before_fork,
        after_in_parent=handoff.after_fork_in_parent,
        after_in_child=_after_fork_in_child,
    )


def add(action: Callable[[], None]) -> None:
    """Call action() in forked children too, behind what is there. Once, however often it is added. Any thread."""
    if action not in _in_child:
        _in_child.append(action)


def _after_fork_in_child() -> None:
    for action in _in_child:
        action()
