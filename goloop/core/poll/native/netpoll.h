/* The native half of goloop: the netpoller thread, parking, and the inbox.
 *
 * Everything here runs without the GIL and touches no Python object; Cython calls it through
 * poll/pollset.pxd, and tests/native/ compiles it alone under ThreadSanitizer. HACKING.md explains the
 * protocol "park" by name; the comments below give the ordering of each access and its partner.
 */
#ifndef GOLOOP_NETPOLL_H
#define GOLOOP_NETPOLL_H

#include "../../system/native/trace_ring.h"
#include "outbox.h"

#include <stdint.h>
#include <sys/epoll.h>

/* A stress build shrinks the capacities and yields at every step of a protocol. */
#ifndef GL_YIELD
#define GL_YIELD() ((void)0)
#endif
#ifndef GL_CHUNK
#define GL_CHUNK 64  /* poll sets allocated at a time */
#define GL_EVENTS 64 /* events taken from the master at a time */
#endif

/* ------------------------------------------------------------------ inbox
 * Many producers, one consumer, no lock: a stack that the consumer takes whole and reverses, so
 * items come out in the order in which they were pushed. A closed inbox refuses pushes, which makes
 * "accepted before the close, or refused" a single compare-and-swap. */
typedef struct gl_node {
    struct gl_node *next; /* producer writes before the push; consumer reads after the take */
    void *item;
} gl_node;

typedef struct gl_inbox {
    gl_node *head; /* atomic; producers push, the consumer exchanges */
} gl_inbox;

enum { GL_INBOX_CLOSED = -1, GL_INBOX_PUSHED = 0, GL_INBOX_FIRST = 1 };

void gl_inbox_open(gl_inbox *in);
int gl_inbox_push(gl_inbox *in, gl_node *node); /* FIRST: the batch was empty, so wake the consumer */
int gl_inbox_empty(gl_inbox *in);               /* true for a closed one too */
gl_node *gl_inbox_take(gl_inbox *in);           /* oldest first; NULL: nothing there */
gl_node *gl_inbox_close(gl_inbox *in);          /* refuse from now on; hand out what was accepted */

/* --------------------------------------------------------------- poll set
 * The part of a loop that other threads may touch. The memory is type-stable: a poll set that was
 * released is used again for another loop and never freed, so a late wake-up is at worst spurious. */
enum {
    GL_RUNNING = 0,
    GL_PARKED = 1,  /* sleeps on the futex; the netpoller watches the poll set */
    GL_POLLING = 2, /* sleeps in its poll set; a thread that wants it rings the bell */
};
#define GL_BELL UINT64_MAX /* epoll data of the bell: no slot has it */

typedef struct gl_pollset {
    int epfd;            /* owner writes at open and close; epoll_ctl and epoll_wait by the owner only */
    int bell;            /* an eventfd in the poll set, edge-triggered and never read; written and closed as epfd */
    uint32_t index;      /* place in the table; constant */
    uint32_t generation; /* atomic; odd while in use; netpoller drops events of another generation */
    uint32_t state;      /* atomic, the futex word: GL_RUNNING, GL_PARKED or GL_POLLING */
    uint32_t ringers;    /* atomic; threads that may be about to write to the bell: close waits for them */
    uint32_t armed;      /* atomic; the entry in the master epoll will fire */
    uint32_t epoch;      /* fork epoch in which it was opened; constant while in use */
    int64_t since;       /* atomic; when it began to sleep in its poll set, on the coarse clock; owner stores */
    uint32_t long_wait;  /* atomic; the netpoller has rung the bell because the sleep was long */
    uint32_t patient;    /* owner's: the last sleep was long, and ended with its deadline */
    /* Looked at by gl_park; constant while in use. Not part of this memory, because a push that comes late must find it
     * closed, not another loop's. */
    gl_inbox *inbox;
    gl_inbox completions;         /* of connections that the netpoller serves; only it pushes, see stream_offload.c */
    uint32_t loop;                /* atomic, relaxed: the number of its loop, for traces */
    gl_outbox *outbox;            /* atomic; the owner stores it once (release), and the next owner takes it over */
    uint64_t parks;               /* atomic, relaxed: statistics; owner counts */
    struct gl_pollset *next_free; /* guarded by the table's mutex */
} gl_pollset;

gl_pollset *gl_pollset_open(gl_inbox *inbox); /* NULL: errno tells why. Opens the inbox too */
void gl_pollset_close(gl_pollset *ps);        /* owner only, once; stops the netpoller after the last one */
int gl_pollset_foreign(const gl_pollset *ps); /* opened by the parent of this forked process */

/* Both sleep until woken, or until `deadline` (CLOCK_MONOTONIC nanoseconds, negative: none). Which one is better
 * depends on what will wake the loop, descriptors or threads, and how soon. See HACKING.md.
 *
 * gl_park sleeps on a futex and leaves the poll set to the netpoller. Returns 0 when woken or when there was no need to
 * sleep, ETIMEDOUT, EINTR after a signal, EPERM for a foreign poll set, or the error with which the netpoller could
 * not be started.
 *
 * gl_poll sleeps in the poll set and takes what is ready there; from GL_SHORT_MS on it goes on as gl_park does. Returns
 * the number of events, the bell's among them; 0 when the time is over or there was no need to sleep; or an error as a
 * negative number, EINTR and EPERM as above. */
#ifndef GL_SHORT_MS
#define GL_SHORT_MS 100 /* a hop through the netpoller is less than a thousandth of a sleep that is longer */
#define GL_UNMINDED 50  /* sleeps that do without the netpoller before it is started to look after them */
#endif
int gl_park(gl_pollset *ps, int64_t deadline);
int gl_poll(gl_pollset *ps, int64_t deadline, struct epoll_event *events, int room);
/* Wake it if it sleeps; any thread, also a signal handler. A wake-up of a loop that runs is not remembered:
 * the caller has put something where the loop looks before it sleeps (the inbox, a descriptor). */
void gl_unpark(gl_pollset *ps);

/* ----------------------------------------------------------------- outbox
 * The netpoller looks at the outboxes every GL_TICK_MS while some are in use, and sends what has been collected for
 * more than a tick: its loop is stuck in a callback. */
#ifndef GL_TICK_MS
#define GL_TICK_MS 2
#define GL_IDLE_TICKS 8 /* without a batch; then it sleeps until the next one begins */
#endif

gl_outbox *gl_pollset_outbox(gl_pollset *ps); /* made at the first call; the owner. NULL: no memory */
int gl_netpoller_tick(void);                  /* a batch begins: see to it that the netpoller ticks; 0 or an error */
void gl_send_collected(void); /* send what all loops have collected; any thread. At a fork, or an end of the process */

/* ------------------------------------------------------------------ guest
 * stream_offload.c lives in the netpoller's thread; these are the doors between the two. The guest's calls run in that
 * thread, the fork handlers in the thread that forks, when the netpoller does not run. */
typedef struct gl_guest {
    int (*event)(uint64_t key, uint32_t events); /* an event of the master; 0: not the guest's */
    int (*round)(void);                          /* do some of what is to be done; nonzero: there is more */
    int (*idle)(void);                           /* nothing is to be done; seq_cst, pairs with gl_netpoller_nudge */
    int (*needed)(void);                         /* the netpoller must run */
    void (*before_fork)(void);
    void (*after_fork_parent)(void);
    void (*after_fork_child)(void);
} gl_guest;

void gl_netpoller_host(const gl_guest *guest); /* when the library is loaded */
/* Watch a descriptor in the master, and see to it that the netpoller runs; 0 or an error. The key has a bit of the
 * upper half of its low word set. A poll set is open, and stays open until after gl_netpoller_remove. */
int gl_netpoller_add(int fd, uint32_t events, uint64_t key);
void gl_netpoller_remove(int fd);
void gl_netpoller_nudge(void); /* end its sleep, if it sleeps: something is to be done */

void gl_netpoller_trace(gl_tracer *tracer); /* whom to tell what it does; when the library is loaded */

/* ------------------------------------------------------------- statistics */
typedef struct gl_stats {
    uint64_t fires;    /* master events seen by the netpoller */
    uint64_t stale;    /* of these, dropped for their generation */
    uint32_t pollsets; /* open now */
    uint32_t running;  /* 1 while the netpoller thread exists */
    int64_t cpu;       /* ns of processor time that this thread has used; 0 without one */
} gl_stats;

void gl_get_stats(gl_stats *out);
uint32_t gl_fork_epoch(void); /* counts the forks between this process and the one that loaded us */

#endif
