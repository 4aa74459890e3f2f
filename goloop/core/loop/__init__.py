"""The loop itself: handles, the ready queue, ownership of a loop."""
