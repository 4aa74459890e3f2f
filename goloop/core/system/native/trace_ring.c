/* See trace_ring.h. */
#define _GNU_SOURCE
#include "trace_ring.h"

#include "posix.h"
#include "thread_local.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#ifndef GL_YIELD
#define GL_YIELD() ((void)0)
#endif

/* A thread that has made events. It is type-stable: once made it is never freed, and used again for another thread when
 * its own has ended. */
typedef struct writer {
    struct writer *next; /* set before it is in the list, then constant */
    uint32_t busy;       /* atomic: 1 while its thread may be about to write an event */
    uint32_t taken;      /* guard: control; a thread has it */
    uint32_t session;    /* of the ring. The thread's while busy, else the one's who has ended the session */
    int tid;             /* these four likewise */
    uint64_t made;
    uint64_t room;
    gl_event *events;
} writer;

static void emit(int64_t time, int kind, uint32_t loop, uint32_t name, uint64_t a, uint64_t b);

gl_tracer gl_the_tracer = {.emit = emit};
static writer *writers;                                     /* atomic head of the list; it only grows */
static uint64_t wanted;                                     /* atomic; room of the rings of this session */
static uint64_t lost;                                       /* atomic */
static uint32_t sessions;                                   /* guard: control */
static pthread_mutex_t control = PTHREAD_MUTEX_INITIALIZER; /* starts, ends, and the making of writers */
static pthread_key_t key;                                   /* tells that a thread ends */
GL_THREAD_LOCAL writer *mine;

static void thread_ends(void *value) {
    writer *w = value;
    mine = NULL;
    __atomic_store_n(&w->taken, 0, __ATOMIC_RELEASE); /* its ring stays, until the session ends */
}

/* A writer for this thread: one that no thread has any more and no ring, or a new one. NULL: no memory. */
static writer *make_writer(void) {
    writer *w;
    pthread_mutex_lock(&control);
    for (w = __atomic_load_n(&writers, __ATOMIC_SEQ_CST); w != NULL; w = w->next)
        if (!__atomic_load_n(&w->taken, __ATOMIC_ACQUIRE) && w->events == NULL)
            break;
    if (w == NULL && (w = calloc(1, sizeof *w)) != NULL) {
        w->next = writers;
        __atomic_store_n(&w->taken, 1, __ATOMIC_RELAXED);
        __atomic_store_n(&writers, w, __ATOMIC_SEQ_CST); /* pairs with gl_trace_stop */
    }
    if (w != NULL) {
        __atomic_store_n(&w->taken, 1, __ATOMIC_RELAXED);
        pthread_setspecific(key, w);
    }
    pthread_mutex_unlock(&control);
    mine = w;
    return w;
}

static gl_event *make_ring(uint64_t room) {
    void *ring =
        mmap(NULL, room * sizeof(gl_event), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return ring == MAP_FAILED ? NULL : ring;
}

static int begin_ring(writer *w, uint32_t session) { /* the thread's first event of a session */
    w->room = __atomic_load_n(&wanted, __ATOMIC_RELAXED);
    w->events = make_ring(w->room);
    if (w->events == NULL)
        return -1;
    w->session = session;
    w->made = 0;
    w->tid = (int)syscall(SYS_gettid);
    return 0;
}

static void emit(int64_t time, int kind, uint32_t loop, uint32_t name, uint64_t a, uint64_t b) {
    writer *w = mine;
    uint32_t session;
    if (w == NULL && (w = make_writer()) == NULL) {
        __atomic_fetch_add(&lost, 1, __ATOMIC_RELAXED);
        return;
    }
    /* seq_cst: "I am about to write" comes before the look whether there is a session. Pairs with gl_trace_stop, which
     * says that there is none, then looks who writes. */
    __atomic_store_n(&w->busy, 1, __ATOMIC_SEQ_CST);
    GL_YIELD();
    session = __atomic_load_n(&gl_the_tracer.session, __ATOMIC_SEQ_CST);
    if (session != 0) {
        if (w->session == session || begin_ring(w, session) == 0) {
            gl_event *e = &w->events[w->made++ & (w->room - 1)];
            GL_YIELD();
            *e = (gl_event){.time = time, .kind = (uint8_t)kind, .loop = loop & 0xffffff, .name = name, .a = a, .b = b};
        } else {
            __atomic_fetch_add(&lost, 1, __ATOMIC_RELAXED);
        }
    }
    __atomic_store_n(&w->busy, 0, __ATOMIC_RELEASE); /* pairs with gl_trace_stop: what was written comes before */
}

int gl_trace_start(uint64_t room) {
    int error = EBUSY;
    pthread_mutex_lock(&control);
    if (gl_the_tracer.session == 0) {
        if (++sessions == 0)
            sessions = 1;
        __atomic_store_n(&wanted, room, __ATOMIC_RELAXED);
        __atomic_store_n(&lost, 0, __ATOMIC_RELAXED);
        __atomic_store_n(&gl_the_tracer.session, sessions, __ATOMIC_SEQ_CST);
        error = 0;
    }
    pthread_mutex_unlock(&control);
    return error;
}

static void wait_for(writer *w) { /* until it is not about to write; it waits for nothing but the processor */
    while (__atomic_load_n(&w->busy, __ATOMIC_SEQ_CST))
        sched_yield();
}

static void hand_over(writer *w, gl_trace_track *track) { /* its ring becomes the track's; NULL: nobody wants it */
    if (track != NULL) {
        track->tid = w->tid;
        track->made = w->made;
        track->kept = w->made < w->room ? w->made : w->room;
        track->events = w->events;
        track->room = w->room;
    } else {
        munmap(w->events, w->room * sizeof(gl_event));
    }
    w->events = NULL;
    w->session = 0;
}

ptrdiff_t gl_trace_stop(gl_trace_track **tracks) {
    ptrdiff_t count = 0, n = 0;
    writer *first;
    pthread_mutex_lock(&control);
    if (gl_the_tracer.session == 0) {
        pthread_mutex_unlock(&control);
        return -1;
    }
    __atomic_store_n(&gl_the_tracer.session, 0, __ATOMIC_SEQ_CST); /* pairs with emit */
    GL_YIELD();
    first = __atomic_load_n(&writers, __ATOMIC_SEQ_CST); /* one that is not in the list yet sees the 0 */
    for (writer *w = first; w != NULL; w = w->next) {
        wait_for(w);
        count += w->events != NULL;
    }
    *tracks = calloc(count ? (size_t)count : 1, sizeof **tracks);
    for (writer *w = first; w != NULL; w = w->next)
        if (w->events != NULL)
            hand_over(w, *tracks != NULL ? &(*tracks)[n++] : NULL);
    pthread_mutex_unlock(&control);
    return *tracks != NULL ? count : -1;
}

void gl_trace_free(gl_trace_track *tracks, ptrdiff_t count) {
    for (ptrdiff_t i = 0; i < count; i++)
        munmap(tracks[i].events, tracks[i].room * sizeof(gl_event));
    free(tracks);
}

uint64_t gl_trace_lost(void) { return __atomic_load_n(&lost, __ATOMIC_RELAXED); }

/* ------------------------------------------------------------------- fork
 * The trace is the parent's. The child has none, and none of the other threads. */
static void before_fork(void) { pthread_mutex_lock(&control); }
static void after_fork_parent(void) { pthread_mutex_unlock(&control); }

static void after_fork_child(void) {
    __atomic_store_n(&gl_the_tracer.session, 0, __ATOMIC_SEQ_CST);
    for (writer *w = writers; w != NULL; w = w->next) {
        __atomic_store_n(&w->busy, 0, __ATOMIC_RELAXED);
        if (w->events != NULL)
            hand_over(w, NULL);
        if (w != mine)
            __atomic_store_n(&w->taken, 0, __ATOMIC_RELAXED);
    }
    pthread_mutex_unlock(&control);
}

__attribute__((constructor)) static void at_load(void) {
    if ((errno = pthread_atfork(before_fork, after_fork_parent, after_fork_child)) != 0 ||
        (errno = pthread_key_create(&key, thread_ends)) != 0)
        abort();
}
