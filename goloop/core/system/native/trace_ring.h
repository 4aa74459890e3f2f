/* The events of a trace: a ring for each thread that makes some, in native memory, the newest kept.
 *
 * Any thread emits, with the GIL or without; it touches no Python object and waits for nobody. One thread at a time
 * starts a session and ends it. HACKING.md, protocol "trace", tells why it may read the rings then.
 */
#ifndef GOLOOP_TRACE_RING_H
#define GOLOOP_TRACE_RING_H

#include <stddef.h>
#include <stdint.h>

/* What an event means, and what its `name`, `a` and `b` are. `loop` is the number of a loop, 0: none. */
enum {
    GL_TRACE_RUN = 1, /* an item of the ready queue begins. name; a: the item; b: the task, 0: none */
    GL_TRACE_RAN,   /* and has ended. name: what its task waits for, 0: no task, or done; b: the task, if it is done */
    GL_TRACE_READY, /* an item was made ready, by what runs here. a: the item, or the G */
    GL_TRACE_SLEEP, /* a loop has nothing to do. a: 1 in its poll set, 2 on its futex */
    GL_TRACE_AWAKE, /* and has again */
    GL_TRACE_GO,    /* a goroutine goes on. name; a: its G; b: its id */
    GL_TRACE_PARK,  /* and gives way. name: why; a: its G; b: its id; name 0: it has ended */
    GL_TRACE_SPAN,  /* a span of the program begins. name; a: its number; b: the task, or 0 */
    GL_TRACE_SPAN_END,  /* a: its number */
    GL_TRACE_GC,        /* the garbage collector begins. a: the generation */
    GL_TRACE_GC_END,    /* a: how much it has collected */
    GL_TRACE_NETPOLL,   /* the netpoller has events. a: how many */
    GL_TRACE_NETPOLLED, /* and has dealt with them */
    GL_TRACE_WAKE,      /* a thread ends the sleep of a loop */
    GL_TRACE_HANDOFF,   /* a loop is taken from a thread that is stuck. a: the thread (tid) */
    GL_TRACE_HANDBACK,  /* a thread that was stuck has its loop again */
};

typedef struct {
    int64_t time; /* monotonic ns */
    uint32_t kind : 8, loop : 24;
    uint32_t name; /* in the session's table of names, 0: none */
    uint64_t a, b;
} gl_event;

/* What the modules of the core have of this: one flag to look at, and what to call if it is set. */
typedef struct {
    uint32_t session; /* atomic; 0: no trace is made */
    void (*emit)(int64_t time, int kind, uint32_t loop, uint32_t name, uint64_t a, uint64_t b);
} gl_tracer;

typedef struct {
    int tid;
    uint64_t made;    /* events, with those that newer ones have replaced */
    uint64_t kept;    /* of these, the last ones */
    gl_event *events; /* a ring of `room`; the oldest of those kept is at `made - kept` */
    uint64_t room;    /* a power of two */
} gl_trace_track;

extern gl_tracer gl_the_tracer;

/* Begin a session with rings for so many events, a power of two. 0, or EBUSY: there is one. Any thread. */
int gl_trace_start(uint64_t room);
/* End it, and wait until no thread is about to write an event: some instructions. Afterwards its tracks are the caller's
 * to read; *tracks and the rings in it are freed by gl_trace_free(). Returns how many, or -1: there was no session or no
 * memory. Any thread. */
ptrdiff_t gl_trace_stop(gl_trace_track **tracks);
void gl_trace_free(gl_trace_track *tracks, ptrdiff_t count);
uint64_t gl_trace_lost(void); /* events of the last session for which there was no memory */

#endif
