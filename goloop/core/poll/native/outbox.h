/* The outbox of a loop: what its streams have written in this iteration, to be sent in one go.
 *
 * A send also wakes the peer, and one that stands between two stretches of Python pays for that each time. So a loop
 * collects the writes of an iteration and sends them at its end. Should a callback block or compute meanwhile, the
 * netpoller sends them in the loop's place. HACKING.md, protocol "outbox", says which thread may touch what.
 * tests/native/stress_outbox.c runs it under ThreadSanitizer.
 */
#ifndef GOLOOP_OUTBOX_H
#define GOLOOP_OUTBOX_H

#include <sched.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

#ifndef GL_YIELD
#define GL_YIELD() ((void)0)
#endif
#ifndef GL_WRITES
#define GL_WRITES 64 /* streams in one batch */
#define GL_PIECES 8  /* writes of one stream in it, sent by one system call */
#endif

enum { GL_OFFERED = 1, GL_BY_NETPOLLER = 2 };

/* What one stream has written. Guarded by the outbox's lock, but for `owner` and `held`, which are the loop's alone. */
typedef struct gl_write {
    int fd;
    int done;      /* GL_OFFERED: to the kernel, by the loop; GL_BY_NETPOLLER */
    ssize_t sent;  /* bytes that the kernel took */
    int error;     /* errno, if it took none */
    int pieces;    /* of them */
    size_t length; /* bytes in all pieces */
    void *owner;   /* the stream; NULL: settled already */
    struct iovec iov[GL_PIECES];
    void *held[GL_PIECES]; /* the objects that the pieces lie in */
} gl_write;

typedef struct gl_outbox {
    uint32_t lock;  /* atomic; 1: one thread is inside. The loop waits for it, the netpoller goes away */
    uint32_t count; /* atomic; places in use. The loop stores under the lock, the netpoller looks without */
    uint32_t batch; /* atomic, relaxed; batches begun; the loop stores */
    uint32_t seen;  /* the netpoller's: the batch that it saw last */
    gl_write writes[GL_WRITES];
} gl_outbox;

static inline void gl_outbox_lock(gl_outbox *box) {
    uint32_t free = 0;
    /* acquire: what the thread inside before has stored; pairs with gl_outbox_unlock. That one is inside for some
     * non-blocking sends at most, but it may be without a processor. */
    while (!__atomic_compare_exchange_n(&box->lock, &free, 1, 0, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED)) {
        free = 0;
        sched_yield();
    }
    GL_YIELD();
}

static inline void gl_outbox_unlock(gl_outbox *box) {
    GL_YIELD();
    __atomic_store_n(&box->lock, 0, __ATOMIC_RELEASE);
}

static inline void gl_outbox_set_count(gl_outbox *box, uint32_t count) {
    /* seq_cst: comes before the look whether the netpoller ticks; pairs with tick() in netpoll.c. */
    __atomic_store_n(&box->count, count, __ATOMIC_SEQ_CST);
}

static inline void gl_outbox_begin(gl_outbox *box) {
    __atomic_store_n(&box->batch, box->batch + 1, __ATOMIC_RELAXED); /* a tick that misses it sees it the next time */
}

/* Collect a write. place: of what this stream has collected, counted from 1; 0: nothing. Returns the place, or 0: there
 * is no room, or it has gone to the kernel. The loop. */
static inline uint32_t gl_outbox_add(gl_outbox *box, uint32_t place, int fd, void *owner, void *held, const void *data,
                                     size_t length, size_t most) {
    uint32_t count = __atomic_load_n(&box->count, __ATOMIC_RELAXED);
    gl_write *w;
    if (place == 0 && count == GL_WRITES)
        return 0;
    gl_outbox_lock(box);
    if (place == 0) {
        place = count + 1;
        w = &box->writes[count];
        w->fd = fd;
        w->done = w->pieces = 0;
        w->length = 0;
        w->owner = owner;
        gl_outbox_set_count(box, place);
    }
    w = &box->writes[place - 1];
    if (!w->done && w->pieces < GL_PIECES && w->length + length <= most) {
        w->iov[w->pieces] = (struct iovec){(void *)data, length};
        w->held[w->pieces++] = held;
        w->length += length;
    } else {
        place = 0;
    }
    gl_outbox_unlock(box);
    return place;
}

/* The batch is over: nothing is held any more. The loop. */
static inline void gl_outbox_empty(gl_outbox *box) {
    gl_outbox_lock(box);
    gl_outbox_set_count(box, 0);
    gl_outbox_unlock(box);
}

void gl_outbox_send(gl_outbox *box);                 /* offer to the kernel what was not yet offered; the loop */
void gl_outbox_send_one(gl_outbox *box, uint32_t i); /* the same for one stream */
int gl_outbox_look(gl_outbox *box);                  /* a tick of the netpoller; nonzero: look again after the next */
void gl_outbox_send_for(gl_outbox *box);             /* any thread, in the loop's place */

#endif
