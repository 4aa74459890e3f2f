/* Stress for poll/native/stream_offload.c, which it includes with poll/native/netpoll.c: rings of a few bytes, a random
 * pause at every GL_YIELD(), and a kernel that sends and receives less than it could, says EAGAIN and EINTR when it
 * need not, and resets connections. A loop L drives connections whose other ends are plain threads; every byte is
 * checked, in both directions, through random claims, re-offloads and parks. A lost edge, kick or piece of news shows
 * as a stall.
 *
 *     stress_offload SEED MILLISECONDS [CASES]     cases: letters out of abcde; each runs that long
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <poll.h>
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/wait.h>

#define STALL_SECONDS 8
#define STRESS_SLEEPS 2
#define STRESS_SLEEP_US 60
#define STRESS_YIELDS 12
#define STRESS_SPINS 10
#include "stress_common.h"

/* ----------------------------------------------------------------- faults
 * An EAGAIN that the kernel did not say has no edge behind it. So one is invented only where the next event is certain:
 * the descriptor's number goes to a thread that makes the edge by registering anew (MOD), as a new edge would come. */
static uint32_t faults; /* atomic; the case wants them */
static void remind(int fd);

static int cut(struct msghdr *msg, uint32_t most) { /* make it `most` bytes at most; the number of bytes it was */
    uint32_t had = 0;
    for (size_t i = 0; i < msg->msg_iovlen; i++) {
        uint32_t len = (uint32_t)msg->msg_iov[i].iov_len, take = len < most ? len : most;
        had += len;
        msg->msg_iov[i].iov_len = take;
        most -= take;
    }
    return (int)had;
}

static ssize_t faulty_recv(int fd, struct msghdr *msg);
static ssize_t faulty_send(int fd, struct msghdr *msg);

#define GL_SHORT_MS 1
#define GL_UNMINDED 3
#define GL_CHUNK 4
#define GL_EVENTS 2
#define GL_RING 32
#define GL_SERVES 2
#define GL_CONNS 4
#define GL_SPARES 3
#define GL_RECV(fd, msg) faulty_recv(fd, msg)
#define GL_SEND(fd, msg) faulty_send(fd, msg)
#include "netpoll.c"
#include "outbox.c"
#include "stream_offload.c"

static __thread int runs_a_loop; /* else it is the netpoller that receives and sends */

static ssize_t faulty_recv(int fd, struct msghdr *msg) {
    uint32_t n = __atomic_load_n(&faults, __ATOMIC_RELAXED) ? rnd(8) : 7;
    if (n == 0) {
        errno = EINTR;
        return -1;
    }
    if (n == 1) {
        remind(fd);
        errno = EAGAIN;
        return -1;
    }
    if (n < 5) { /* short, but a short read says that nothing is left: the bytes behind it need an edge too */
        cut(msg, 1 + rnd(7));
        remind(fd);
    }
    return recvmsg(fd, msg, 0);
}

static ssize_t faulty_send(int fd, struct msghdr *msg) {
    uint32_t n = __atomic_load_n(&faults, __ATOMIC_RELAXED) ? rnd(8) : 7;
    if (n == 0) {
        errno = EINTR;
        return -1;
    }
    if (n == 1) {
        remind(fd);
        errno = EAGAIN;
        return -1;
    }
    if (n < 5)
        cut(msg, 1 + rnd(7));
    return sendmsg(fd, msg, MSG_NOSIGNAL);
}

/* -------------------------------------------------------------- verdicts */
static void print_state(void) {
    for (uint32_t i = 0; i < conns_size; i++) {
        gl_conn *c = conn_at(i);
        if (c->generation % 2)
            fprintf(stderr,
                    "conn %u: word %u posted %u kicked %u listed %u rx %u-%u stalled %u end %d ready %u "
                    "tx %u-%u blocked %u error %d\n",
                    i, c->word, c->posted, c->kicked, c->listed, c->rx.head, c->rx.tail, c->rx_stalled, c->rx_end,
                    c->rx_ready, c->tx.head, c->tx.tail, c->tx_blocked, c->tx_error);
    }
    fprintf(stderr, "dozing %u, kicks %s\n", dozing, gl_inbox_empty(&kicks) ? "empty" : "not empty");
}

/* ----------------------------------------------------------------- a wire
 * Our end is the loop's: in its poll set, or offloaded. The peer is a thread that sends `todo` bytes and gets as many;
 * byte n of a direction is pattern(n). */
enum { WIRES = 5, MOST = 400 };

typedef struct wire {
    int ours, theirs;
    pthread_t peer;
    struct world *world;
    uint32_t todo;         /* bytes each way */
    int reset;             /* the peer resets the connection instead of ending it */
    uint32_t written, got; /* the loop's: bytes given to send, bytes received and checked */
    char buffer[MOST];     /* the loop's: what take_back found unsent, and what was written since */
    uint32_t buffered;
    int writable; /* the loop's: latched edges */
    int readable;
    int ended; /* EOF or an error came */
    int closed;
    int eof_sent;
    gl_conn *conn;
    uint32_t generation;
    int offloaded;
} wire;

typedef struct world {
    gl_pollset *ps;
    uint32_t kicks; /* that the netpoller was not nudged for */
    wire wires[WIRES];
    int count;
} world;

static char pattern(uint32_t n, int to_peer) { return (char)(n * 7 + (n >> 8) * 13 + (to_peer ? 31 : 0)); }

static world *reminded; /* atomic; the world whose descriptors remind() knows */

/* Called by whoever receives or sends: make the kernel report the descriptor again. */
static void remind(int fd) {
    world *w = __atomic_load_n(&reminded, __ATOMIC_ACQUIRE);
    for (int i = 0; w != NULL && i < w->count; i++) {
        wire *l = &w->wires[i];
        struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLPRI | EPOLLRDHUP | EPOLLET};
        if (l->ours != fd)
            continue;
        if (!runs_a_loop) {
            gl_conn *c = NULL; /* the one that is entered now and has this descriptor */
            for (uint32_t k = 0; conn_at(k) != NULL; k++)
                if (__atomic_load_n(&conn_at(k)->word, __ATOMIC_RELAXED) == GL_CONN_BUSY && conn_at(k)->fd == fd)
                    c = conn_at(k);
            if (c == NULL)
                return;
            event.data.u64 = (uint64_t)c->generation << 32 | CONN_MARK | c->index;
            CHECK(epoll_ctl(master, EPOLL_CTL_MOD, fd, &event) == 0, "remind: %s", strerror(errno));
        }
        return; /* the loop that claims is about to register it anew, which reports what is ready */
    }
}

static void *be_peer(void *arg) {
    wire *l = arg;
    uint32_t sent = 0, got = 0;
    int writing = 1;
    while (got < l->todo || writing) {
        struct pollfd p = {.fd = l->theirs, .events = POLLIN | (sent < l->todo ? POLLOUT : 0)};
        char data[64];
        CHECK(poll(&p, 1, -1) == 1, "poll: %s", strerror(errno));
        if (p.revents & POLLOUT && sent < l->todo) {
            uint32_t want = 1 + rnd(sizeof data), n;
            if (want > l->todo - sent)
                want = l->todo - sent;
            for (n = 0; n < want; n++)
                data[n] = pattern(sent + n, 0);
            n = (uint32_t)send(l->theirs, data, want, MSG_NOSIGNAL);
            CHECK((int)n > 0 || errno == EAGAIN, "the peer cannot send: %s", strerror(errno));
            if ((int)n > 0)
                sent += n;
        }
        if (sent == l->todo && writing) {
            if (!l->reset)
                shutdown(l->theirs, SHUT_WR);
            writing = 0;
        }
        if (p.revents & (POLLIN | POLLHUP | POLLERR)) {
            ssize_t n = recv(l->theirs, data, 1 + rnd(sizeof data), 0);
            CHECK(n > 0 || (n < 0 && errno == EAGAIN), "the peer got %zd, error %d, after %u of %u", n, errno, got,
                  l->todo);
            for (ssize_t i = 0; i < n; i++)
                CHECK(data[i] == pattern(got + (uint32_t)i, 1), "the peer got a wrong byte at %u", got + (uint32_t)i);
            if (n > 0)
                got += (uint32_t)n;
        }
        if (rnd(8) == 0)
            nap_us(rnd(50));
        beat();
    }
    if (l->reset) {
        struct linger now = {1, 0};
        setsockopt(l->theirs, SOL_SOCKET, SO_LINGER, &now, sizeof now);
    }
    close(l->theirs);
    return NULL;
}

static void make_pair(int pair[2]) {
    static int listener = -1;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t size = sizeof address;
    if (listener < 0) {
        listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        CHECK(listener >= 0 && bind(listener, (struct sockaddr *)&address, size) == 0 && listen(listener, 64) == 0,
              "listen: %s", strerror(errno));
    }
    getsockname(listener, (struct sockaddr *)&address, &size);
    pair[0] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CHECK(connect(pair[0], (struct sockaddr *)&address, size) == 0, "connect: %s", strerror(errno));
    pair[1] = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    CHECK(pair[1] >= 0, "accept: %s", strerror(errno));
    for (int i = 0, one = 1; i < 2; i++)
        setsockopt(pair[i], IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    fcntl(pair[0], F_SETFL, O_NONBLOCK);
}

/* -------------------------------------------------- the loop's side of it
 * What transports/stream.pyx does with a connection, in small. */
static void watch(wire *l) {
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLPRI | EPOLLRDHUP | EPOLLET, .data = {.ptr = l}};
    CHECK(epoll_ctl(l->world->ps->epfd, EPOLL_CTL_ADD, l->ours, &event) == 0, "epoll_ctl: %s", strerror(errno));
}

static void offload(wire *l) {
    if (l->conn != NULL || l->readable || l->buffered || l->ended || l->closed)
        return;
    CHECK(epoll_ctl(l->world->ps->epfd, EPOLL_CTL_DEL, l->ours, NULL) == 0, "epoll_ctl: %s", strerror(errno));
    l->conn = gl_offload_ops.open(l->world->ps, l->ours, l, rnd(2));
    CHECK(l->conn != NULL, "open: %s", strerror(errno));
    l->generation = l->conn->generation;
    l->offloaded = 1;
}

static void drop(wire *l) {
    gl_offload_ops.close(l->conn, l->generation);
    l->conn = NULL;
}

static int take_back(wire *l) {
    const char *data;
    size_t n;
    int error;
    l->offloaded = 0;
    while (!gl_offload_ops.take_back(l->conn))
        sched_yield();
    error = gl_offload_ops.failed(l->conn);
    while (!error && (n = gl_offload_ops.unsent(l->conn, &data)) != 0) {
        CHECK(l->buffered + n <= sizeof l->buffer, "more is unsent than was written");
        memcpy(l->buffer + l->buffered, data, n);
        l->buffered += (uint32_t)n;
    }
    if (!gl_offload_ops.readable(l->conn))
        drop(l);
    l->readable = 1;
    l->writable = 1;
    watch(l);
    return error;
}

static void write_some(wire *l) {
    char data[GL_RING + 8];
    uint32_t n, want = 1 + rnd(rnd(4) ? 8 : sizeof data);
    if (want > l->todo - l->written)
        want = l->todo - l->written;
    for (n = 0; n < want; n++)
        data[n] = pattern(l->written + n, 1);
    if (want == 0 || l->buffered + want > sizeof l->buffer)
        return;
    if (l->offloaded && want <= gl_offload_ops.room(l->conn)) {
        gl_offload_ops.put(l->conn, data, want);
        gl_offload_ops.kick(l->conn);
        l->world->kicks++; /* it is told of them later */
    } else {
        int error = l->offloaded ? take_back(l) : 0;
        CHECK(error == 0, "sending failed with %d", error);
        memcpy(l->buffer + l->buffered, data, want);
        l->buffered += want;
    }
    l->written += want;
    beat();
}

static void flush(wire *l) {
    ssize_t n;
    if (l->buffered == 0 || !l->writable || l->offloaded)
        return;
    n = send(l->ours, l->buffer, l->buffered, MSG_NOSIGNAL);
    if (n < 0) {
        CHECK(errno == EAGAIN, "send: %s", strerror(errno));
        l->writable = 0;
        return;
    }
    l->buffered -= (uint32_t)n;
    memmove(l->buffer, l->buffer + n, l->buffered);
    beat();
}

static void read_some(wire *l) {
    char data[48];
    size_t length = 1 + rnd(sizeof data);
    ssize_t n = -1;
    int from_socket = 1;
    if (l->conn != NULL) {
        from_socket = 0;
        n = gl_offload_ops.recv(l->conn, data, length);
        if (n > 0 && l->offloaded)
            l->readable = gl_offload_ops.readable(l->conn);
        if (n < 0 && errno == EAGAIN) {
            if (l->offloaded) {
                l->readable = 0;
                return;
            }
            drop(l);
            from_socket = 1;
        } else if (n <= 0) {
            int saved = errno;
            if (l->offloaded)
                take_back(l);
            drop(l);
            errno = saved;
        }
    }
    if (from_socket) {
        n = recv(l->ours, data, length, 0);
        if (n < 0 && errno == EAGAIN) {
            l->readable = 0;
            return;
        }
    }
    if (n <= 0) {
        CHECK(n == 0 || (l->reset && errno == ECONNRESET), "recv: %s", strerror(errno));
        CHECK(l->got == l->todo || l->reset, "the stream ended after %u of %u bytes", l->got, l->todo);
        l->ended = 1;
        return;
    }
    for (ssize_t i = 0; i < n; i++)
        CHECK(data[i] == pattern(l->got + (uint32_t)i, 0), "a wrong byte at %u", l->got + (uint32_t)i);
    l->got += (uint32_t)n;
    beat();
}

static int busy(const wire *l) {
    return !l->closed &&
           (l->readable || (l->buffered && l->writable && !l->offloaded) || l->written < l->todo || l->ended);
}

static void turn(wire *l) {
    if (l->closed)
        return;
    if (l->offloaded)
        gl_offload_ops.look(l->conn);
    if (l->readable || (l->offloaded && gl_offload_ops.readable(l->conn)))
        read_some(l);
    if (l->ended && l->written == l->todo && !l->buffered) {
        if (l->offloaded) {
            take_back(l);
            if (l->buffered)
                return;
        }
        if (l->conn != NULL)
            drop(l);
        close(l->ours);
        l->closed = 1;
        beat();
        return;
    }
    write_some(l);
    flush(l);
    if (l->offloaded && rnd(12) == 0)
        take_back(l);
    else if (rnd(3) == 0)
        offload(l);
}

static void run_loop(world *w) {
    int open = w->count;
    while (open) {
        struct epoll_event events[3];
        int n, idle = 1;
        for (gl_node *node = gl_inbox_take(&w->ps->completions), *next; node != NULL; node = next) {
            wire *l;
            next = node->next;
            l = gl_conn_owner(node);
            if (l != NULL)
                l->readable = 1;
        }
        n = epoll_wait(w->ps->epfd, events, 3, 0);
        for (int again = 0; again < 2; again++) {
            for (int i = 0; i < n; i++) {
                wire *l = events[i].data.u64 == GL_BELL ? NULL : events[i].data.ptr;
                if (l == NULL)
                    continue;
                if (events[i].events & ~(uint32_t)EPOLLOUT)
                    l->readable = 1;
                if (events[i].events & EPOLLOUT)
                    l->writable = 1;
            }
            open = 0;
            for (int i = 0; i < w->count; i++) {
                open += !w->wires[i].closed;
                idle &= !busy(&w->wires[i]);
            }
            if (!idle || !open || again)
                break;
            if (w->kicks)
                gl_netpoller_nudge();
            w->kicks = 0;
            if (rnd(2)) {
                n = gl_poll(w->ps, -1, events, 3);
                CHECK(n >= 0 || n == -EINTR, "gl_poll: %d", n);
            } else {
                n = gl_park(w->ps, -1);
                CHECK(n == 0 || n == EINTR, "gl_park: %d", n);
                n = 0;
            }
        }
        for (int i = 0; i < w->count; i++)
            turn(&w->wires[i]);
        if (w->kicks && rnd(3) == 0) { /* at the end of a batch */
            w->kicks = 0;
            gl_netpoller_nudge();
        }
    }
}

static void open_world(world *w, int resets) {
    gl_inbox *inbox = malloc(sizeof *inbox);
    memset(w, 0, sizeof *w);
    w->ps = gl_pollset_open(inbox);
    CHECK(w->ps != NULL, "gl_pollset_open: %s", strerror(errno));
    w->count = 1 + (int)rnd(WIRES);
    for (int i = 0; i < w->count; i++) {
        wire *l = &w->wires[i];
        int pair[2];
        make_pair(pair);
        *l = (wire){.ours = pair[1],
                    .theirs = pair[0],
                    .world = w,
                    .todo = 1 + rnd(600),
                    .reset = resets,
                    .readable = 1,
                    .writable = 1};
        watch(l);
        l->peer = start_thread(be_peer, l);
    }
}

static void close_world(world *w) {
    gl_inbox *inbox = w->ps->inbox;
    for (int i = 0; i < w->count; i++) {
        pthread_join(w->wires[i].peer, NULL);
        CHECK(w->wires[i].got == w->wires[i].todo || w->wires[i].reset, "only %u bytes came", w->wires[i].got);
    }
    gl_conn_forget(w->ps);
    gl_pollset_close(w->ps);
    free(inbox);
}

/* ------------------------------------------------------------------ cases */
static unsigned streams(int with_faults, int resets) {
    unsigned rounds = 0;
    gl_offload_stats before, now;
    gl_offload_get_stats(&before);
    for (now = before; going() || now.received == before.received || now.sent == before.sent; rounds++) {
        static world w;
        open_world(&w, resets);
        __atomic_store_n(&reminded, &w, __ATOMIC_RELEASE);
        __atomic_store_n(&faults, with_faults, __ATOMIC_RELAXED);
        run_loop(&w);
        __atomic_store_n(&faults, 0, __ATOMIC_RELAXED);
        __atomic_store_n(&reminded, NULL, __ATOMIC_RELEASE);
        close_world(&w);
        gl_offload_get_stats(&now);
    }
    return rounds;
}

static unsigned case_streams(void) { return streams(0, 0); }
static unsigned case_faults(void) { return streams(1, 0); }
static unsigned case_resets(void) { return streams(1, 1); }

/* A loop closes with connections offloaded, news under way and bytes in the rings; another one goes on. */
static void *close_early(void *arg) {
    runs_a_loop = 1;
    while (going()) {
        gl_inbox inbox;
        gl_pollset *ps = gl_pollset_open(&inbox);
        gl_conn *conns[3];
        uint32_t generations[3];
        int pairs[3][2], n = 1 + (int)rnd(3), i;
        CHECK(ps != NULL, "gl_pollset_open: %s", strerror(errno));
        for (i = 0; i < n; i++) {
            CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pairs[i]) == 0, "socketpair");
            conns[i] = gl_offload_ops.open(ps, pairs[i][0], &pairs[i], 0);
            CHECK(conns[i] != NULL, "open: %s", strerror(errno));
            generations[i] = conns[i]->generation;
        }
        for (i = 0; i < n; i++) {
            if (rnd(2))
                CHECK(write(pairs[i][1], "hello", 5) == 5, "write: %s", strerror(errno));
            if (rnd(2)) {
                gl_offload_ops.put(conns[i], "world", 5);
                gl_offload_ops.kick(conns[i]);
            }
        }
        gl_netpoller_nudge();
        stress_yield();
        for (i = 0; i < n; i++)
            if (rnd(2)) {
                while (!gl_offload_ops.take_back(conns[i]))
                    sched_yield();
                gl_offload_ops.close(conns[i], generations[i]);
            }
        if (rnd(2))
            for (gl_node *node = gl_inbox_take(&ps->completions), *next; node != NULL; node = next) {
                next = node->next;
                gl_conn_owner(node);
            }
        gl_inbox_close(&inbox);
        gl_conn_forget(ps);
        for (i = 0; i < n; i++) {
            gl_offload_ops.close(conns[i], generations[i]); /* a late one finds another generation */
            close(pairs[i][0]);
            close(pairs[i][1]);
        }
        gl_pollset_close(ps);
        beat();
    }
    return arg;
}

static unsigned case_close(void) {
    pthread_t threads[2];
    unsigned rounds;
    for (int i = 0; i < 2; i++)
        threads[i] = start_thread(close_early, NULL);
    rounds = streams(0, 0);
    for (int i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
    return rounds;
}

/* Forks while data flows: the parent loses nothing, the child sends nothing of its and has its own netpoller. */
static void *fork_often(void *arg) {
    while (going()) {
        int status;
        pid_t pid = fork();
        if (pid == 0) {
            gl_offload_stats stats;
            gl_inbox inbox;
            gl_pollset *ps = gl_pollset_open(&inbox);
            faults = 0;
            runs_a_loop = 1;
            gl_offload_get_stats(&stats);
            int pair[2], ok = stats.open == 0 && ps != NULL;
            char byte = 0;
            gl_conn *c;
            ok = ok && socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair) == 0;
            ok = ok && (c = gl_offload_ops.open(ps, pair[0], &c, 0)) != NULL && write(pair[1], "x", 1) == 1;
            while (ok && gl_offload_ops.recv(c, &byte, 1) < 0)
                ok = gl_park(ps, -1) == 0;
            _exit(ok && byte == 'x' ? 0 : 1);
        }
        CHECK(pid > 0, "fork: %s", strerror(errno));
        CHECK(waitpid(pid, &status, 0) == pid && status == 0, "the child ended with status %#x", status);
        nap_us(500 + rnd(3000));
    }
    return arg;
}

static unsigned case_fork(void) {
    pthread_t forker = start_thread(fork_often, NULL);
    unsigned rounds = streams(1, 0);
    pthread_join(forker, NULL);
    return rounds;
}

/* ----------------------------------------------------------------- main */
static const struct {
    const char *name;
    unsigned (*run)(void);
} cases[] = {{"streams", case_streams},
             {"faults", case_faults},
             {"resets", case_resets},
             {"close", case_close},
             {"fork", case_fork}};

int main(int argc, char **argv) {
    const char *letters = argc > 3 ? argv[3] : "abcde";
    int pair[2], fds;
    if (argc < 3 || strspn(letters, "abcde") != strlen(letters)) {
        fprintf(stderr, "usage: stress_offload SEED MILLISECONDS [CASES out of abcde]\n");
        return 2;
    }
    runs_a_loop = 1;
    seed = strtoull(argv[1], NULL, 10);
    make_pair(pair); /* opens the listener */
    close(pair[0]);
    close(pair[1]);
    fds = count_fds();
    for (; *letters; letters++) {
        gl_offload_stats stats;
        unsigned rounds;
        current = *letters;
        rounds = run_watched(cases[*letters - 'a'].run, argv[2]);
        gl_offload_get_stats(&stats);
        CHECK(stats.open == 0, "%u connections are still open", stats.open);
        CHECK(count_fds() == fds, "%d descriptors before, %d after", fds, count_fds());
        printf("%c %-7s ok: %u rounds, %llu bytes received, %llu sent, %llu serves\n", *letters,
               cases[*letters - 'a'].name, rounds, (unsigned long long)stats.received, (unsigned long long)stats.sent,
               (unsigned long long)stats.serves);
        fflush(stdout);
    }
    return 0;
}
