/* See outbox.h for what this file promises, and HACKING.md for the protocol "outbox". */
#define _GNU_SOURCE
#include "outbox.h"

#include <errno.h>
#include <sys/socket.h>

/* A stress build puts faults here. */
#ifndef GL_OUT
#define GL_OUT(fd, msg) sendmsg(fd, msg, MSG_NOSIGNAL)
#define GL_OUT_ONE(fd, data, length) send(fd, data, length, MSG_NOSIGNAL)
#endif

/* Under the lock. */
static void offer(gl_write *w, int by) {
    struct msghdr msg = {.msg_iov = w->iov, .msg_iovlen = (size_t)w->pieces};
    ssize_t n;
    if (w->pieces == 1)
        n = GL_OUT_ONE(w->fd, w->iov[0].iov_base, w->iov[0].iov_len);
    else
        n = GL_OUT(w->fd, &msg);
    w->error = n < 0 ? errno : 0;
    w->sent = n < 0 ? 0 : n;
    w->done = by;
}

static void offer_all(gl_outbox *box, int by) {
    uint32_t count = __atomic_load_n(&box->count, __ATOMIC_RELAXED);
    for (uint32_t i = 0; i < count; i++)
        if (!box->writes[i].done)
            offer(&box->writes[i], by);
}

void gl_outbox_send(gl_outbox *box) {
    gl_outbox_lock(box);
    offer_all(box, GL_OFFERED);
    gl_outbox_unlock(box);
}

void gl_outbox_send_one(gl_outbox *box, uint32_t i) {
    gl_outbox_lock(box);
    if (!box->writes[i].done)
        offer(&box->writes[i], GL_OFFERED);
    gl_outbox_unlock(box);
}

void gl_outbox_send_for(gl_outbox *box) {
    if (__atomic_load_n(&box->count, __ATOMIC_SEQ_CST) == 0)
        return;
    gl_outbox_lock(box);
    offer_all(box, GL_BY_NETPOLLER);
    gl_outbox_unlock(box);
}

int gl_outbox_look(gl_outbox *box) {
    uint32_t free = 0, batch = __atomic_load_n(&box->batch, __ATOMIC_RELAXED);
    /* seq_cst: pairs with the loop, which stores a count and then looks whether the netpoller ticks. */
    if (__atomic_load_n(&box->count, __ATOMIC_SEQ_CST) == 0) {
        int active = box->seen != batch;
        box->seen = batch;
        return active;
    }
    if (box->seen != batch) {
        box->seen = batch; /* the loop has until the next tick */
        return 1;
    }
    GL_YIELD();
    if (__atomic_compare_exchange_n(&box->lock, &free, 1, 0, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED)) {
        offer_all(box, GL_BY_NETPOLLER); /* the batch may be a later one by now: sent a little early */
        gl_outbox_unlock(box);
    }
    return 1;
}
