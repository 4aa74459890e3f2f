"""Adapters for other people's programs, one module each. None is imported by goloop itself."""
