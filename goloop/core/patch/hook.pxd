ctypedef int (*gl_applies)() noexcept

cdef bint cooperative() noexcept      # a goroutine calls, that may park
cdef object install(object function, object replacement, gl_applies applies)
