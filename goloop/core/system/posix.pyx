# cython: language_level=3, boundscheck=False, wraparound=False, freethreading_compatible=True
"""What every layer takes from the system: the exception for an errno, and the monotonic clock. Any thread may call."""

from os import strerror as _strerror


cdef object os_error(int error):
    return OSError(error, _strerror(error))
