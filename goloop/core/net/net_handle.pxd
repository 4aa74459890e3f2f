from goloop.core.net.polldesc cimport PollDesc


# What a Listener, a PacketConn and a Conn are: a descriptor that is closed once. Guard: the GIL.
cdef class NetHandle:
    cdef PollDesc desc            # never_opened until the subclass has made its own

    cdef str ends(self)                   # for the representation: its addresses
    cdef int abandon(self) except -1      # close it when it is collected

# A handle that is read from and written to.
cdef class DuplexHandle(NetHandle):
    pass


# What all of them do, for stats().
cdef void count_received(Py_ssize_t n) noexcept
cdef void count_written(Py_ssize_t n) noexcept
cdef void count_accepted() noexcept


cdef object with_socket(PollDesc desc, str method, tuple args)
