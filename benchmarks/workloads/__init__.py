"""The workloads: functions for child.py, and the cases made of them."""
