"""What goloop.monkey needs of the core."""
