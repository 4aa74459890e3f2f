from goloop.core.net.conn cimport Conn


# TLS over a connection. Its fields are guarded as tls_conn.pyx says.
cdef class TLSConn(Conn):
    cdef readonly object ssl_object        # the ssl.SSLObject, to ask for certificates, version, ALPN protocol
    cdef object incoming, outgoing, lock
    cdef bytes unsent, early
    cdef bint shaken
    cdef object failure                    # of the handshake: for good

    cdef int flush(self) except -1
    cdef int feed(self) except -1
    cdef int shake(self) except -1
    cdef int send_now(self) except -1
