# cython: language_level=3, boundscheck=False, wraparound=False, freethreading_compatible=True
"""Socket addresses between the kernel's form and the socket module's, for the families that matter.

What these functions do not know is left to the socket module: names that have to be resolved, families other than
IPv4, IPv6 and Unix. Any thread may call.
"""

import socket as _socket_module
from _socket import SocketType as _CSocket  # not through socket, where gevent puts its own
from os import fsdecode as _fsdecode

from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.unicode cimport PyUnicode_AsUTF8AndSize
from libc.string cimport memset, strlen


cdef extern from "sys/socket.h" nogil:
    int getsockname(int fd, sockaddr *address, socklen_t *length)
    int getpeername(int fd, sockaddr *address, socklen_t *length)

cdef extern from "sys/un.h" nogil:
    struct sockaddr_un:
        char sun_path[108]

cdef extern from "netinet/in.h" nogil:
    struct in_addr:
        pass
    struct in6_addr:
        uint8_t s6_addr[16]
    struct sockaddr_in:
        uint16_t sin_family
        uint16_t sin_port
        in_addr sin_addr
    struct sockaddr_in6:
        uint16_t sin6_family
        uint16_t sin6_port
        uint32_t sin6_flowinfo
        in6_addr sin6_addr
        uint32_t sin6_scope_id
    uint16_t htons(uint16_t x)
    uint16_t ntohs(uint16_t x)
    uint32_t htonl(uint32_t x)
    uint32_t ntohl(uint32_t x)
    bint IN6_IS_ADDR_V4MAPPED(in6_addr *address)

cdef extern from "net/if.h" nogil:
    enum:
        IF_NAMESIZE
    char *if_indextoname(unsigned int index, char *name)

cdef extern from "arpa/inet.h" nogil:
    const char *inet_ntop(int family, const void *address, char *text, socklen_t room)
    int inet_pton(int family, const char *text, void *address)

# The C socket type's own attributes. socket.socket puts enums in front of them, which cost more to make than a
# connection's other bookkeeping together.
cdef type _Socket = _CSocket
cdef type _PythonSocket = _socket_module.socket
cdef object _family = _Socket.__dict__["family"].__get__
cdef object _kind = _Socket.__dict__["type"].__get__
cdef object _proto = _Socket.__dict__["proto"].__get__


cdef int raw_family(object sock) except -2:
    return _family(sock) if issubclass(type(sock), _Socket) else sock.family


cdef int raw_kind(object sock) except -2:
    return _kind(sock) if issubclass(type(sock), _Socket) else sock.type


cdef int raw_proto(object sock) except -2:
    return _proto(sock) if issubclass(type(sock), _Socket) else sock.proto


cdef bint known(int family) noexcept:
    return family == AF_INET or family == AF_INET6 or family == AF_UNIX


cdef int dotted(const uint8_t *b, char *text) noexcept:
    """Write an IPv4 address and return its length. Of a short connection, printf would take a sixth."""
    cdef int i, n = 0
    for i in range(4):
        if i:
            text[n] = c"."
            n += 1
        if b[i] >= 100:
            text[n] = c"0" + b[i] // 100
            n += 1
        if b[i] >= 10:
            text[n] = c"0" + b[i] // 10 % 10
            n += 1
        text[n] = c"0" + b[i] % 10
        n += 1
    return n


cdef object unpack(Address *address):
    """The address as the socket module gives it; its family must be known()."""
    cdef sockaddr_in *v4 = <sockaddr_in *>&address.storage
    cdef sockaddr_in6 *v6 = <sockaddr_in6 *>&address.storage
    cdef sockaddr_un *local = <sockaddr_un *>&address.storage
    cdef char text[64]
    cdef Py_ssize_t size
    if address.length == 0:
        return None                         # of a connected peer
    if address.storage.ss_family == AF_INET:
        size = dotted(<uint8_t *>&v4.sin_addr, text)
        return (text[:size].decode("ascii"), <int>ntohs(v4.sin_port))
    if address.storage.ss_family == AF_INET6:
        inet_ntop(AF_INET6, &v6.sin6_addr, text, sizeof(text))
        return (text[:strlen(text)].decode("ascii"), <int>ntohs(v6.sin6_port), <object>ntohl(v6.sin6_flowinfo),
                <object>v6.sin6_scope_id)
    if address.storage.ss_family != AF_UNIX:
        raise SystemError(f"an address of family {address.storage.ss_family} came from a socket of another")
    size = <Py_ssize_t>address.length - (<char *>local.sun_path - <char *>local)
    if size <= 0:
        return ""                           # has no name
    path = PyBytes_FromStringAndSize(local.sun_path, size)
    if local.sun_path[0] == 0:
        return path                         # abstract
    return _fsdecode(path.split(b"\0", 1)[0])


cdef bytes sockaddr_of(int fd, bint peer):
    cdef sockaddr_storage address
    cdef socklen_t length = sizeof(address)
    cdef int failed
    if peer:
        failed = getpeername(fd, <sockaddr *>&address, &length)
    else:
        failed = getsockname(fd, <sockaddr *>&address, &length)
    return b"" if failed else PyBytes_FromStringAndSize(<char *>&address, length)


cdef str format_go(bytes raw):
    cdef char text[64]
    cdef char zone[IF_NAMESIZE]
    cdef const sockaddr_in *inet = <const sockaddr_in *><char *>raw
    cdef const sockaddr_in6 *inet6 = <const sockaddr_in6 *><char *>raw
    cdef const sockaddr_un *local = <const sockaddr_un *><char *>raw
    cdef Py_ssize_t path = <const char *>local.sun_path - <const char *>local
    cdef int family = inet.sin_family if len(raw) >= path else -1
    if family == AF_INET:
        inet_ntop(AF_INET, &inet.sin_addr, text, sizeof(text))
        return f"{(<bytes>text).decode()}:{ntohs(inet.sin_port)}"
    if family == AF_INET6:
        if IN6_IS_ADDR_V4MAPPED(<in6_addr *>&inet6.sin6_addr):
            inet_ntop(AF_INET, &inet6.sin6_addr.s6_addr[12], text, sizeof(text))
            return f"{(<bytes>text).decode()}:{ntohs(inet6.sin6_port)}"
        inet_ntop(AF_INET6, &inet6.sin6_addr, text, sizeof(text))
        if inet6.sin6_scope_id and if_indextoname(inet6.sin6_scope_id, zone) != NULL:
            return f"[{(<bytes>text).decode()}%{(<bytes>zone).decode()}]:{ntohs(inet6.sin6_port)}"
        return f"[{(<bytes>text).decode()}]:{ntohs(inet6.sin6_port)}"
    if family == AF_UNIX and len(raw) > path:
        if raw[path] == 0:
            return "@" + raw[path + 1:].decode(errors="surrogateescape")
        return raw[path:].split(b"\0", 1)[0].decode(errors="surrogateescape")
    return ""


cdef bint fill(const char *host, int port, int family, Address *address) noexcept:
    cdef sockaddr_in *v4 = <sockaddr_in *>&address.storage
    cdef sockaddr_in6 *v6 = <sockaddr_in6 *>&address.storage
    if family == AF_INET:
        memset(v4, 0, sizeof(sockaddr_in))
        v4.sin_family = AF_INET
        v4.sin_port = htons(<uint16_t>port)
        address.length = sizeof(sockaddr_in)
        return inet_pton(AF_INET, host, &v4.sin_addr) == 1
    memset(v6, 0, sizeof(sockaddr_in6))
    v6.sin6_family = AF_INET6
    v6.sin6_port = htons(<uint16_t>port)
    address.length = sizeof(sockaddr_in6)
    return inet_pton(AF_INET6, host, &v6.sin6_addr) == 1


cdef bint pack(object value, int family, Address *address) except -1:
    """True if value was a numeric address of the family, and is now in `address`; else the socket module must do it."""
    cdef Py_ssize_t size = 0
    cdef const char *host
    cdef object port
    if type(value) is not tuple or len(<tuple>value) != 2 or (family != AF_INET and family != AF_INET6):
        return False
    port = (<tuple>value)[1]
    if type((<tuple>value)[0]) is not str or type(port) is not int or not 0 <= port <= 0xffff:
        return False
    host = PyUnicode_AsUTF8AndSize((<tuple>value)[0], &size)
    return strlen(host) == <size_t>size and fill(host, port, family, address)


def is_numeric_host(host not None):
    """Whether it is an IPv4 or IPv6 address as inet_pton() takes it, perhaps with a scope. libc takes more, and
    addrinfo.is_literal() says what."""
    cdef unsigned char address[16]
    cdef Py_ssize_t size = 0
    cdef const char *text
    cdef object unscoped = host.partition("%")[0]
    try:
        text = PyUnicode_AsUTF8AndSize(unscoped, &size)
    except UnicodeEncodeError:
        return False
    if strlen(text) != <size_t>size:
        return False
    return inet_pton(AF_INET, text, address) == 1 or inet_pton(AF_INET6, text, address) == 1


cdef object local_address(object sock, int fd, int family):
    """sock.getsockname(), or None where that fails."""
    cdef Address address
    if known(family) and type(sock) is _PythonSocket:
        address.length = sizeof(sockaddr_storage)
        return unpack(&address) if getsockname(fd, <sockaddr *>&address.storage, &address.length) == 0 else None
    try:
        return sock.getsockname()
    except OSError:
        return None
