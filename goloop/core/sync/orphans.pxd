cdef list awaiting_frames()
cdef list with_orphan(list orphans, list frames)
cdef bint consume(list orphans) except -1
