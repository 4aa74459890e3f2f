"""What is measured: functions for child.py, and the cases made of them."""
