"""Channels, locks and timers for goroutines, coroutines and threads."""
