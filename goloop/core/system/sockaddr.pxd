from libc.stdint cimport uint8_t, uint16_t, uint32_t


cdef extern from "sys/socket.h" nogil:
    enum:
        AF_UNSPEC
        AF_INET
        AF_INET6
        AF_UNIX
        SOCK_STREAM
        SOCK_NONBLOCK
        SOCK_CLOEXEC
        MSG_NOSIGNAL
    ctypedef unsigned int socklen_t
    struct sockaddr:
        pass
    struct sockaddr_storage:
        uint16_t ss_family

cdef extern from "netinet/in.h" nogil:
    enum:
        IPPROTO_TCP


# An address as the kernel takes and gives it; length 0: none.
cdef struct Address:
    sockaddr_storage storage
    socklen_t length


cdef int raw_family(object sock) except -2
cdef int raw_kind(object sock) except -2
cdef int raw_proto(object sock) except -2
cdef bint known(int family) noexcept
cdef object unpack(Address *address)
# Write a numeric address of IPv4 or IPv6 as inet_pton() knows it; False if the text is none of that family.
cdef bint fill(const char *host, int port, int family, Address *address) noexcept
cdef bint pack(object value, int family, Address *address) except -1
cdef bytes sockaddr_of(int fd, bint peer)       # one end's address as the kernel gives it; b"" for none
# As Go writes it: 127.0.0.1:80, [::1]:80, a path, @name for an abstract one; "" for none.
cdef str format_go(bytes raw)
cdef object local_address(object sock, int fd, int family)
