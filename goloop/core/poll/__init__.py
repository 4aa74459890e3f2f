"""Readiness: the netpoller, the poll set of a loop, its timer heap."""
