"""Channels and select: the public names of core.chan."""

from goloop.core.sync.chan import Chan, async_select, recv, select, send
from goloop.errors import ChannelClosed

__all__ = ["Chan", "ChannelClosed", "async_select", "recv", "select", "send"]
