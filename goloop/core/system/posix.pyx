# cython: language_level=3, boundscheck=False, wraparound=False, freethreading_compatible=True
"""What every layer takes from the system: the exception for an errno, the descriptor of a file, the monotonic clock.

Any thread may call.
"""

from os import strerror as _strerror


cdef object os_error(int error):
    return OSError(error, _strerror(error))


cdef int fd_of(object fileobj) except -1:
    """asyncio's rule for what may stand for a descriptor."""
    cdef long fd
    if isinstance(fileobj, int):
        fd = fileobj
    else:
        try:
            fd = int(fileobj.fileno())
        except (AttributeError, TypeError, ValueError):
            raise ValueError(f"Invalid file object: {fileobj!r}") from None
    if fd < 0 or fd > 0x7fffffff:
        raise ValueError(f"Invalid file descriptor: {fd}")
    return <int>fd
