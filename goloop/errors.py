"""Exceptions of goloop's own."""


class ChannelClosed(Exception):
    """Receiving from a channel that is closed and drained, sending on a closed one, or closing it twice."""


class ClosedError(OSError):
    """Using a connection or listener of goloop.net that was closed, also while the call waits (Go: net.ErrClosed).

    Its errno is EBADF.
    """


class Canceled(Exception):
    """A context was cancelled (Go: context.Canceled)."""


class DeadlineExceeded(TimeoutError):
    """A context's deadline has passed (Go: context.DeadlineExceeded)."""
