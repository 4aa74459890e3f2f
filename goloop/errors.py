"""Exceptions of goloop's own."""


class ChannelClosed(Exception):
    """Receiving from a channel that is closed and drained, sending on a closed one, or closing it twice."""
