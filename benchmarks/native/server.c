/* The least that a server can do: one thread, one epoll, the ceiling that the others are compared with.
 *
 *     server KIND [ARGUMENT]
 *
 * KIND: tcp, udp: echo on a free port of 127.0.0.1. unix: echo on the path ARGUMENT. churn: echo one message and
 * close. http: answer every request with a body of ARGUMENT bytes. Prints "ready ADDRESS" and serves until killed.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/un.h>
#include <unistd.h>

enum { ROOM = 1 << 18, EVENTS = 256, BACKLOG = 1024 };

struct connection {
    int fd;
    size_t waiting; /* bytes in `buffer` that the socket did not take; nothing is read meanwhile */
    char *buffer;
};

static int epfd, listener;
static int churn, http;
static char room[ROOM];
static char *response;
static size_t response_size;

static void die(const char *what) {
    fprintf(stderr, "server: %s: %s\n", what, strerror(errno));
    exit(1);
}

static void watch(struct connection *c, int op, unsigned events) {
    struct epoll_event event = {.events = events, .data = {.ptr = c}};
    if (epoll_ctl(epfd, op, c->fd, &event) < 0)
        die("epoll_ctl");
}

static void drop(struct connection *c) {
    close(c->fd);
    free(c->buffer);
    free(c);
}

static void answer(struct connection *c, const char *data, size_t n) {
    ssize_t sent = c->waiting ? 0 : send(c->fd, data, n, MSG_NOSIGNAL);
    if (sent < 0)
        sent = 0; /* full, or gone: then the next recv says so */
    if ((size_t)sent == n)
        return;
    c->buffer = realloc(c->buffer, c->waiting + n - (size_t)sent);
    if (c->buffer == NULL)
        die("realloc");
    memcpy(c->buffer + c->waiting, data + sent, n - (size_t)sent);
    if (!c->waiting)
        watch(c, EPOLL_CTL_MOD, EPOLLOUT);
    c->waiting += n - (size_t)sent;
}

static void flush(struct connection *c) {
    ssize_t sent = send(c->fd, c->buffer, c->waiting, MSG_NOSIGNAL);
    if (sent <= 0) {
        drop(c);
        return;
    }
    c->waiting -= (size_t)sent;
    memmove(c->buffer, c->buffer + sent, c->waiting);
    if (!c->waiting)
        watch(c, EPOLL_CTL_MOD, EPOLLIN);
}

static void serve(struct connection *c) {
    ssize_t n = recv(c->fd, room, ROOM, 0);
    if (n <= 0) {
        drop(c);
        return;
    }
    if (!http) {
        answer(c, room, (size_t)n);
        if (churn)
            drop(c);
        return;
    }
    for (char *at = room; (at = memmem(at, (size_t)(room + n - at), "\r\n\r\n", 4)) != NULL; at += 4)
        answer(c, response, response_size); /* the load sends whole requests, without bodies */
}

static void take_connections(void) {
    int fd, one = 1;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
        struct connection *c = calloc(1, sizeof *c);
        if (c == NULL)
            die("calloc");
        c->fd = fd;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        watch(c, EPOLL_CTL_ADD, EPOLLIN);
    }
}

static void echo_datagrams(int fd) {
    struct sockaddr_in peer;
    for (;;) {
        socklen_t length = sizeof peer;
        ssize_t n = recvfrom(fd, room, ROOM, 0, (struct sockaddr *)&peer, &length);
        if (n >= 0)
            sendto(fd, room, (size_t)n, 0, (struct sockaddr *)&peer, length);
    }
}

int main(int argc, char **argv) {
    const char *kind = argc > 1 ? argv[1] : "";
    union {
        struct sockaddr any;
        struct sockaddr_in in;
        struct sockaddr_un un;
    } address = {0};
    socklen_t length = sizeof address.in;
    int udp = !strcmp(kind, "udp"), local = !strcmp(kind, "unix");
    churn = !strcmp(kind, "churn");
    http = !strcmp(kind, "http");
    if ((!udp && !local && !churn && !http && strcmp(kind, "tcp")) || ((local || http) && argc != 3)) {
        fprintf(stderr, "usage: server tcp|udp|churn|unix PATH|http BYTES\n");
        return 2;
    }
    if (http) {
        size_t body = (size_t)atol(argv[2]);
        response = malloc(body + 256);
        if (response == NULL)
            die("malloc");
        int header =
            sprintf(response, "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %zu\r\n\r\n", body);
        memset(response + header, 'x', body);
        response_size = (size_t)header + body;
    }
    if (local) {
        address.un.sun_family = AF_UNIX;
        snprintf(address.un.sun_path, sizeof address.un.sun_path, "%s", argv[2]);
        length = sizeof address.un;
    } else {
        address.in.sin_family = AF_INET;
        address.in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    }
    listener = socket(address.any.sa_family, udp ? SOCK_DGRAM : SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (listener < 0 || bind(listener, &address.any, length) < 0 || (!udp && listen(listener, BACKLOG) < 0))
        die("listen");
    if (!local && !udp && setsockopt(listener, IPPROTO_TCP, TCP_CONGESTION, "reno", 4) < 0)
        die("TCP_CONGESTION"); /* see workloads/listening.py */
    if (!local)
        getsockname(listener, &address.any, &length);
    if (local)
        printf("ready %s\n", argv[2]);
    else
        printf("ready %d\n", ntohs(address.in.sin_port));
    fflush(stdout);
    if (udp)
        echo_datagrams(listener);

    struct connection accepting = {.fd = listener};
    struct epoll_event events[EVENTS];
    epfd = epoll_create1(0);
    watch(&accepting, EPOLL_CTL_ADD, EPOLLIN);
    for (;;) {
        int n = epoll_wait(epfd, events, EVENTS, -1);
        for (int i = 0; i < n; i++) {
            struct connection *c = events[i].data.ptr;
            if (c == &accepting)
                take_connections();
            else if (c->waiting)
                flush(c);
            else
                serve(c);
        }
    }
}
