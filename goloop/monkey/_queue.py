"""queue.SimpleQueue."""

from goloop.core.stdlocks import patch_simple_queue as patch

__all__ = ["patch"]
