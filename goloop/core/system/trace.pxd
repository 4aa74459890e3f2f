from libc.stdint cimport int64_t, uint32_t, uint64_t

from goloop.core.system.posix cimport now_ns


cdef extern from "../system/native/trace_ring.h" nogil:
    enum:
        GL_TRACE_RUN
        GL_TRACE_RAN
        GL_TRACE_READY
        GL_TRACE_SLEEP
        GL_TRACE_AWAKE
        GL_TRACE_GO
        GL_TRACE_PARK
        GL_TRACE_SPAN
        GL_TRACE_SPAN_END
        GL_TRACE_GC
        GL_TRACE_GC_END
        GL_TRACE_NETPOLL
        GL_TRACE_NETPOLLED
        GL_TRACE_WAKE
        GL_TRACE_HANDOFF
        GL_TRACE_HANDBACK
    ctypedef struct gl_tracer:
        uint32_t session      # 0: no trace is made
        void (*emit)(int64_t time, int kind, uint32_t loop, uint32_t name, uint64_t a, uint64_t b) noexcept nogil


# The one tracer of the process. A module of the core keeps the pointer, and looks at `session` before it emits.
cdef gl_tracer *the_tracer() noexcept nogil
cdef uint32_t name_number(object text) except 0   # of a hashable object in the table of the session; with the GIL


cdef inline void trace(
    gl_tracer *tracer, int kind, uint32_t loop=0, uint32_t name=0, uint64_t a=0, uint64_t b=0
) noexcept nogil:
    """Emit an event of now; only where tracer.session is set."""
    tracer.emit(now_ns(), kind, loop, name, a, b)
