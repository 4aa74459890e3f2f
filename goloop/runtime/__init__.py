"""Goroutines: the worker pool that they run on, and what happens to them in the end."""
