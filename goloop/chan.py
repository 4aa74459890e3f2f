"""Channels and select: the public names of core.chan, and what stands on it."""

from goloop._choose import async_choose, choose
from goloop._views import RecvChan, SendChan
from goloop.core.sync.chan import Chan, async_select, recv, select, send
from goloop.errors import ChannelClosed

__all__ = [
    "Chan",
    "ChannelClosed",
    "RecvChan",
    "SendChan",
    "async_choose",
    "async_select",
    "choose",
    "recv",
    "select",
    "send",
]
