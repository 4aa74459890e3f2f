"""Exceptions of goloop's own. The bottom of the package: this module imports nothing."""


class GoloopError(Exception):
    """The base of every exception that goloop defines."""


class ChannelClosed(GoloopError):
    """Receiving from a channel that is closed and drained, sending on a closed one, or closing it twice."""


class ClosedError(GoloopError, OSError):
    """Using a connection or listener of goloop.net that was closed, also while the call waits (Go: net.ErrClosed).

    Its errno is EBADF.
    """


class Canceled(GoloopError):
    """A context was cancelled (Go: context.Canceled)."""


class DeadlineExceeded(GoloopError, TimeoutError):
    """A context's deadline has passed (Go: context.DeadlineExceeded)."""
