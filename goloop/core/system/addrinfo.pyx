# cython: language_level=3, boundscheck=False, wraparound=False, freethreading_compatible=True
"""socket.getaddrinfo() for an address and a number, where nothing has to be looked up. For the loop's getaddrinfo().

What libc makes of a literal depends on its family, on whether there is a port, and on the other arguments, but not on
the address itself. So libc, of which there are several, is asked once for each kind of question, and its answer is the
pattern of the later ones. A question without a pattern is a call of libc each time: it does not wait, because a literal
is not looked up anywhere. Any thread may call.
"""

import _socket as _c_module
import socket as _socket_module
from types import FunctionType as _Function

from cpython.long cimport PyLong_AsLongAndOverflow, PyLong_Check
from cpython.unicode cimport PyUnicode_AsUTF8AndSize
from libc.string cimport memchr, memcpy, strlen, strspn

from goloop.core.system.sockaddr cimport AF_INET, AF_INET6, AF_UNSPEC, Address, fill, unpack


cdef extern from "Python.h":
    bint PyUnicode_IS_ASCII(object text)
    int PySys_Audit(const char *event, const char *format, ...) except -1

cdef extern from "netdb.h" nogil:
    enum:
        AI_PASSIVE
        AI_NUMERICHOST
        AI_NUMERICSERV
        AI_V4MAPPED
        AI_ALL

cdef extern from "arpa/inet.h" nogil:
    struct in_addr:
        pass
    int inet_aton(const char *text, in_addr *address)

cdef enum:
    HOST_ROOM = 64          # the longest literal, with a scope, is shorter; what is longer, the idna codec may refuse
    NO_PORT = -1
    NOT_A_NUMBER = -2
    PATTERNS = 1024         # a program has a few kinds of question
    # With these flags, the answer depends neither on the interfaces of the moment nor on the text of the address.
    STEADY = AI_PASSIVE | AI_NUMERICHOST | AI_NUMERICSERV | AI_V4MAPPED | AI_ALL

cdef dict _namespace = vars(_socket_module)
cdef dict _c_namespace = vars(_c_module)
cdef object _resolve = _namespace["getaddrinfo"]
cdef object _c_resolve = _c_namespace["getaddrinfo"]
# It may have been replaced before this module was imported.
cdef bint _genuine = type(_resolve) is _Function and _resolve.__globals__ is _namespace
cdef dict _patterns = {}    # kind of question: the entries of the answer without their addresses


cdef bint replaced() except -1:
    """Whether getaddrinfo() of the socket module is not its own: the replacement is to be asked about everything."""
    return (
        not _genuine or _namespace.get("getaddrinfo") is not _resolve
        or _c_namespace.get("getaddrinfo") is not _c_resolve
    )


cdef int port_number(object port) except -3:
    """The number of a port, NO_PORT for None, NOT_A_NUMBER for what libc looks up or refuses."""
    cdef const char *text
    cdef Py_ssize_t size = 0
    cdef int overflow = 0
    cdef long number
    if type(port) is int:
        number = PyLong_AsLongAndOverflow(port, &overflow)
        return <int>number if not overflow and 0 <= number <= 0xffff else NOT_A_NUMBER
    if port is None:
        return NO_PORT
    if type(port) is str and PyUnicode_IS_ASCII(port):
        text = PyUnicode_AsUTF8AndSize(port, &size)
    elif type(port) is bytes:
        text = port
        size = len(<bytes>port)
    else:
        return NOT_A_NUMBER
    if not 0 < size <= 5 or strspn(text, "0123456789") != <size_t>size:
        return NOT_A_NUMBER
    number = 0
    for i in range(size):
        number = number * 10 + text[i] - c"0"
    return <int>number if number <= 0xffff else NOT_A_NUMBER


cdef int literal(const char *host, Py_ssize_t size, int port, Address *address) noexcept:
    """The family of an address, which is then in `address`; AF_UNSPEC for another literal, -1 for what is none.

    The other literals are those with a scope, and what only inet_aton() takes.
    """
    cdef char plain[HOST_ROOM]
    cdef in_addr ignored
    cdef const char *scope
    if not 0 < size < HOST_ROOM or strlen(host) != <size_t>size:
        return -1
    if memchr(host, c":", size) == NULL:
        if fill(host, port, AF_INET, address):
            return AF_INET
        # inet_aton() does not mind what stands behind a space.
        if strspn(host, "0123456789abcdefABCDEFxX.") == <size_t>size and inet_aton(host, &ignored):
            return AF_UNSPEC
        return -1
    if fill(host, port, AF_INET6, address):
        return AF_INET6
    scope = <const char *>memchr(host, c"%", size)
    if scope == NULL:
        return -1
    memcpy(plain, host, scope - host)
    plain[scope - host] = 0
    return AF_UNSPEC if fill(plain, port, AF_INET6, address) else -1


def is_literal(host):
    """Return whether a host is an address, in any of the forms that libc takes, so that there is nothing to look up."""
    cdef Address ignored
    cdef const char *text
    cdef Py_ssize_t size = 0
    if type(host) is bytes:
        text = host
        size = len(<bytes>host)
    elif isinstance(host, str) and PyUnicode_IS_ASCII(host):
        text = PyUnicode_AsUTF8AndSize(host, &size)
    else:
        return False
    return literal(text, size, 0, &ignored) >= 0


cdef long small(object number, long end) noexcept:
    """A number from 0 up to `end`, else -1."""
    cdef int overflow = 0
    cdef long value
    if not PyLong_Check(number):
        return -1
    value = PyLong_AsLongAndOverflow(number, &overflow)
    return value if 0 <= value < end and not overflow else -1


cdef long question(int literal_family, int port, object family, object kind, object proto, object flags) noexcept:
    """A number for all that an answer depends on but address and port; -1 if there is more that it depends on."""
    cdef long family_number = small(family, 32), kind_number = small(kind, 8)
    cdef long proto_number = small(proto, 256), flags_number = small(flags, 2048)
    if family_number < 0 or kind_number < 0 or proto_number < 0 or flags_number < 0 or flags_number & ~STEADY:
        return -1
    return (
        flags_number << 18 | proto_number << 10 | kind_number << 7 | family_number << 2
        | (port != NO_PORT) << 1 | (literal_family == AF_INET6)
    )


cdef int learn(long key, list found, object address) except -1:
    """Keep what libc answered as a pattern, if its addresses are none but the one asked for."""
    cdef object entry
    for entry in found:
        if (<tuple>entry)[4] != address:
            return 0
    if len(_patterns) < PATTERNS:
        _patterns[key] = tuple([(<tuple>entry)[:4] for entry in found])
    return 0


def literal_addrinfo(host, port, family, kind, proto, flags):
    """The answer of socket.getaddrinfo(), or its exception, if that has nothing to look up; else None.

    Also None if the socket module has another getaddrinfo() than its own.
    """
    cdef Address storage
    cdef const char *text
    cdef Py_ssize_t size = 0
    cdef int number, family_of = AF_UNSPEC
    cdef long key = -1
    cdef object address, entry, pattern, found
    if replaced():
        return None
    number = port_number(port)
    if number == NOT_A_NUMBER:
        return None
    if host is not None:
        if type(host) is str and PyUnicode_IS_ASCII(host):
            text = PyUnicode_AsUTF8AndSize(host, &size)
        elif type(host) is bytes:
            text = host
            size = len(<bytes>host)
        else:
            return None
        family_of = literal(text, size, 0 if number == NO_PORT else number, &storage)
        if family_of < 0:
            return None
    if family_of != AF_UNSPEC:
        key = question(family_of, number, family, kind, proto, flags)
    if key < 0:
        return _resolve(host, port, family, kind, proto, flags)
    if family_of == AF_INET and type(host) is str:
        address = (host, 0 if number == NO_PORT else number)      # inet_pton() takes it in one form only
    else:
        address = unpack(&storage)
    pattern = _patterns.get(key)
    if pattern is None:
        found = _resolve(host, port, family, kind, proto, flags)
        learn(key, found, address)
        return found
    PySys_Audit(
        "socket.getaddrinfo", "OOiii", <void *>host, <void *>port,
        <int>(key >> 2 & 31), <int>(key >> 7 & 7), <int>(key >> 10 & 255),
    )
    found = []
    for entry in <tuple>pattern:
        (<list>found).append(((<tuple>entry)[0], (<tuple>entry)[1], (<tuple>entry)[2], (<tuple>entry)[3], address))
    return found
