"""What every subsystem needs of the operating system: addresses, errors, clocks."""
