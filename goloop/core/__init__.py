"""The compiled core: read HACKING.md beside this file before touching it."""
