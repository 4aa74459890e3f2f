/* I/O offload: the netpoller receives and sends for a loop's stream sockets.
 *
 * A gl_conn is to the loop what a socket is: gl_conn_recv and gl_conn_send never block, and what they hand over
 * lies in two rings, which are nothing but an extension of the kernel's two socket buffers. Everything here runs
 * without Python's API. HACKING.md, protocol "offload", says which thread may touch what, and why no edge and no byte
 * is lost. tests/native/stress_offload.c runs it under ThreadSanitizer with faults injected at GL_RECV and GL_SEND.
 */
#ifndef GOLOOP_OFFLOAD_H
#define GOLOOP_OFFLOAD_H

#include "netpoll.h"

#include <sys/types.h>

enum {
    GL_CONN_LOOP = 0,      /* the loop's: no other thread touches the connection */
    GL_CONN_OFFLOADED = 1, /* the netpoller may enter it, the loop may take it back */
    GL_CONN_BUSY = 2,      /* the netpoller is inside, for two non-blocking system calls and a wake-up at most */
};

typedef struct gl_ring {
    char *data;
    uint32_t base; /* producer's: the count at which data[0] is written; moved while the ring is empty, so that short
                     * messages always use the same cache lines. Published with `tail`. */
    uint32_t tail; /* atomic; bytes ever put in; producer stores */
    uint32_t head; /* atomic; bytes ever taken out; consumer stores */
} gl_ring;

typedef struct gl_conn {
    uint32_t index;      /* place in the table; constant */
    uint32_t generation; /* atomic; odd while in use; written by the loop while the word is LOOP */
    uint32_t word;       /* atomic; the ownership word, GL_CONN_* */
    int fd;              /* this block is written by the loop while the word is LOOP */
    uint32_t epoch;      /* fork epoch in which it was opened */
    gl_pollset *ps;
    void *owner;        /* loop's alone: the transport, borrowed; NULL: closed with its completion in the inbox */
    gl_node completion; /* links it into the loop's `completions` while `posted` is POSTED */
    gl_node kick;       /* links it into the netpoller's inbox while `kicked` is 1 */
    uint32_t posted;    /* atomic, see conn_post */
    uint32_t kicked;    /* atomic */
    gl_ring rx, tx;
    uint32_t rx_stalled; /* atomic; the netpoller stopped reading for want of room; the loop kicks once there is */
    int rx_end;          /* atomic; 0, GL_CONN_EOF or an errno: stands behind the last byte of rx */
    int tx_error;        /* atomic; errno with which sending ended */
    /* of the thread that is inside, hence of the netpoller while offloaded */
    uint8_t rx_ready;            /* an edge was seen, and not read dry */
    uint8_t tx_blocked;          /* the socket is full: wait for its edge */
    uint8_t short_read_drains;   /* as in transports/stream.pyx */
    struct gl_conn *next_listed; /* netpoller's alone, as the next: its list of what to serve again */
    uint32_t listed;
    struct gl_conn *next_free; /* guarded by the table's mutex */
} gl_conn;

#define GL_CONN_EOF (-1)

/* All but gl_conn_owner() and gl_conn_forget() take a connection that is open. The caller runs the loop `ps`. */
typedef struct gl_offload {
    /* Offload a connected, non-blocking stream socket that is in no epoll. NULL: errno tells why. */
    gl_conn *(*open)(gl_pollset *ps, int fd, void *owner, int short_read_drains);
    /* As recv(2): bytes, 0 at the end of the stream, -1 with errno. What is left over after that stays readable. */
    ssize_t (*recv)(gl_conn *c, void *room, size_t length);
    int (*readable)(gl_conn *c);                              /* recv would not say EAGAIN */
    uint32_t (*unread)(gl_conn *c);                           /* bytes that recv would return */
    void (*look)(gl_conn *c);                                 /* call before looking at what has completed */
    size_t (*room)(gl_conn *c);                               /* bytes that put() takes; 0 once sending has failed */
    void (*put)(gl_conn *c, const void *data, size_t length); /* length: at most room() */
    void (*kick)(gl_conn *c);  /* have sent what was put in, at the netpoller's next look; see gl_netpoller_nudge */
    int (*failed)(gl_conn *c); /* errno with which sending ended, 0: none */
    /* Take it back. Nonzero: done; 0: the netpoller is inside, try again. Then try to send what is in tx; what is left,
     * or the error, is for the loop. The socket is in no epoll. */
    int (*take_back)(gl_conn *c);
    size_t (*unsent)(gl_conn *c, const char **data); /* the next piece of what is left in tx, taken out; 0: none */
    void (*close)(gl_conn *c, uint32_t generation);  /* one that was taken back, or a forked child's; idempotent */
} gl_offload;

extern const gl_offload gl_offload_ops;

void *
gl_conn_owner(gl_node *node); /* for a node taken from a poll set's completions: its transport; NULL: it is closed */
void gl_conn_forget(gl_pollset *ps); /* before the poll set closes: no connection refers to it afterwards */

typedef struct gl_offload_stats {
    uint64_t received, sent; /* bytes */
    uint64_t serves;         /* connections entered */
    uint32_t open;           /* connections in the table, also those in which only leftovers wait */
} gl_offload_stats;

void gl_offload_get_stats(gl_offload_stats *out);

#endif
