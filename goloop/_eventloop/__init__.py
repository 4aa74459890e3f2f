"""The event loop: what of it stays in Python."""
