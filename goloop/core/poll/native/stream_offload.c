/* See stream_offload.h for what this file promises, and HACKING.md for the protocol "offload". */
#define _GNU_SOURCE
#include "stream_offload.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>

/* A stress build puts faults here, and shrinks the rings. */
#ifndef GL_RECV
#define GL_RECV(fd, msg) recvmsg(fd, msg, 0)
#define GL_SEND(fd, msg) sendmsg(fd, msg, MSG_NOSIGNAL)
#endif
#ifndef GL_RING
#define GL_RING 65536 /* bytes, a power of two; of each direction of each connection */
#define GL_SERVES 32  /* connections served again between two looks at the master: parked loops wait that long */
#define GL_CONNS 64   /* connections allocated at a time */
#define GL_SPARES 256 /* rings kept for reuse */
#endif

enum { NOT_POSTED = 0, POSTED = 1, TAKEN = 2 };

static uint32_t load(const uint32_t *word) { return __atomic_load_n(word, __ATOMIC_SEQ_CST); }
static void store(uint32_t *word, uint32_t value) { __atomic_store_n(word, value, __ATOMIC_SEQ_CST); }

/* ------------------------------------------------------------------- ring
 * One producer, one consumer. The counts wrap, and GL_RING divides 2^32. */
static uint32_t ring_used(const gl_ring *r) { return load(&r->tail) - load(&r->head); }

/* The pieces of memory for `length` bytes from `count` on. */
static int ring_pieces(const gl_ring *r, uint32_t count, uint32_t length, struct iovec iov[2]) {
    uint32_t at = (count - r->base) % GL_RING, first = length < GL_RING - at ? length : GL_RING - at;
    iov[0] = (struct iovec){r->data + at, first};
    iov[1] = (struct iovec){r->data, length - first};
    return iov[1].iov_len ? 2 : 1;
}

/* Producer: how much fits. acquire: the consumer has read what it says it has taken. */
static uint32_t ring_room(gl_ring *r) {
    uint32_t tail = __atomic_load_n(&r->tail, __ATOMIC_RELAXED), head = load(&r->head);
    if (head == tail)
        r->base = tail; /* the consumer looks at it again only after it has seen a new tail */
    return GL_RING - (tail - head);
}

/* ------------------------------------------------------------------ table
 * As of poll sets: never freed, so that a late event, or a late kick, finds a connection and not a fault. */
#define CONN_CHUNKS 1024
#define CONN_MARK (UINT32_C(1) << 31) /* in the low half of the epoll data: a connection's, not a poll set's */

static pthread_mutex_t conns_lock = PTHREAD_MUTEX_INITIALIZER;
static gl_conn *conn_chunks[CONN_CHUNKS]; /* a pointer is stored (release) once; the netpoller loads (acquire) */
static uint32_t conns_size;               /* guarded by conns_lock */
static gl_conn *free_conns;               /* guarded by conns_lock */
static uint32_t conns_open;               /* atomic; stored under conns_lock */
static void *spare_rings[GL_SPARES];      /* guarded by conns_lock */
static uint32_t spare_count;              /* guarded by conns_lock */
static uint64_t count_received, count_sent, count_serves; /* atomic, relaxed */

static gl_inbox kicks; /* what loops want the netpoller to look at */
/* The netpoller's, or of the thread that starts or ends it. */
static gl_conn *listed_first, **listed_last = &listed_first;

static gl_conn *conn_at(uint32_t index) {
    gl_conn *chunk =
        index / GL_CONNS < CONN_CHUNKS ? __atomic_load_n(&conn_chunks[index / GL_CONNS], __ATOMIC_ACQUIRE) : NULL;
    return chunk ? &chunk[index % GL_CONNS] : NULL;
}

static gl_conn *conn_take(void) { /* under conns_lock */
    gl_conn *c = free_conns;
    if (c != NULL) {
        free_conns = c->next_free;
        return c;
    }
    if (conns_size == GL_CONNS * CONN_CHUNKS) {
        errno = ENFILE;
        return NULL;
    }
    if (conns_size % GL_CONNS == 0) {
        gl_conn *chunk = calloc(GL_CONNS, sizeof(gl_conn));
        if (chunk == NULL)
            return NULL;
        __atomic_store_n(&conn_chunks[conns_size / GL_CONNS], chunk, __ATOMIC_RELEASE);
    }
    c = conn_at(conns_size);
    c->index = conns_size++;
    c->completion.item = c;
    c->kick.item = c;
    return c;
}

static char *ring_take(void) { /* under conns_lock */
    return spare_count ? spare_rings[--spare_count] : malloc(GL_RING);
}

static void ring_give(gl_ring *r) { /* under conns_lock */
    if (r->data != NULL && spare_count < GL_SPARES)
        spare_rings[spare_count++] = r->data;
    else
        free(r->data);
    r->data = NULL;
}

static void conn_free(gl_conn *c) { /* under conns_lock */
    ring_give(&c->rx);
    ring_give(&c->tx);
    __atomic_add_fetch(&c->generation, 1, __ATOMIC_RELEASE);
    c->ps = NULL;
    c->owner = NULL;
    c->next_free = free_conns;
    free_conns = c;
    __atomic_sub_fetch(&conns_open, 1, __ATOMIC_SEQ_CST);
}

/* -------------------------------------------------------------- netpoller */
static int enter(gl_conn *c) {
    uint32_t expected = GL_CONN_OFFLOADED;
    /* acquire: what the loop wrote before it gave the connection away; pairs with conn_open. */
    return __atomic_compare_exchange_n(&c->word, &expected, GL_CONN_BUSY, 0, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED);
}

static void leave(gl_conn *c) {
    GL_YIELD();
    __atomic_store_n(&c->word, GL_CONN_OFFLOADED, __ATOMIC_RELEASE); /* pairs with conn_take_back */
}

/* There is a completion for the loop. One that was told and has not looked yet will see them when it looks; conn_look stores
 * NOT_POSTED, then looks, and the completion was stored before we look at `posted`. */
static void conn_post(gl_conn *c) {
    uint32_t expected = NOT_POSTED;
    GL_YIELD();
    if (__atomic_compare_exchange_n(&c->posted, &expected, POSTED, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST) &&
        gl_inbox_push(&c->ps->completions, &c->completion) == GL_INBOX_FIRST)
        gl_unpark(c->ps);
}

/* Room in the receive ring; 0: the netpoller stops reading, until the loop has made room and kicks. */
static uint32_t room_or_stall(gl_conn *c) {
    uint32_t room = ring_room(&c->rx);
    if (room)
        return room;
    store(&c->rx_stalled, 1);
    GL_YIELD();
    /* seq_cst: "I stalled" comes before this second look. Pairs with conn_recv, which makes room, then looks
     * whether we stalled. */
    room = ring_room(&c->rx);
    if (room < GL_RING / 2)
        return 0;
    store(&c->rx_stalled, 0);
    return room;
}

/* One recvmsg. Returns 1 if it completed something; *again: there may be more. */
static int receive(gl_conn *c, int *again) {
    struct iovec iov[2];
    struct msghdr msg = {.msg_iov = iov};
    uint32_t room, tail = __atomic_load_n(&c->rx.tail, __ATOMIC_RELAXED);
    ssize_t n;
    if (!c->rx_ready || c->rx_end || (room = room_or_stall(c)) == 0)
        return 0;
    msg.msg_iovlen = ring_pieces(&c->rx, tail, room, iov);
    n = GL_RECV(c->fd, &msg);
    if (n > 0) {
        store(&c->rx.tail, tail + (uint32_t)n); /* release: the bytes and `base`; pairs with conn_recv */
        __atomic_fetch_add(&count_received, n, __ATOMIC_RELAXED);
        if ((uint32_t)n < room && c->short_read_drains)
            c->rx_ready = 0;
        else
            *again = 1;
        return 1;
    }
    if (n < 0 && errno == EINTR) {
        *again = 1;
        return 0;
    }
    c->rx_ready = 0;
    if (n < 0 && errno == EAGAIN)
        return 0;
    __atomic_store_n(&c->rx_end, n == 0 ? GL_CONN_EOF : errno, __ATOMIC_SEQ_CST);
    return 1;
}

/* One sendmsg. Returns 1 if it completed something, which is only an error; *again: there is more to send, and there may be
 * room. */
static int transmit(gl_conn *c, int *again) {
    struct iovec iov[2];
    struct msghdr msg = {.msg_iov = iov};
    uint32_t head = __atomic_load_n(&c->tx.head, __ATOMIC_RELAXED), left = load(&c->tx.tail) - head;
    ssize_t n;
    if (left == 0 || c->tx_blocked || c->tx_error)
        return 0;
    msg.msg_iovlen = ring_pieces(&c->tx, head, left, iov);
    n = GL_SEND(c->fd, &msg);
    if (n >= 0) {
        __atomic_store_n(&c->tx.head, head + (uint32_t)n, __ATOMIC_SEQ_CST); /* release: we have read the bytes */
        __atomic_fetch_add(&count_sent, n, __ATOMIC_RELAXED);
        if ((uint32_t)n < left)
            *again = 1;
        return 0;
    }
    if (errno == EAGAIN) {
        c->tx_blocked = 1;
    } else if (errno == EINTR) {
        *again = 1;
    } else {
        __atomic_store_n(&c->tx_error, errno, __ATOMIC_SEQ_CST);
        return 1;
    }
    return 0;
}

static void list(gl_conn *c) {
    if (!c->listed) {
        c->listed = 1;
        c->next_listed = NULL;
        *listed_last = c;
        listed_last = &c->next_listed;
    }
}

static void serve(gl_conn *c) { /* the netpoller is inside */
    int again = 0, completed = receive(c, &again);
    __atomic_fetch_add(&count_serves, 1, __ATOMIC_RELAXED);
    if (completed)
        conn_post(c);
    if (transmit(c, &again))
        conn_post(c);
    if (again)
        list(c);
}

/* An event of the master. If the loop has claimed the connection, it goes to the loop's poll set, which will report
 * what is ready then; if it is another one by now, the event is stale. */
static int netpoller_event(uint64_t key, uint32_t events) {
    gl_conn *c;
    if (!((uint32_t)key & CONN_MARK))
        return 0;
    c = conn_at((uint32_t)key & ~CONN_MARK);
    if (c == NULL || !enter(c))
        return 1;
    if (__atomic_load_n(&c->generation, __ATOMIC_RELAXED) == (uint32_t)(key >> 32)) {
        if (events & (EPOLLPRI | EPOLLRDHUP | EPOLLHUP | EPOLLERR))
            c->short_read_drains = 0;
        if (events & ~(uint32_t)EPOLLOUT)
            c->rx_ready = 1;
        if (events & (EPOLLOUT | EPOLLHUP | EPOLLERR))
            c->tx_blocked = 0;
        serve(c);
    }
    leave(c);
    return 1;
}

/* A bounded amount of work. Nonzero: there is more. */
static int netpoller_round(void) {
    for (gl_node *node = gl_inbox_take(&kicks), *next; node != NULL; node = next) {
        gl_conn *c = node->item;
        next = node->next;
        GL_YIELD();
        store(&c->kicked, 0); /* before we look at the rings; pairs with conn_kick */
        list(c);
    }
    for (int i = 0; i < GL_SERVES && listed_first != NULL; i++) {
        gl_conn *c = listed_first;
        listed_first = c->next_listed;
        if (listed_first == NULL)
            listed_last = &listed_first;
        c->listed = 0;
        if (enter(c)) { /* else the loop has it, and what was to be done */
            serve(c);
            leave(c);
        }
    }
    return listed_first != NULL;
}

static int netpoller_idle(void) { return listed_first == NULL && gl_inbox_empty(&kicks); }

static int any_open(void) { return __atomic_load_n(&conns_open, __ATOMIC_SEQ_CST) != 0; }

static void before_conns_fork(void) { pthread_mutex_lock(&conns_lock); }
static void after_conns_fork(void) { pthread_mutex_unlock(&conns_lock); }

/* In a forked child the parent's connections are closed for the netpoller, and what waits in them is the parent's to
 * send. The transports find another generation. */
static void forget_parents_conns(void) {
    gl_inbox_open(&kicks);
    listed_first = NULL;
    listed_last = &listed_first;
    for (uint32_t i = 0; i < conns_size; i++) {
        gl_conn *c = conn_at(i);
        c->kicked = c->posted = c->listed = 0;
        c->word = GL_CONN_LOOP;
        if (c->generation % 2)
            conn_free(c);
    }
    pthread_mutex_unlock(&conns_lock);
}

static const gl_guest conns_guest = {netpoller_event,   netpoller_round,  netpoller_idle,      any_open,
                                     before_conns_fork, after_conns_fork, forget_parents_conns};

__attribute__((constructor)) static void hook_netpoller(void) {
    gl_inbox_open(&kicks);
    gl_netpoller_host(&conns_guest);
}

/* ------------------------------------------------------------------- loop */
static void conn_init(gl_conn *c, gl_pollset *ps, int fd, void *owner, int short_read_drains) {
    c->rx = (gl_ring){.data = ring_take()};
    c->tx = (gl_ring){.data = ring_take()};
    c->fd = fd;
    c->epoch = gl_fork_epoch();
    c->ps = ps;
    c->owner = owner;
    c->rx_stalled = c->rx_end = c->tx_error = 0;
    c->rx_ready = c->tx_blocked = 0;
    c->short_read_drains = (uint8_t)short_read_drains;
    __atomic_store_n(&c->posted, NOT_POSTED, __ATOMIC_RELAXED);
    __atomic_add_fetch(&c->generation, 1, __ATOMIC_RELEASE);
}

/* Let the netpoller serve it. Returns 0, or an error, and then it is the loop's as before. */
static int conn_publish(gl_conn *c) {
    int error;
    GL_YIELD();
    /* Before the ADD, which reports what is ready already: an edge that finds the door closed would be lost. */
    __atomic_store_n(&c->word, GL_CONN_OFFLOADED, __ATOMIC_RELEASE);
    error = gl_netpoller_add(c->fd, EPOLLIN | EPOLLOUT | EPOLLPRI | EPOLLRDHUP | EPOLLET,
                             (uint64_t)c->generation << 32 | CONN_MARK | c->index);
    while (error) {
        uint32_t expected = GL_CONN_OFFLOADED;
        if (__atomic_compare_exchange_n(&c->word, &expected, GL_CONN_LOOP, 0, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED))
            break;
        sched_yield(); /* an earlier user's kick brought the netpoller in */
    }
    return error;
}

static gl_conn *conn_open(gl_pollset *ps, int fd, void *owner, int short_read_drains) {
    gl_conn *c;
    int error;
    pthread_mutex_lock(&conns_lock);
    c = conn_take();
    if (c != NULL) {
        conn_init(c, ps, fd, owner, short_read_drains);
        __atomic_add_fetch(&conns_open, 1, __ATOMIC_SEQ_CST);
    }
    pthread_mutex_unlock(&conns_lock);
    if (c == NULL)
        return NULL;
    error = c->rx.data && c->tx.data ? conn_publish(c) : ENOMEM;
    if (error) {
        pthread_mutex_lock(&conns_lock);
        conn_free(c);
        pthread_mutex_unlock(&conns_lock);
        errno = error;
        return NULL;
    }
    return c;
}

/* The netpoller sees it when it looks next. If it sleeps, the loop still has to nudge it, after some more of them. */
static void conn_kick(gl_conn *c) {
    /* seq_cst: what was put in comes before the exchange; pairs with netpoller_round, which clears, then looks. */
    if (__atomic_exchange_n(&c->kicked, 1, __ATOMIC_SEQ_CST))
        return;
    GL_YIELD();
    gl_inbox_push(&kicks, &c->kick); /* seq_cst: before the look at `dozing` by gl_netpoller_nudge */
}

static ssize_t conn_recv(gl_conn *c, void *room, size_t length) {
    int end = __atomic_load_n(&c->rx_end, __ATOMIC_SEQ_CST); /* before tail: what follows it is final then */
    uint32_t head = __atomic_load_n(&c->rx.head, __ATOMIC_RELAXED), have = load(&c->rx.tail) - head;
    struct iovec iov[2];
    if (have > length)
        have = (uint32_t)length;
    if (have == 0) {
        if (end == GL_CONN_EOF)
            return 0;
        errno = end ? end : EAGAIN;
        return -1;
    }
    ring_pieces(&c->rx, head, have, iov);
    memcpy(room, iov[0].iov_base, iov[0].iov_len);
    memcpy((char *)room + iov[0].iov_len, iov[1].iov_base, iov[1].iov_len);
    GL_YIELD();
    store(&c->rx.head, head + have); /* release: we have read the bytes; seq_cst: comes before the look, see receive */
    if (load(&c->rx_stalled) && ring_used(&c->rx) <= GL_RING / 2 &&
        __atomic_exchange_n(&c->rx_stalled, 0, __ATOMIC_SEQ_CST) &&
        __atomic_load_n(&c->word, __ATOMIC_RELAXED) != GL_CONN_LOOP) {
        conn_kick(c);
        gl_netpoller_nudge();
    }
    return have;
}

static int conn_readable(gl_conn *c) {
    return __atomic_load_n(&c->rx_end, __ATOMIC_SEQ_CST) != 0 || ring_used(&c->rx) != 0;
}

static uint32_t conn_unread(gl_conn *c) { return ring_used(&c->rx); }

static void conn_look(gl_conn *c) {
    uint32_t expected = TAKEN;
    /* While it is POSTED, the node is in the inbox, and the loop will be told again. */
    __atomic_compare_exchange_n(&c->posted, &expected, NOT_POSTED, 0, __ATOMIC_SEQ_CST, __ATOMIC_RELAXED);
    GL_YIELD();
}

static int conn_failed(gl_conn *c) { return __atomic_load_n(&c->tx_error, __ATOMIC_SEQ_CST); }

static size_t conn_room(gl_conn *c) { return conn_failed(c) ? 0 : ring_room(&c->tx); }

static void conn_put(gl_conn *c, const void *data, size_t length) {
    uint32_t tail = __atomic_load_n(&c->tx.tail, __ATOMIC_RELAXED);
    struct iovec iov[2];
    ring_pieces(&c->tx, tail, (uint32_t)length, iov);
    memcpy(iov[0].iov_base, data, iov[0].iov_len);
    memcpy(iov[1].iov_base, (const char *)data + iov[0].iov_len, iov[1].iov_len);
    GL_YIELD();
    store(&c->tx.tail, tail + (uint32_t)length); /* release: the bytes and `base`; pairs with transmit */
}

static int conn_take_back(gl_conn *c) {
    uint32_t expected = GL_CONN_OFFLOADED;
    int again, i;
    if (!__atomic_compare_exchange_n(&c->word, &expected, GL_CONN_LOOP, 0, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED))
        return expected == GL_CONN_LOOP;
    gl_netpoller_remove(c->fd);
    /* What was put into the ring counts as written, so it goes to the kernel now, if that takes it. */
    for (i = 0, again = 1; again && i < 4; i++) {
        again = 0;
        transmit(c, &again);
    }
    return 1;
}

static size_t conn_unsent(gl_conn *c, const char **data) {
    uint32_t head = c->tx.head, left = c->tx.tail - head;
    struct iovec iov[2];
    if (left == 0)
        return 0;
    ring_pieces(&c->tx, head, left, iov);
    *data = iov[0].iov_base;
    c->tx.head = head + (uint32_t)iov[0].iov_len;
    return iov[0].iov_len;
}

static void conn_close(gl_conn *c, uint32_t generation) {
    pthread_mutex_lock(&conns_lock);
    if (__atomic_load_n(&c->generation, __ATOMIC_RELAXED) == generation) {
        /* POSTED, and in the inbox, from which gl_conn_owner takes and frees it. NOT_POSTED stays so: the netpoller
         * does not enter any more. */
        if (__atomic_load_n(&c->posted, __ATOMIC_RELAXED) == POSTED)
            c->owner = NULL;
        else
            conn_free(c);
    }
    pthread_mutex_unlock(&conns_lock);
}

void *gl_conn_owner(gl_node *node) {
    gl_conn *c = node->item;
    void *owner = c->owner;
    if (owner != NULL) {
        store(&c->posted, TAKEN);
        return owner;
    }
    pthread_mutex_lock(&conns_lock);
    conn_free(c);
    pthread_mutex_unlock(&conns_lock);
    return NULL;
}

void gl_conn_forget(gl_pollset *ps) {
    pthread_mutex_lock(&conns_lock); /* which the netpoller does not take */
    for (uint32_t i = 0; i < conns_size; i++) {
        gl_conn *c = conn_at(i);
        if (c->ps != ps)
            continue;
        while (!conn_take_back(c))
            sched_yield();
        conn_free(c);
    }
    pthread_mutex_unlock(&conns_lock);
}

void gl_offload_get_stats(gl_offload_stats *out) {
    out->received = __atomic_load_n(&count_received, __ATOMIC_RELAXED);
    out->sent = __atomic_load_n(&count_sent, __ATOMIC_RELAXED);
    out->serves = __atomic_load_n(&count_serves, __ATOMIC_RELAXED);
    out->open = __atomic_load_n(&conns_open, __ATOMIC_SEQ_CST);
}

const gl_offload gl_offload_ops = {conn_open, conn_recv, conn_readable, conn_unread,    conn_look,   conn_room,
                                   conn_put,  conn_kick, conn_failed,   conn_take_back, conn_unsent, conn_close};
