/* See netpoll.h for what this file promises, and HACKING.md for the protocol "park". */
#define _GNU_SOURCE
#include "netpoll.h"

#include "../../system/native/posix.h"

#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

static void gl_fatal(const char *what) {
    fprintf(stderr, "goloop: %s: %s\n", what, strerror(errno));
    abort();
}

/* ------------------------------------------------------------------ inbox */
static gl_node gl_closed_mark; /* its address is the head of a closed inbox */

void gl_inbox_open(gl_inbox *in) { __atomic_store_n(&in->head, NULL, __ATOMIC_RELEASE); }

int gl_inbox_push(gl_inbox *in, gl_node *node) {
    gl_node *head = __atomic_load_n(&in->head, __ATOMIC_RELAXED);
    do {
        if (head == &gl_closed_mark)
            return GL_INBOX_CLOSED;
        node->next = head;
        GL_YIELD();
        /* seq_cst: the push comes before the load of `state` in gl_unpark; pairs with gl_park, which
         * stores `state` and then looks at the inbox. One of the two sees the other. */
    } while (!__atomic_compare_exchange_n(&in->head, &head, node, 0, __ATOMIC_SEQ_CST, __ATOMIC_RELAXED));
    return head == NULL ? GL_INBOX_FIRST : GL_INBOX_PUSHED;
}

int gl_inbox_empty(gl_inbox *in) {
    gl_node *head = __atomic_load_n(&in->head, __ATOMIC_SEQ_CST); /* pairs with gl_inbox_push, see gl_park */
    return head == NULL || head == &gl_closed_mark;
}

static gl_node *gl_reversed(gl_node *node) {
    gl_node *out = NULL;
    while (node != NULL) {
        gl_node *next = node->next;
        node->next = out;
        out = node;
        node = next;
    }
    return out;
}

gl_node *gl_inbox_take(gl_inbox *in) {
    if (gl_inbox_empty(in))
        return NULL;
    /* acquire: the producers' writes to their nodes. Only the owner closes, so no mark is taken out. */
    return gl_reversed(__atomic_exchange_n(&in->head, NULL, __ATOMIC_ACQ_REL));
}

gl_node *gl_inbox_close(gl_inbox *in) {
    gl_node *head = __atomic_exchange_n(&in->head, &gl_closed_mark, __ATOMIC_ACQ_REL);
    return head == &gl_closed_mark ? NULL : gl_reversed(head);
}

/* ------------------------------------------------------------------ table
 * Poll sets live in chunks that are never freed; the netpoller finds one by the index in its epoll data. */
#define CHUNKS 1024

static pthread_mutex_t table_lock = PTHREAD_MUTEX_INITIALIZER;
static gl_pollset *chunks[CHUNKS]; /* a chunk pointer is stored (release) once; netpoller loads (acquire) */
static uint32_t table_size;        /* guarded by table_lock */
static gl_pollset *free_list;      /* guarded by table_lock */
static uint32_t open_count;        /* guarded by table_lock */

static gl_pollset *table_at(uint32_t index) {
    gl_pollset *chunk = index / GL_CHUNK < CHUNKS ? __atomic_load_n(&chunks[index / GL_CHUNK], __ATOMIC_ACQUIRE) : NULL;
    return chunk ? &chunk[index % GL_CHUNK] : NULL;
}

static gl_pollset *table_take(void) { /* under table_lock */
    gl_pollset *ps = free_list;
    if (ps != NULL) {
        free_list = ps->next_free;
        return ps;
    }
    if (table_size == GL_CHUNK * CHUNKS) {
        errno = ENFILE;
        return NULL;
    }
    if (table_size % GL_CHUNK == 0) {
        gl_pollset *chunk = calloc(GL_CHUNK, sizeof(gl_pollset));
        if (chunk == NULL)
            return NULL;
        __atomic_store_n(&chunks[table_size / GL_CHUNK], chunk, __ATOMIC_RELEASE);
    }
    ps = table_at(table_size);
    ps->index = table_size++;
    return ps;
}

static void table_put(gl_pollset *ps) { /* under table_lock */
    ps->next_free = free_list;
    free_list = ps;
}

/* -------------------------------------------------------------- netpoller
 * The master epoll exists while a poll set is open. The thread exists from the first park on, and ends with
 * the last open poll set, or before a fork: a process with a thread that it does not know of should not be
 * forked, and Python warns of it. After a fork the parent starts it again at once if a loop sleeps, and at
 * the next park otherwise. All of this happens under table_lock. */
static int master = -1;                   /* guarded by table_lock; constant while a poll set is open */
static int stop_fd = -1;                  /* the same */
static pthread_t netpoller;               /* guarded by table_lock */
static uint32_t netpoller_running;        /* atomic; stored under table_lock, loaded by gl_park */
static uint32_t fork_epoch;               /* atomic; written in a forked child, before it has other threads */
static uint64_t count_fires, count_stale; /* atomic, relaxed */

static uint32_t minding;      /* atomic; loops sleep in their poll sets, and the netpoller looks whether for long */
static int64_t next_look;     /* the netpoller's; when, on the coarse clock */
static uint32_t ticking;      /* atomic; loops collect writes, and the netpoller looks after them */
static int64_t next_tick;     /* the netpoller's; monotonic nanoseconds */
static uint32_t idle_ticks;   /* the netpoller's */
static const gl_guest *guest; /* constant once the library is loaded */
static int doorbell = -1;     /* an eventfd in the master, edge-triggered and never read; guarded as `master` */
static uint32_t dozing;       /* atomic; the netpoller sleeps, or is about to look whether it may */

#define STOP_MARK UINT64_MAX
#define DOORBELL_MARK (UINT64_MAX - 1)

static void ring_bell(gl_pollset *ps) {
    uint32_t polling = GL_POLLING;
    uint64_t one = 1;
    /* The loop may return, and close the bell, before we write to it: its number could be another file's by then.
     * So be counted before the state says that there is something to ring for; pairs with gl_pollset_close. */
    __atomic_fetch_add(&ps->ringers, 1, __ATOMIC_SEQ_CST);
    GL_YIELD();
    if (__atomic_compare_exchange_n(&ps->state, &polling, GL_RUNNING, 0, __ATOMIC_SEQ_CST, __ATOMIC_RELAXED)) {
        GL_YIELD();
        if (!gl_pollset_foreign(ps) && write(ps->bell, &one, sizeof one) != sizeof one)
            gl_fatal("unpark: eventfd");
    }
    __atomic_fetch_sub(&ps->ringers, 1, __ATOMIC_RELEASE);
}

void gl_unpark(gl_pollset *ps) {
    /* seq_cst: comes after the producer's push, or the netpoller's store to `armed`; pairs with gl_park, gl_poll. */
    uint32_t state = __atomic_load_n(&ps->state, __ATOMIC_SEQ_CST);
    int saved = errno;
    GL_YIELD();
    if (state == GL_POLLING)
        ring_bell(ps);
    else if (state == GL_PARKED &&
             __atomic_compare_exchange_n(&ps->state, &state, GL_RUNNING, 0, __ATOMIC_SEQ_CST, __ATOMIC_RELAXED))
        gl_futex(&ps->state, FUTEX_WAKE, 1, NULL);
    errno = saved;
}

#define SHORT_NS (GL_SHORT_MS * INT64_C(1000000))

static gl_tracer *tracer; /* set before the thread runs */

void gl_netpoller_trace(gl_tracer *t) { tracer = t; }

static void trace(int kind, uint32_t loop, uint64_t a) {
    if (tracer != NULL && __atomic_load_n(&tracer->session, __ATOMIC_RELAXED))
        tracer->emit(gl_monotonic_ns(), kind, loop, 0, a, 0);
}

static int64_t coarse_ns(void) { return gl_clock_ns(CLOCK_MONOTONIC_COARSE); } /* a jiffy behind at most, and cheap */

static uint64_t epoll_key(const gl_pollset *ps, uint32_t generation) { return (uint64_t)generation << 32 | ps->index; }

static int netpoller_ensure(void);

static void netpoller_fired(uint64_t key) {
    gl_pollset *ps = table_at((uint32_t)key);
    __atomic_fetch_add(&count_fires, 1, __ATOMIC_RELAXED);
    if (ps == NULL || __atomic_load_n(&ps->generation, __ATOMIC_ACQUIRE) != (uint32_t)(key >> 32)) {
        __atomic_fetch_add(&count_stale, 1, __ATOMIC_RELAXED);
        return;
    }
    GL_YIELD();
    /* The kernel has disarmed the entry. Say so, then look whether the loop sleeps; gl_park says that it
     * sleeps, then looks whether the entry is armed. So either it arms again, or it is woken here. */
    __atomic_store_n(&ps->armed, 0, __ATOMIC_SEQ_CST);
    GL_YIELD();
    trace(GL_TRACE_WAKE, __atomic_load_n(&ps->loop, __ATOMIC_RELAXED), 0);
    gl_unpark(ps);
    if (!__atomic_exchange_n(&minding, 1, __ATOMIC_SEQ_CST)) /* so that the loop need not wake us for it */
        next_look = coarse_ns() + SHORT_NS;
}

void gl_netpoller_host(const gl_guest *g) { guest = g; }

void gl_netpoller_nudge(void) {
    uint32_t yes = 1;
    uint64_t one = 1;
    /* seq_cst: comes after the caller's push; pairs with netpoller_main, which says that it sleeps and then looks. */
    if (__atomic_load_n(&dozing, __ATOMIC_SEQ_CST) &&
        __atomic_compare_exchange_n(&dozing, &yes, 0, 0, __ATOMIC_SEQ_CST, __ATOMIC_RELAXED)) {
        GL_YIELD();
        if (write(doorbell, &one, sizeof one) != sizeof one)
            gl_fatal("netpoller: doorbell");
    }
}

int gl_netpoller_add(int fd, uint32_t mask, uint64_t key) {
    struct epoll_event event = {.events = mask, .data = {.u64 = key}};
    if (epoll_ctl(master, EPOLL_CTL_ADD, fd, &event) < 0)
        return errno;
    /* pairs with before_fork: either we see that it does not run, or after_fork_parent sees that it is needed. */
    int error = __atomic_load_n(&netpoller_running, __ATOMIC_SEQ_CST) ? 0 : netpoller_ensure();
    if (error)
        epoll_ctl(master, EPOLL_CTL_DEL, fd, NULL);
    return error;
}

void gl_netpoller_remove(int fd) { epoll_ctl(master, EPOLL_CTL_DEL, fd, NULL); }

gl_outbox *gl_pollset_outbox(gl_pollset *ps) {
    gl_outbox *box = __atomic_load_n(&ps->outbox, __ATOMIC_RELAXED);
    if (box == NULL && (box = calloc(1, sizeof *box)) != NULL)
        __atomic_store_n(&ps->outbox, box, __ATOMIC_RELEASE); /* pairs with each_outbox */
    return box;
}

/* Calls f for the outbox of each poll set, also of those that are not open: theirs are empty. The sum of the results. */
static int each_outbox(int (*f)(gl_outbox *box)) {
    int sum = 0;
    for (uint32_t i = 0;; i++) {
        gl_pollset *ps = table_at(i);
        gl_outbox *box;
        if (ps == NULL)
            return sum;
        box = __atomic_load_n(&ps->outbox, __ATOMIC_ACQUIRE);
        if (box != NULL)
            sum += f(box);
    }
}

static int send_for(gl_outbox *box) {
    gl_outbox_send_for(box);
    return 0;
}

static int in_use(gl_outbox *box) { return __atomic_load_n(&box->count, __ATOMIC_SEQ_CST) != 0; }

void gl_send_collected(void) { each_outbox(send_for); }

int gl_netpoller_tick(void) {
    uint32_t no = 0;
    int error = 0;
    /* seq_cst: comes after the store of the count; pairs with tick(), which stores 0 here and then looks at counts. */
    if (__atomic_load_n(&ticking, __ATOMIC_SEQ_CST) ||
        !__atomic_compare_exchange_n(&ticking, &no, 1, 0, __ATOMIC_SEQ_CST, __ATOMIC_RELAXED))
        return 0;
    if (!__atomic_load_n(&netpoller_running, __ATOMIC_SEQ_CST)) /* pairs with before_fork, as in gl_park */
        error = netpoller_ensure();
    if (error)
        __atomic_store_n(&ticking, 0, __ATOMIC_SEQ_CST);
    else
        gl_netpoller_nudge();
    return error;
}

/* Let the loop whose sleep in its poll set has become long park on the futex instead: it does so by itself when it wakes.
 * Returns when to look next, on the coarse clock; 0: no loop sleeps in its poll set. */
static int64_t look_at_sleepers(int64_t now) {
    int64_t next = 0;
    for (uint32_t i = 0;; i++) {
        gl_pollset *ps = table_at(i);
        int64_t due;
        if (ps == NULL)
            return next;
        if (__atomic_load_n(&ps->state, __ATOMIC_SEQ_CST) != GL_POLLING)
            continue;
        due = __atomic_load_n(&ps->since, __ATOMIC_RELAXED) + SHORT_NS;
        if (due > now) {
            next = next == 0 || due < next ? due : next;
        } else {
            __atomic_store_n(&ps->long_wait, 1, __ATOMIC_SEQ_CST);
            GL_YIELD();
            gl_unpark(ps);
        }
    }
}

static void mind(void) {
    int64_t now = coarse_ns();
    if (now < next_look)
        return;
    next_look = look_at_sleepers(now);
    if (next_look)
        return;
    __atomic_store_n(&minding, 0,
                     __ATOMIC_SEQ_CST); /* pairs with ask_to_mind: a loop says that it sleeps, then looks */
    GL_YIELD();
    next_look = look_at_sleepers(now);
    if (next_look)
        __atomic_store_n(&minding, 1, __ATOMIC_SEQ_CST);
}

static void tick(void) {
    int64_t now = gl_monotonic_ns();
    if (now < next_tick)
        return;
    next_tick = now + GL_TICK_MS * 1000000;
    idle_ticks = each_outbox(gl_outbox_look) ? 0 : idle_ticks + 1;
    if (idle_ticks < GL_IDLE_TICKS)
        return;
    idle_ticks = 0;
    GL_YIELD();
    __atomic_store_n(&ticking, 0, __ATOMIC_SEQ_CST);
    GL_YIELD();
    if (each_outbox(in_use)) /* it may have seen the 1 */
        __atomic_store_n(&ticking, 1, __ATOMIC_SEQ_CST);
}

/* How long the netpoller may sleep: milliseconds, or -1. */
static int time_to_sleep(void) {
    if (guest != NULL && guest->round())
        return 0;
    __atomic_store_n(&dozing, 1, __ATOMIC_SEQ_CST);
    GL_YIELD();
    if (guest != NULL && !guest->idle())
        return 0;
    if (__atomic_load_n(&ticking, __ATOMIC_SEQ_CST)) /* pairs with gl_netpoller_tick */
        return GL_TICK_MS;
    if (__atomic_load_n(&minding, __ATOMIC_SEQ_CST)) { /* pairs with ask_to_mind */
        int64_t left = next_look - coarse_ns();
        return left > 0 ? (int)(left / 1000000) + 1 : 0;
    }
    return -1;
}

static void *netpoller_main(void *arg) {
    int epfd = (int)(intptr_t)arg, stop = 0;
    struct epoll_event events[GL_EVENTS];
    while (!stop) {
        int wait = time_to_sleep(), n;
        trace(GL_TRACE_NETPOLLED, 0, 0);
        n = epoll_wait(epfd, events, GL_EVENTS, wait);
        if (n < 0 && errno != EINTR)
            gl_fatal("netpoller: epoll_wait");
        trace(GL_TRACE_NETPOLL, 0, n > 0 ? (uint64_t)n : 0);
        __atomic_store_n(&dozing, 0, __ATOMIC_SEQ_CST);
        for (int i = 0; i < n; i++)
            if (events[i].data.u64 == STOP_MARK)
                stop = 1; /* not at once: the kernel has disarmed the entries of the others in the batch */
            else if (events[i].data.u64 != DOORBELL_MARK &&
                     (guest == NULL || !guest->event(events[i].data.u64, events[i].events)))
                netpoller_fired(events[i].data.u64);
        if (__atomic_load_n(&ticking, __ATOMIC_RELAXED))
            tick();
        if (__atomic_load_n(&minding, __ATOMIC_RELAXED))
            mind();
    }
    return NULL;
}

static int netpoller_start(void) { /* under table_lock; 0, or an error */
    int error = gl_start_thread(&netpoller, "goloop-netpoll", netpoller_main, (void *)(intptr_t)master);
    if (error)
        return error;
    /* seq_cst: pairs with gl_park, see before_fork. */
    __atomic_store_n(&netpoller_running, 1, __ATOMIC_SEQ_CST);
    return 0;
}

static void netpoller_stop(void) { /* under table_lock, which the thread never takes */
    uint64_t word = 1;
    if (!netpoller_running)
        return;
    __atomic_store_n(&netpoller_running, 0, __ATOMIC_SEQ_CST);
    if (write(stop_fd, &word, sizeof word) != sizeof word)
        gl_fatal("netpoller: stop");
    pthread_join(netpoller, NULL);
    if (read(stop_fd, &word, sizeof word) != sizeof word)
        gl_fatal("netpoller: stopped");
}

static int netpoller_ensure(void) { /* 0, or an error */
    int error = 0;
    pthread_mutex_lock(&table_lock);
    if (!netpoller_running)
        error = netpoller_start();
    pthread_mutex_unlock(&table_lock);
    return error;
}

static int master_open(void) { /* under table_lock; 0, or -1 with errno */
    struct epoll_event stop = {.events = EPOLLIN, .data = {.u64 = STOP_MARK}};
    struct epoll_event ring = {.events = EPOLLIN | EPOLLET, .data = {.u64 = DOORBELL_MARK}};
    master = epoll_create1(EPOLL_CLOEXEC);
    stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    doorbell = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (master >= 0 && stop_fd >= 0 && doorbell >= 0 && epoll_ctl(master, EPOLL_CTL_ADD, stop_fd, &stop) == 0 &&
        epoll_ctl(master, EPOLL_CTL_ADD, doorbell, &ring) == 0)
        return 0;
    return -1;
}

static void master_close(void) { /* under table_lock; keeps errno */
    int saved = errno;
    if (stop_fd >= 0)
        close(stop_fd);
    if (doorbell >= 0)
        close(doorbell);
    if (master >= 0)
        close(master);
    master = stop_fd = doorbell = -1;
    errno = saved;
}

/* ------------------------------------------------------------------- fork */
static void before_fork(void) {
    pthread_mutex_lock(&table_lock);
    netpoller_stop();
    gl_send_collected(); /* as without an outbox: what was written before the fork comes before what the child writes */
    if (guest != NULL)
        guest->before_fork();
}

static void after_fork_parent(void) {
    /* gl_park says that it sleeps, then looks whether the netpoller runs; before_fork said that it does not
     * run, and here we look whether anybody sleeps. So either the loop starts it, or we do. */
    int needed = __atomic_load_n(&ticking, __ATOMIC_SEQ_CST) || __atomic_load_n(&minding, __ATOMIC_SEQ_CST) ||
                 (guest != NULL && guest->needed());
    for (uint32_t i = 0; i < table_size && !needed; i++)
        needed = __atomic_load_n(&table_at(i)->state, __ATOMIC_SEQ_CST) == GL_PARKED;
    if (needed && (errno = netpoller_start()) != 0)
        gl_fatal("netpoller: restart after a fork");
    if (guest != NULL)
        guest->after_fork_parent();
    pthread_mutex_unlock(&table_lock);
}

static void after_fork_child(void) {
    /* The master epoll is the parent's. Poll sets opened before stay foreign for ever; the first one opened
     * here makes a master of this process's own. */
    __atomic_fetch_add(&fork_epoch, 1, __ATOMIC_RELAXED);
    for (uint32_t i = 0; i < table_size; i++) {
        __atomic_store_n(&table_at(i)->ringers, 0, __ATOMIC_RELAXED);   /* the threads that were ringing are not here */
        __atomic_store_n(&table_at(i)->outbox, NULL, __ATOMIC_RELAXED); /* the parent's loop keeps it, sent as it is */
    }
    master_close();
    open_count = 0;
    __atomic_store_n(&dozing, 0, __ATOMIC_RELAXED);
    __atomic_store_n(&ticking, 0, __ATOMIC_RELAXED);
    __atomic_store_n(&minding, 0, __ATOMIC_RELAXED);
    if (guest != NULL)
        guest->after_fork_child();
    pthread_mutex_unlock(&table_lock);
}

/* When the library is loaded, so that no fork can come between table_lock and its handlers. */
__attribute__((constructor)) static void hook_forks(void) {
    if ((errno = pthread_atfork(before_fork, after_fork_parent, after_fork_child)) != 0)
        gl_fatal("pthread_atfork");
}

/* --------------------------------------------------------------- poll set */
static int bell_open(int epfd) { /* the bell of a poll set; -1 with errno */
    struct epoll_event event = {.events = EPOLLIN | EPOLLET, .data = {.u64 = GL_BELL}};
    int bell = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (bell >= 0 && epoll_ctl(epfd, EPOLL_CTL_ADD, bell, &event) < 0) {
        int saved = errno;
        close(bell);
        errno = saved;
        return -1;
    }
    return bell;
}

/* Take a place in the table and enter it in the master, disarmed. NULL: an error, in errno. Under table_lock. */
static gl_pollset *pollset_register(int epfd) {
    gl_pollset *ps = table_take();
    struct epoll_event event = {.events = EPOLLONESHOT};
    int error;
    if (ps == NULL)
        return NULL;
    event.data.u64 = epoll_key(ps, __atomic_add_fetch(&ps->generation, 1, __ATOMIC_RELEASE));
    __atomic_store_n(&ps->armed, 0, __ATOMIC_RELAXED);
    __atomic_store_n(&ps->state, GL_RUNNING, __ATOMIC_RELAXED);
    if (epoll_ctl(master, EPOLL_CTL_ADD, epfd, &event) == 0)
        return ps;
    error = errno;
    __atomic_add_fetch(&ps->generation, 1, __ATOMIC_RELEASE);
    table_put(ps);
    errno = error;
    return NULL;
}

static void pollset_init(gl_pollset *ps, int epfd, int bell, gl_inbox *inbox) {
    ps->epfd = epfd;
    ps->bell = bell;
    ps->epoch = gl_fork_epoch();
    ps->inbox = inbox;
    ps->patient = 0;
    __atomic_store_n(&ps->loop, 0, __ATOMIC_RELAXED);
    __atomic_store_n(&ps->parks, 0, __ATOMIC_RELAXED);
    gl_inbox_open(inbox);
    gl_inbox_open(&ps->completions);
}

gl_pollset *gl_pollset_open(gl_inbox *inbox) {
    gl_pollset *ps;
    int epfd, bell = -1, error;
    pthread_mutex_lock(&table_lock);
    epfd = epoll_create1(EPOLL_CLOEXEC);
    if (epfd < 0 || (bell = bell_open(epfd)) < 0 || (open_count == 0 && master_open() < 0) ||
        (ps = pollset_register(epfd)) == NULL)
        goto failed;
    pollset_init(ps, epfd, bell, inbox);
    open_count++;
    pthread_mutex_unlock(&table_lock);
    return ps;
failed:
    error = errno;
    if (open_count == 0)
        master_close();
    if (bell >= 0)
        close(bell);
    if (epfd >= 0)
        close(epfd);
    pthread_mutex_unlock(&table_lock);
    errno = error;
    return NULL;
}

void gl_pollset_close(gl_pollset *ps) {
    pthread_mutex_lock(&table_lock);
    if (__atomic_load_n(&ps->generation, __ATOMIC_RELAXED) % 2 == 0) {
        errno = EINVAL;
        gl_fatal("a poll set was closed twice");
    }
    if (!gl_pollset_foreign(ps)) {
        epoll_ctl(master, EPOLL_CTL_DEL, ps->epfd, NULL);
        open_count--;
        /* The state is RUNNING, so no thread begins to ring; one that has begun is between two instructions. seq_cst:
         * the store of RUNNING by gl_poll comes before this load; acquire: the write before the close. */
        while (__atomic_load_n(&ps->ringers, __ATOMIC_SEQ_CST))
            sched_yield();
    }
    close(ps->bell);
    close(ps->epfd);
    ps->epfd = ps->bell = -1;
    __atomic_add_fetch(&ps->generation, 1, __ATOMIC_RELEASE); /* an event in flight is stale from here */
    table_put(ps);
    if (open_count == 0) {
        netpoller_stop();
        __atomic_store_n(&ticking, 0, __ATOMIC_SEQ_CST); /* all outboxes are empty: their loops are closed */
        __atomic_store_n(&minding, 0, __ATOMIC_SEQ_CST);
        master_close();
    }
    pthread_mutex_unlock(&table_lock);
}

int gl_pollset_foreign(const gl_pollset *ps) { return ps->epoch != gl_fork_epoch(); }

uint32_t gl_fork_epoch(void) { return __atomic_load_n(&fork_epoch, __ATOMIC_RELAXED); }

static void arm(gl_pollset *ps) {
    struct epoll_event event = {.events = EPOLLIN | EPOLLONESHOT};
    event.data.u64 = epoll_key(ps, __atomic_load_n(&ps->generation, __ATOMIC_RELAXED));
    /* Before the MOD: the netpoller may fire, and store 0, before the call returns. */
    __atomic_store_n(&ps->armed, 1, __ATOMIC_SEQ_CST);
    GL_YIELD();
    /* The MOD reports readiness that came in since the last harvest, so none is lost. `master` may be
     * read without the lock: it changes only when no poll set is open, and this one is. */
    if (epoll_ctl(master, EPOLL_CTL_MOD, ps->epfd, &event) < 0)
        gl_fatal("park: epoll_ctl");
}

int gl_park(gl_pollset *ps, int64_t deadline) {
    struct timespec until, *timeout = NULL;
    int error = 0;
    if (gl_pollset_foreign(ps))
        return EPERM; /* its epoll is shared with the parent, which would lose the events taken from it */
    if (deadline >= 0) {
        until.tv_sec = deadline / 1000000000;
        until.tv_nsec = deadline % 1000000000;
        timeout = &until;
    }
    __atomic_fetch_add(&ps->parks, 1, __ATOMIC_RELAXED);
    /* seq_cst: "I sleep" comes before both looks below. Pairs with gl_inbox_push + gl_unpark, and with
     * netpoller_fired. */
    __atomic_store_n(&ps->state, GL_PARKED, __ATOMIC_SEQ_CST);
    GL_YIELD();
    if (gl_inbox_empty(ps->inbox) && gl_inbox_empty(&ps->completions)) {
        if (!__atomic_load_n(&ps->armed, __ATOMIC_SEQ_CST))
            arm(ps);
        GL_YIELD();
        if (!__atomic_load_n(&netpoller_running, __ATOMIC_SEQ_CST)) /* pairs with before_fork */
            error = netpoller_ensure();
        while (!error && __atomic_load_n(&ps->state, __ATOMIC_ACQUIRE) == GL_PARKED) {
            if (gl_futex(&ps->state, FUTEX_WAIT_BITSET, GL_PARKED, timeout) == 0 || errno == EAGAIN)
                continue;
            error = errno;
            if (error != ETIMEDOUT && error != EINTR)
                gl_fatal("park: futex");
        }
    }
    __atomic_store_n(&ps->state, GL_RUNNING, __ATOMIC_SEQ_CST);
    return error;
}

/* epoll_wait with a timeout in nanoseconds where the kernel has it (5.11), else in milliseconds, rounded up. */
static int wait_for(int epfd, struct epoll_event *events, int room, int64_t ns) {
    int64_t ms = ns / 1000000 + (ns % 1000000 != 0);
#ifdef SYS_epoll_pwait2
    static uint32_t missing; /* atomic, relaxed: a hint; an old kernel says ENOSYS, an old sandbox EPERM */
    if (ns > 0 && !__atomic_load_n(&missing, __ATOMIC_RELAXED)) {
        struct {
            int64_t seconds, nanoseconds;
        } timeout = {ns / 1000000000, ns % 1000000000};
        int n = (int)syscall(SYS_epoll_pwait2, epfd, events, room, &timeout, NULL, 0);
        if (n >= 0 || (errno != ENOSYS && errno != EPERM))
            return n;
        __atomic_store_n(&missing, 1, __ATOMIC_RELAXED);
    }
#endif
    return epoll_wait(epfd, events, room, ms < INT_MAX ? (int)ms : INT_MAX);
}

/* Have the netpoller see when a sleep in the poll set becomes long. Returns 0 if it does, and 1 if the loop has to look
 * at the clock itself, which costs more: in a process that has slept but a few times, it is not started for that. */
static int ask_to_mind(void) {
    static uint32_t unminded; /* atomic, relaxed; sleeps */
    uint32_t no = 0;
    /* seq_cst: comes after the store of POLLING; pairs with mind(), which stores 0 and then looks at the states. */
    if (__atomic_load_n(&minding, __ATOMIC_SEQ_CST))
        return 0;
    if (!__atomic_load_n(&netpoller_running, __ATOMIC_SEQ_CST)) { /* pairs with before_fork, as in gl_park */
        if (__atomic_add_fetch(&unminded, 1, __ATOMIC_RELAXED) < GL_UNMINDED || netpoller_ensure())
            return 1;
    }
    if (__atomic_compare_exchange_n(&minding, &no, 1, 0, __ATOMIC_SEQ_CST, __ATOMIC_RELAXED))
        gl_netpoller_nudge();
    return 0;
}

/* Sleep in the poll set. Returns what epoll_wait returns; *was_long: that took, or takes, so long that a futex is
 * better. */
static int sleep_in_pollset(gl_pollset *ps, int64_t deadline, struct epoll_event *events, int room, int *was_long) {
    int n, self = ask_to_mind();
    if (deadline >= 0) {
        int64_t left = deadline - gl_monotonic_ns();
        if (self && left > SHORT_NS)
            left = SHORT_NS;
        else
            self = 0;
        n = wait_for(ps->epfd, events, room, left > 0 ? left : 0);
    } else {
        n = epoll_wait(ps->epfd, events, room, self ? GL_SHORT_MS : -1);
    }
    *was_long = n == 0 && self;
    return n;
}

static int is_bell(int n, const struct epoll_event *events) { return n == 1 && events[0].data.u64 == GL_BELL; }

/* The sleep is long: go on as gl_park. Returns as gl_poll does. */
static int park_and_harvest(gl_pollset *ps, int64_t deadline, struct epoll_event *events, int room) {
    int n, error = gl_park(ps, deadline);
    ps->patient = error == ETIMEDOUT;
    if (error == EINTR)
        return -EINTR;
    n = epoll_wait(ps->epfd, events, room, 0);
    return n < 0 ? -errno : n;
}

int gl_poll(gl_pollset *ps, int64_t deadline, struct epoll_event *events, int room) {
    int n = 0, error = 0, was_long = 0;
    if (gl_pollset_foreign(ps))
        return -EPERM;
    if (ps->patient)
        return park_and_harvest(ps, deadline, events, room);
    __atomic_fetch_add(&ps->parks, 1, __ATOMIC_RELAXED);
    __atomic_store_n(&ps->since, coarse_ns(), __ATOMIC_RELAXED);
    __atomic_store_n(&ps->long_wait, 0, __ATOMIC_RELAXED);
    /* seq_cst: "I sleep" comes before the look at the inbox. Pairs with gl_inbox_push + gl_unpark. Descriptors need
     * no such look: epoll itself keeps what became ready since the last harvest. */
    __atomic_store_n(&ps->state, GL_POLLING, __ATOMIC_SEQ_CST);
    GL_YIELD();
    if (gl_inbox_empty(ps->inbox) && gl_inbox_empty(&ps->completions)) {
        n = sleep_in_pollset(ps, deadline, events, room, &was_long);
        error = errno;
    }
    __atomic_store_n(&ps->state, GL_RUNNING, __ATOMIC_SEQ_CST);
    if (was_long || (is_bell(n, events) && __atomic_load_n(&ps->long_wait, __ATOMIC_SEQ_CST)))
        return park_and_harvest(ps, deadline, events, room);
    return n < 0 ? -error : n;
}

void gl_get_stats(gl_stats *out) {
    clockid_t clock;
    out->fires = __atomic_load_n(&count_fires, __ATOMIC_RELAXED);
    out->stale = __atomic_load_n(&count_stale, __ATOMIC_RELAXED);
    pthread_mutex_lock(&table_lock);
    out->pollsets = open_count;
    out->running = netpoller_running;
    out->cpu = netpoller_running && !pthread_getcpuclockid(netpoller, &clock) ? gl_clock_ns(clock) : 0;
    pthread_mutex_unlock(&table_lock);
}
