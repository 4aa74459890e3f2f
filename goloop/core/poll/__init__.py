"""Readiness: the netpoller, the poll set of a loop, its timer heap."""

# Before pollset, whose library the fork handlers of this one have to be older than: they run in reverse order, and the
# netpoller, which is joined before a fork, may have to wait for what these lock.
import goloop.core.system.trace  # noqa: F401
