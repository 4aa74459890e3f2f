/* Stress for poll/native/outbox.[ch], with poll/native/netpoll.c, both of which it includes: batches of a few places, a
 * random pause at every GL_YIELD(), and a kernel that sends less than it could, and says EAGAIN and EINTR.
 *
 * A loop writes to sockets whose other ends a reader checks byte by byte. Now and then it waits until its bytes have
 * arrived, and the netpoller has to send for it; with an odd seed a helper sends for it too, as a fork does. A piece is
 * freed as soon as the loop has it back: valgrind and ThreadSanitizer see a use after that. A batch that is never sent
 * shows as a stall.
 *
 *     stress_outbox SEED MILLISECONDS
 */
#define _GNU_SOURCE
#include <sys/socket.h>

#define STALL_SECONDS 8
#define STRESS_SLEEPS 8
#define STRESS_SLEEP_US 200
#define STRESS_YIELDS 12
#define STRESS_SPINS 10
#include "stress_common.h"

static ssize_t faulty_send(int fd, const struct msghdr *msg);
static ssize_t faulty_send_one(int fd, const void *data, size_t length);

#define GL_CHUNK 4
#define GL_EVENTS 2
#define GL_TICK_MS 1
#define GL_IDLE_TICKS 1
#define GL_WRITES 3
#define GL_PIECES 2
#define GL_OUT(fd, msg) faulty_send(fd, msg)
#define GL_OUT_ONE(fd, data, length) faulty_send_one(fd, data, length)
#include "netpoll.c"
#include "outbox.c"

enum { STREAMS = 5, MOST = 40 };

typedef struct {
    int fd, peer;
    uint32_t place;   /* the loop's: in the outbox */
    uint64_t written; /* the loop's: bytes */
    uint64_t read;    /* atomic; bytes that the reader has seen */
    int by_netpoller; /* the loop's: outcomes */
} stream;

static stream streams[STREAMS];
static gl_inbox inbox;
static gl_pollset *ps;
static gl_outbox *box;
static uint32_t over; /* atomic */

static void print_state(void) {
    for (int i = 0; i < STREAMS; i++)
        fprintf(stderr, "stream %d: %llu written, %llu read, place %u\n", i, (unsigned long long)streams[i].written,
                (unsigned long long)__atomic_load_n(&streams[i].read, __ATOMIC_RELAXED), streams[i].place);
    fprintf(stderr, "%u in the batch, the netpoller ticks: %u\n", box->count, ticking);
}

static unsigned char byte_at(uint64_t i) { return (unsigned char)(i * 31 + (i >> 8)); }

static ssize_t faulty_send_one(int fd, const void *data, size_t length) {
    uint32_t n = rnd(10);
    if (n < 2) {
        errno = n ? EAGAIN : EINTR;
        return -1;
    }
    return send(fd, data, n < 5 && length > 1 ? 1 + rnd((uint32_t)length - 1) : length, MSG_NOSIGNAL);
}

static ssize_t faulty_send(int fd, const struct msghdr *msg) {
    uint32_t n = rnd(10);
    if (n < 4) /* a short one */
        return faulty_send_one(fd, msg->msg_iov[0].iov_base, msg->msg_iov[0].iov_len);
    return sendmsg(fd, msg, MSG_NOSIGNAL);
}

static void *read_all(void *unused) {
    while (!__atomic_load_n(&over, __ATOMIC_SEQ_CST)) {
        int idle = 1;
        for (int i = 0; i < STREAMS; i++) {
            unsigned char bytes[256];
            ssize_t n = recv(streams[i].peer, bytes, sizeof bytes, MSG_DONTWAIT);
            uint64_t at = __atomic_load_n(&streams[i].read, __ATOMIC_RELAXED);
            for (ssize_t k = 0; k < n; k++)
                CHECK(bytes[k] == byte_at(at + (uint64_t)k), "stream %d: byte %llu is wrong", i,
                      (unsigned long long)at + (unsigned long long)k);
            if (n > 0) {
                __atomic_store_n(&streams[i].read, at + (uint64_t)n, __ATOMIC_SEQ_CST);
                idle = 0;
            }
        }
        if (idle)
            nap_us(50);
    }
    return unused;
}

static void *send_for_everybody(void *unused) {
    while (!__atomic_load_n(&over, __ATOMIC_SEQ_CST)) {
        if (seed % 2) /* else nothing makes good what the netpoller forgets */
            gl_send_collected();
        nap_us(200 + rnd(3000));
    }
    return unused;
}

static void send_rest(int fd, const unsigned char *data, size_t length) {
    while (length) {
        ssize_t n = send(fd, data, length, MSG_NOSIGNAL);
        if (n < 0) {
            CHECK(errno == EAGAIN || errno == EINTR, "send: %s", strerror(errno));
            nap_us(50);
            n = 0;
        }
        data += n;
        length -= (size_t)n;
    }
}

/* The outcome of a write: what the kernel did not take is sent here, before anything that is written later. */
static void deliver(uint32_t i) {
    gl_write *w = &box->writes[i];
    stream *s = w->owner;
    size_t skip;
    if (s == NULL)
        return;
    CHECK(w->done && w->sent >= 0 && (size_t)w->sent <= w->length, "not sent: done %d, %zd of %zu", w->done, w->sent,
          w->length);
    CHECK(!w->error || w->error == EAGAIN || w->error == EINTR, "send: %s", strerror(w->error));
    s->by_netpoller += w->done == GL_BY_NETPOLLER;
    skip = (size_t)w->sent;
    for (int k = 0; k < w->pieces; k++) {
        size_t gone = skip < w->iov[k].iov_len ? skip : w->iov[k].iov_len;
        send_rest(s->fd, (unsigned char *)w->iov[k].iov_base + gone, w->iov[k].iov_len - gone);
        skip -= gone;
        free(w->held[k]);
    }
    w->pieces = 0;
    w->owner = NULL;
    s->place = 0;
}

static void settle(stream *s) {
    uint32_t place = s->place;
    if (place) {
        gl_outbox_send_one(box, place - 1);
        deliver(place - 1);
    }
}

static void flush(void) {
    gl_outbox_send(box);
    for (uint32_t i = 0; i < box->count; i++)
        deliver(i);
    gl_outbox_empty(box);
}

static void add(stream *s) {
    size_t length = 1 + rnd(MOST);
    unsigned char *piece = malloc(length);
    int first = box->count == 0;
    uint32_t place;
    for (size_t k = 0; k < length; k++)
        piece[k] = byte_at(s->written + k);
    s->written += length;
    if (first)
        gl_outbox_begin(box);
    place = gl_outbox_add(box, s->place, s->fd, s, piece, piece, length, 3 * MOST / 2);
    if (place) {
        s->place = place;
        if (first)
            CHECK(gl_netpoller_tick() == 0, "the netpoller cannot be started");
        return;
    }
    if (s->place)
        settle(s);
    else
        flush(); /* full */
    send_rest(s->fd, piece, length);
    free(piece);
}

static void wait_until_read(void) {
    for (int i = 0; i < STREAMS; i++) {
        uint64_t left = 0; /* what a send did not take is the loop's to send, when it goes on */
        while (__atomic_load_n(&streams[i].read, __ATOMIC_SEQ_CST) + left < streams[i].written) {
            if (streams[i].place) {
                gl_write *w = &box->writes[streams[i].place - 1];
                gl_outbox_lock(box);
                left = w->done ? w->length - (size_t)w->sent : 0;
                gl_outbox_unlock(box);
            }
            nap_us(200);
        }
    }
}

static unsigned run(void) {
    unsigned rounds = 0;
    for (; going(); rounds++) {
        for (uint32_t n = rnd(8); n > 0; n--) {
            stream *s = &streams[rnd(STREAMS)];
            if (rnd(8) == 0)
                settle(s);
            else
                add(s);
        }
        if (rnd(4) == 0)
            wait_until_read(); /* stuck */
        if (rnd(4))
            flush();
        if (rnd(10) == 0) {
            flush();
            nap_us(500 + rnd(1500)); /* long enough for the netpoller to cease ticking, now and then */
        }
        beat();
    }
    flush();
    wait_until_read();
    return rounds;
}

int main(int argc, char **argv) {
    pthread_t reader, helper;
    unsigned rounds;
    int by_netpoller = 0, before = count_fds();
    if (argc != 3) {
        fprintf(stderr, "usage: %s SEED MILLISECONDS\n", argv[0]);
        return 2;
    }
    seed = strtoull(argv[1], NULL, 10);
    ps = gl_pollset_open(&inbox);
    CHECK(ps != NULL && (box = gl_pollset_outbox(ps)) != NULL, "gl_pollset_open: %s", strerror(errno));
    for (int i = 0; i < STREAMS; i++) {
        int pair[2];
        CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair) == 0, "socketpair: %s", strerror(errno));
        streams[i].fd = pair[0];
        streams[i].peer = pair[1];
    }
    reader = start_thread(read_all, NULL);
    helper = start_thread(send_for_everybody, NULL);
    rounds = run_watched(run, argv[2]);
    __atomic_store_n(&over, 1, __ATOMIC_SEQ_CST);
    pthread_join(reader, NULL);
    pthread_join(helper, NULL);
    gl_pollset_close(ps);
    for (int i = 0; i < STREAMS; i++) {
        by_netpoller += streams[i].by_netpoller;
        close(streams[i].fd);
        close(streams[i].peer);
    }
    CHECK(count_fds() == before, "%d descriptors before, %d now", before, count_fds());
    printf("ok: %u rounds, %d writes sent for the loop\n", rounds, by_netpoller);
    free(box);
    for (int i = 0; i < CHUNKS && chunks[i] != NULL; i++)
        free(chunks[i]);
    return 0;
}
