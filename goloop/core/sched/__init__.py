"""Goroutines: the scheduler, waits, the monitor, handoff."""
