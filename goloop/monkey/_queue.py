"""queue.SimpleQueue."""

from goloop.core.patch.std_locks import patch_simple_queue as patch

__all__ = ["patch"]
