/* Load for the echo benchmarks: keeps one message in flight on each connection and counts round trips.
 *
 *     load KIND ADDRESS CONNECTIONS SIZE WARMUP SECONDS IDLE
 *
 * KIND: tcp, tls, websocket, udp, churn (connect, one message, until the server closes): ADDRESS is a port of
 * 127.0.0.1. unix: ADDRESS is a path. SIZE: bytes a message. IDLE: further connections that stay silent.
 * Two more kinds have no round trips: source reads what the server sends, sink sends to it, as fast as it goes; an
 * operation is SIZE bytes.
 * Prints "measuring" when the warm-up is over, a line of JSON at the end, and keeps the connections open until
 * its standard input ends, so that the server's processor time and memory can be read in both moments.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>
#ifdef WITH_TLS
#include <openssl/ssl.h>
static SSL_CTX *tls_context;
#else
typedef void SSL;
#endif

enum kind { TCP, TLS, WEBSOCKET, UDP, CHURN, UNIX, SOURCE, SINK, KINDS };
static const char *const KIND_NAMES[KINDS] = {"tcp", "tls", "websocket", "udp", "churn", "unix", "source", "sink"};
enum { RESEND_MS = 50, EVENTS = 256, BUCKETS = 64 * 32, BULK_CALLS = 16 };

struct connection {
    int fd;
    SSL *tls;
    size_t sent, got; /* bytes of the message that is in flight */
    int64_t started;  /* when it was begun, nanoseconds */
};

static enum kind kind;
static union {
    struct sockaddr any;
    struct sockaddr_in in;
    struct sockaddr_un un;
} address;
static socklen_t address_length;
static char *message, *room;
static size_t message_size, reply_size, room_size;
static int epfd;
static uint64_t trips, lost;
static uint32_t histogram[BUCKETS]; /* of round trip times: 32 steps for each power of two nanoseconds */

static void die(const char *what) {
    fprintf(stderr, "load: %s: %s\n", what, strerror(errno));
    exit(1);
}

static int64_t now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static void record(int64_t ns) {
    int e = 63 - __builtin_clzll((uint64_t)ns | 32);
    histogram[ns < 32 ? ns : (e - 4) * 32 + ((ns >> (e - 5)) & 31)]++;
    trips++;
}

static double percentile(double share) { /* microseconds */
    uint64_t wanted = (uint64_t)(share * (double)trips), seen = 0;
    for (int i = 0; i < BUCKETS; i++)
        if ((seen += histogram[i]) > wanted)
            return (i < 32 ? i : (double)((int64_t)(32 + i % 32) << (i / 32 - 1))) / 1e3;
    return 0;
}

static double cpu_seconds(void) {
    struct rusage r;
    getrusage(RUSAGE_SELF, &r);
    return (double)(r.ru_utime.tv_sec + r.ru_stime.tv_sec) + (double)(r.ru_utime.tv_usec + r.ru_stime.tv_usec) / 1e6;
}

/* ------------------------------------------------------------ connections */
static void start_tls(struct connection *c) {
#ifdef WITH_TLS
    c->tls = SSL_new(tls_context);
    SSL_set_fd(c->tls, c->fd);
    if (SSL_connect(c->tls) != 1)
        die("TLS handshake");
#else
    (void)c;
#endif
}

static void upgrade(int fd) { /* to a WebSocket */
    static const char request[] = "GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                                  "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
    char reply[4096];
    size_t got = 0;
    if (send(fd, request, sizeof request - 1, MSG_NOSIGNAL) != sizeof request - 1)
        die("upgrade");
    do {
        ssize_t n = recv(fd, reply + got, sizeof reply - 1 - got, 0);
        if (n <= 0)
            die("upgrade");
        reply[got += (size_t)n] = 0;
    } while (strstr(reply, "\r\n\r\n") == NULL);
    if (strncmp(reply, "HTTP/1.1 101", 12) != 0)
        die("the server refused the WebSocket");
}

static void watch(struct connection *c, int op) {
    uint32_t events = kind == SOURCE ? EPOLLIN : kind == SINK ? EPOLLOUT : EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET;
    struct epoll_event event = {.events = events, .data = {.ptr = c}};
    if (epoll_ctl(epfd, op, c->fd, &event) < 0)
        die("epoll_ctl");
}

static int dial(int flags) {
    int one = 1, family = address.any.sa_family;
    int fd = socket(family, (kind == UDP ? SOCK_DGRAM : SOCK_STREAM) | flags, 0);
    if (fd < 0)
        die("socket");
    if (family == AF_INET && kind != UDP) {
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        if (setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, "reno", 4) < 0) /* see workloads/listening.py */
            die("TCP_CONGESTION");
    }
    if (connect(fd, &address.any, address_length) < 0 && errno != EINPROGRESS)
        die("connect");
    return fd;
}

static void dial_again(struct connection *c) { /* churn */
    c->fd = dial(SOCK_NONBLOCK);
    c->sent = c->got = 0;
    c->started = now();
    watch(c, EPOLL_CTL_ADD);
}

static void open_connection(struct connection *c) {
    if (kind == CHURN) {
        dial_again(c);
        return;
    }
    c->fd = dial(0);
    if (kind == TLS)
        start_tls(c);
    if (kind == WEBSOCKET)
        upgrade(c->fd);
    if (fcntl(c->fd, F_SETFL, O_NONBLOCK) < 0)
        die("fcntl");
    watch(c, EPOLL_CTL_ADD);
}

/* Both return the number of bytes, 0 at the end of the stream (receive only), -1 when it would block. */
static ssize_t transmit(struct connection *c, const char *from, size_t n) {
#ifdef WITH_TLS
    if (c->tls != NULL) {
        int done = SSL_write(c->tls, from, (int)n), error = done > 0 ? 0 : SSL_get_error(c->tls, done);
        if (error && error != SSL_ERROR_WANT_READ && error != SSL_ERROR_WANT_WRITE)
            die("SSL_write");
        return done > 0 ? done : -1;
    }
#endif
    ssize_t done = send(c->fd, from, n, MSG_NOSIGNAL);
    if (done < 0 && errno != EAGAIN && errno != ENOTCONN && errno != ECONNREFUSED)
        die("send");
    return done;
}

static ssize_t receive(struct connection *c) {
#ifdef WITH_TLS
    if (c->tls != NULL) {
        int done = SSL_read(c->tls, room, (int)room_size), error = done > 0 ? 0 : SSL_get_error(c->tls, done);
        if (error && error != SSL_ERROR_WANT_READ && error != SSL_ERROR_WANT_WRITE)
            die("SSL_read");
        return done > 0 ? done : -1;
    }
#endif
    ssize_t done = recv(c->fd, room, room_size, 0);
    if (done < 0 && errno != EAGAIN && errno != ENOTCONN && errno != ECONNREFUSED)
        die("recv");
    return done;
}

static void push(struct connection *c) {
    while (c->sent < message_size) {
        ssize_t n = transmit(c, message + c->sent, message_size - c->sent);
        if (n < 0)
            return;
        c->sent += (size_t)n;
    }
}

static void begin(struct connection *c) {
    c->sent = c->got = 0;
    c->started = now();
    push(c);
}

static void churn(struct connection *c) {
    ssize_t n;
    push(c);
    while ((n = receive(c)) > 0)
        c->got += (size_t)n;
    if (n == 0) {
        if (c->got != reply_size)
            die("the server closed too early");
        record(now() - c->started);
        close(c->fd);
        dial_again(c);
    }
}

static void bulk(struct connection *c) { /* level-triggered: it may leave something for the next turn */
    for (int i = 0; i < BULK_CALLS; i++) {
        ssize_t n = kind == SINK ? transmit(c, message, message_size) : receive(c);
        if (n < 0)
            return;
        if (n == 0)
            die("the server closed");
        c->got += (size_t)n;
        trips += c->got / message_size;
        c->got %= message_size;
    }
}

static void step(struct connection *c) {
    if (kind == CHURN) {
        churn(c);
        return;
    }
    if (kind == SOURCE || kind == SINK) {
        bulk(c);
        return;
    }
    push(c);
    for (;;) {
        ssize_t n = receive(c);
        if (n < 0)
            return;
        if (n == 0)
            die("the server closed");
        c->got += (size_t)n;
        if (c->got > reply_size)
            die("more came back than was sent");
        if (c->got == reply_size) {
            record(now() - c->started);
            begin(c);
            return; /* one in flight: nothing more to read before the next edge */
        }
        if (c->tls == NULL && (size_t)n < room_size && kind != UNIX)
            return; /* a short read over TCP: the next bytes bring an edge */
    }
}

static void resend(struct connection *c, int count) { /* UDP may lose */
    int64_t before = now() - RESEND_MS * INT64_C(1000000);
    for (int i = 0; i < count; i++)
        if (c[i].started < before) {
            lost++;
            begin(&c[i]);
        }
}

static void run(struct connection *connections, int count, double seconds) {
    struct epoll_event events[EVENTS];
    int64_t end = now() + (int64_t)(seconds * 1e9), next = now();
    while (now() < end) {
        int n = epoll_wait(epfd, events, EVENTS, RESEND_MS);
        if (n < 0 && errno != EINTR)
            die("epoll_wait");
        for (int i = 0; i < n; i++)
            step(events[i].data.ptr);
        if (kind == UDP && now() > next) {
            resend(connections, count);
            next = now() + RESEND_MS * INT64_C(1000000);
        }
    }
}

/* ------------------------------------------------------------------- main */
static void compose(size_t size) { /* the message, and how much comes back for it */
    size_t header = 0;
    room_size = 1 << 18;
    room = malloc(room_size);
    message = calloc(1, size + 16);
    if (room == NULL || message == NULL)
        die("malloc");
    message_size = reply_size = size;
    if (kind == WEBSOCKET) { /* one binary frame with a mask of zeros; the reply has no mask */
        message[header++] = (char)0x82;
        if (size < 126) {
            message[header++] = (char)(0x80 | size);
        } else if (size < 65536) {
            message[header++] = (char)(0x80 | 126);
            message[header++] = (char)(size >> 8);
            message[header++] = (char)size;
        } else {
            errno = EMSGSIZE;
            die("websocket");
        }
        reply_size += header;
        header += 4;
        message_size += header;
    }
    memset(message + header, 'x', size);
}

int main(int argc, char **argv) {
    if (argc != 8) {
        fprintf(stderr, "usage: load KIND ADDRESS CONNECTIONS SIZE WARMUP SECONDS IDLE\n");
        return 2;
    }
    while (kind < KINDS && strcmp(argv[1], KIND_NAMES[kind]) != 0)
        kind++;
    int count = atoi(argv[3]), idle = atoi(argv[7]);
    if (kind == KINDS || count < 1) {
        fprintf(stderr, "load: unknown kind, or no connections\n");
        return 2;
    }
    if (kind == UNIX) {
        address.un.sun_family = AF_UNIX;
        snprintf(address.un.sun_path, sizeof address.un.sun_path, "%s", argv[2]);
        address_length = sizeof address.un;
    } else {
        address.in = (struct sockaddr_in){
            .sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(argv[2])), .sin_addr = {htonl(INADDR_LOOPBACK)}};
        address_length = sizeof address.in;
    }
#ifdef WITH_TLS
    tls_context = SSL_CTX_new(TLS_client_method());
    SSL_CTX_set_mode(tls_context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
#else
    if (kind == TLS) {
        fprintf(stderr, "load: built without OpenSSL\n");
        return 2;
    }
#endif
    compose((size_t)atol(argv[4]));
    epfd = epoll_create1(0);
    for (int i = 0; i < idle; i++)
        dial(0);
    struct connection *connections = calloc((size_t)count, sizeof *connections);
    for (int i = 0; i < count; i++)
        open_connection(&connections[i]);
    if (kind != CHURN && kind != SOURCE && kind != SINK)
        for (int i = 0; i < count; i++)
            begin(&connections[i]);

    run(connections, count, atof(argv[5]));
    printf("measuring\n");
    fflush(stdout);
    trips = lost = 0;
    memset(histogram, 0, sizeof histogram);
    double cpu = cpu_seconds();
    int64_t started = now();
    run(connections, count, atof(argv[6]));
    printf("{\"operations\": %llu, \"seconds\": %.6f, \"client_cpu\": %.6f, \"p50\": %.2f, \"p99\": %.2f, "
           "\"lost\": %llu}\n",
           (unsigned long long)trips, (double)(now() - started) / 1e9, cpu_seconds() - cpu, percentile(0.5),
           percentile(0.99), (unsigned long long)lost);
    fflush(stdout);
    while (getchar() != EOF)
        ;
    return 0;
}
