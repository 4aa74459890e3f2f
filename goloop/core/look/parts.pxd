cdef class Shape:
    cdef object cls
    cdef Py_ssize_t *offsets          # of the fields, in the order in which make() takes them
    cdef Py_ssize_t count

    cdef object make(self, tuple values)


cdef tuple untracked(tuple made)  # whose items the collector need not look at
cdef str key_text(const char *kind, size_t number)       # "task-7f…"
cdef object name_of(object function)          # the qualified name of anything callable, without running its code
cdef object places_of(object frame)           # (code, instruction) of a frame and those that called it, outermost first
cdef object places_above(object frame, object base)   # without `base` and what called that
cdef object place_of(object frame)            # of one frame
cdef list referents(object o)  # what an object refers to directly
cdef object field(object o, str name)         # an attribute that is a plain value, or None: no code of the program runs
cdef bint is_a(object o, object cls) noexcept  # by its type alone
cdef bint pause_gc() noexcept                 # whether the collector was on
cdef void resume_gc(bint on) noexcept
