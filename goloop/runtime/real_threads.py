"""Whether threading.Thread starts a thread: where gevent has patched it, a greenlet of the caller's runs instead."""

from __future__ import annotations

import sys


def require_threads() -> None:
    """RuntimeError where threads are greenlets: the caller would wait for them for ever."""
    monkey = sys.modules.get("gevent.monkey")
    if monkey is not None and monkey.is_module_patched("threading"):
        raise RuntimeError(
            "goloop needs threads, and gevent.monkey has replaced them by greenlets: use patch_all(thread=False), or "
            "goloop.monkey.patch_all() instead of gevent's"
        )
