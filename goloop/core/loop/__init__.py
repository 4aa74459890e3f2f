"""The loop itself: handles, the ready queue, who owns a loop."""
