/* Stress for poll/native/netpoll.c, which it includes: every GL_YIELD() of a protocol becomes a
 * random pause, from a seed. A lost wake-up shows as a case that no longer moves: a watchdog says so and
 * ends the process with status 3; a broken promise ends it with status 1.
 *
 *     stress SEED MILLISECONDS [CASES]     cases: letters out of abcdef; each runs that long
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>

#define STALL_SECONDS 6 /* many times what the slowest step takes under valgrind on a busy machine */
#define STRESS_SLEEPS 4
#define STRESS_SLEEP_US 100
#define STRESS_YIELDS 16
#define STRESS_SPINS 12
#include "stress_common.h"

#define GL_SHORT_MS 1
#define GL_UNMINDED 3
#define GL_CHUNK 4
#define GL_EVENTS 2
#include "netpoll.c"
#include "outbox.c"

/* In a forked child the threads are gone that hold an inbox and no poll set to it yet, or any more: where there will be
 * forks, these are kept here as well, or valgrind takes them for lost. Elsewhere not, as the mutex would hide races. */
enum { KEPT = 256 };
static int forks;            /* constant while threads run */
static gl_inbox *kept[KEPT]; /* guarded by keeping, which fork() takes as well */
static pthread_mutex_t keeping = PTHREAD_MUTEX_INITIALIZER;

static gl_inbox *new_inbox(void) {
    gl_inbox *inbox;
    int i = 0;
    if (!forks)
        return malloc(sizeof *inbox);
    pthread_mutex_lock(&keeping);
    while (i < KEPT - 1 && kept[i] != NULL)
        i++;
    inbox = kept[i] = malloc(sizeof *inbox);
    pthread_mutex_unlock(&keeping);
    return inbox;
}

static void free_inbox(gl_inbox *inbox) {
    if (forks) {
        pthread_mutex_lock(&keeping);
        for (int i = 0; i < KEPT; i++)
            if (kept[i] == inbox)
                kept[i] = NULL;
        free(inbox);
        pthread_mutex_unlock(&keeping);
    } else {
        free(inbox);
    }
}

static gl_pollset *open_set(void) {
    gl_inbox *inbox = new_inbox();
    gl_pollset *ps = inbox ? gl_pollset_open(inbox) : NULL;
    if (ps == NULL)
        free_inbox(inbox);
    return ps;
}

static void close_set(gl_pollset *ps) {
    gl_inbox *inbox = ps->inbox;
    gl_pollset_close(ps);
    free_inbox(inbox);
}

/* -------------------------------------------------------------- verdicts */
static gl_pollset *shown[4]; /* atomic; print_state() shows them */

static void print_state(void) {
    for (int i = 0; i < 4; i++) {
        gl_pollset *ps = __atomic_load_n(&shown[i], __ATOMIC_ACQUIRE);
        if (ps != NULL)
            fprintf(stderr, "poll set %u: state %u, armed %u, inbox %s\n", ps->index,
                    __atomic_load_n(&ps->state, __ATOMIC_RELAXED), __atomic_load_n(&ps->armed, __ATOMIC_RELAXED),
                    gl_inbox_empty(ps->inbox) ? "empty" : "not empty");
    }
}

static void check_all_closed(int fds) {
    gl_stats stats;
    gl_get_stats(&stats);
    CHECK(stats.pollsets == 0, "%u poll sets are still open", stats.pollsets);
    CHECK(!stats.running, "the netpoller runs without a poll set");
    CHECK(count_fds() == fds, "%d descriptors before, %d after", fds, count_fds());
}

/* ------------------------------------------------------- a: inbox alone */
enum { PRODUCERS = 4, NODES = 200 };

typedef struct {
    gl_node node;
    int producer, seq;
    int result; /* the producer's: what the push said */
    int seen;   /* the consumer's: how often it was handed out */
    int oldest; /* the consumer's: first of its batch */
} item;

static item items[PRODUCERS][NODES];
static gl_inbox box;

static void *push_items(void *arg) {
    item *mine = arg;
    for (int i = 0; i < NODES; i++) {
        mine[i].result = gl_inbox_push(&box, &mine[i].node);
        if (rnd(4) == 0)
            stress_yield();
        beat();
    }
    return NULL;
}

static int receive_items(gl_node *node, int *next) {
    int n = 0;
    for (; node != NULL; node = node->next, n++) {
        item *it = node->item;
        CHECK(it->seen++ == 0, "node %d of producer %d was handed out twice", it->seq, it->producer);
        CHECK(it->seq == next[it->producer], "producer %d: node %d came, %d was next", it->producer, it->seq,
              next[it->producer]);
        next[it->producer]++;
        it->oldest = n == 0;
    }
    return n;
}

static unsigned case_inbox(void) {
    unsigned rounds = 0;
    for (; going(); rounds++) {
        pthread_t threads[PRODUCERS];
        int next[PRODUCERS] = {0}, producers = 1 + rnd(PRODUCERS), got = 0;
        int close_after = rnd(2) ? producers * NODES : (int)rnd(producers * NODES);
        item extra = {.result = GL_INBOX_CLOSED};
        gl_inbox_open(&box);
        for (int p = 0; p < producers; p++)
            for (int i = 0; i < NODES; i++) {
                item *it = &items[p][i];
                *it = (item){.node = {.item = it}, .producer = p, .seq = i};
            }
        for (int p = 0; p < producers; p++)
            threads[p] = start_thread(push_items, items[p]);
        while (got < close_after) {
            got += receive_items(gl_inbox_take(&box), next);
            stress_yield();
        }
        receive_items(gl_inbox_close(&box), next);
        CHECK(gl_inbox_empty(&box) && gl_inbox_take(&box) == NULL, "a closed inbox handed something out");
        CHECK(gl_inbox_push(&box, &extra.node) == GL_INBOX_CLOSED, "a closed inbox took a node");
        CHECK(gl_inbox_close(&box) == NULL, "the second close handed something out");
        for (int p = 0; p < producers; p++)
            pthread_join(threads[p], NULL);
        CHECK(gl_inbox_take(&box) == NULL, "a node was accepted after the close");
        for (int p = 0; p < producers; p++)
            for (int i = 0; i < NODES; i++) {
                item *it = &items[p][i];
                if (it->result == GL_INBOX_CLOSED)
                    CHECK(!it->seen, "node %d of producer %d was refused and handed out", i, p);
                else
                    CHECK(it->seen, "node %d of producer %d was accepted and lost", i, p);
                if (it->seen) /* or nobody wakes the consumer, or several do */
                    CHECK(it->oldest == (it->result == GL_INBOX_FIRST), "node %d of producer %d: push said %d", i, p,
                          it->result);
            }
    }
    return rounds;
}

/* -------------------------------------------- b, c, d: a consumer parks
 * Each source sends `todo` tokens, a few of them before the last one is acknowledged: once the consumer
 * oversleeps, everybody stands still. */
enum { SOURCES = 5, LETTERS = 4 };
enum { LETTER, EVENTFD, PIPE };
enum { DEADLINES = 1, SPURIOUS = 2, SIGNALS = 4 };

typedef struct {
    gl_node node;
    struct source *from;
    uint32_t seq;
} letter;

typedef struct source {
    struct world *world;
    pthread_t thread;
    int kind, edge, in, out;
    uint32_t todo;
    uint32_t got;            /* atomic; the consumer stores, the sender waits for it */
    letter letters[LETTERS]; /* token n is letter n % LETTERS, free again when n was got */
} source;

typedef struct world {
    gl_pollset *ps;
    pthread_t consumer;
    int count, with;
    uint32_t done; /* atomic; all tokens came */
    source sources[SOURCES];
} world;

static void *send_tokens(void *arg) {
    source *s = arg;
    uint64_t one = 1;
    uint32_t depth = 1 + rnd(LETTERS);
    for (uint32_t n = 0; n < s->todo; n++) {
        while (n - __atomic_load_n(&s->got, __ATOMIC_ACQUIRE) >= depth)
            rnd(4) ? (void)sched_yield() : nap_us(rnd(40));
        stress_yield();
        if (s->kind == LETTER) {
            letter *l = &s->letters[n % LETTERS];
            *l = (letter){.node = {.item = l}, .from = s, .seq = n};
            if (gl_inbox_push(s->world->ps->inbox, &l->node) == GL_INBOX_FIRST) {
                stress_yield();
                gl_unpark(s->world->ps);
            }
        } else {
            size_t size = s->kind == EVENTFD ? sizeof one : 1;
            CHECK(write(s->out, &one, size) == (ssize_t)size, "write: %s", strerror(errno));
        }
    }
    return NULL;
}

static void got_tokens(source *s, uint32_t n) {
    __atomic_store_n(&s->got, s->got + n, __ATOMIC_RELEASE);
    CHECK(s->got <= s->todo, "more tokens than were sent");
    beat();
}

static void read_tokens(source *s) {
    uint64_t buffer;
    for (;;) {
        ssize_t n = read(s->in, &buffer, s->kind == EVENTFD ? 8 : s->edge ? 3 : 1);
        if (n < 0) {
            CHECK(errno == EAGAIN, "read: %s", strerror(errno));
            return;
        }
        got_tokens(s, s->kind == EVENTFD ? (uint32_t)buffer : (uint32_t)n);
        if (!s->edge)
            return; /* what is left keeps the descriptor ready */
    }
}

static void control(world *w, source *s, int op) {
    struct epoll_event event = {.events = EPOLLIN | (s->edge ? EPOLLET : 0), .data = {.ptr = s}};
    CHECK(epoll_ctl(w->ps->epfd, op, s->in, &event) == 0, "epoll_ctl: %s", strerror(errno));
}

static void read_events(const struct epoll_event *events, int n) {
    for (int i = 0; i < n; i++)
        if (events[i].data.u64 != GL_BELL)
            read_tokens(events[i].data.ptr);
}

static void park(world *w) { /* in either way */
    struct epoll_event events[3];
    int64_t deadline = -1;
    int result, n = 0, polls = rnd(2);
    if (w->with & DEADLINES && rnd(2))
        deadline = rnd(4) ? stress_now() + rnd(200000) : rnd(2) ? stress_now() : 0;
    if (polls) {
        n = gl_poll(w->ps, deadline, events, 1 + rnd(3));
        result = n < 0 ? -n : 0;
    } else {
        result = gl_park(w->ps, deadline);
    }
    if (result == ETIMEDOUT)
        CHECK(!polls && deadline >= 0 && stress_now() >= deadline, "the park timed out too early");
    else
        CHECK(result == 0 || (result == EINTR && w->with & SIGNALS), "the park returned %d", result);
    CHECK(__atomic_load_n(&w->ps->state, __ATOMIC_RELAXED) == GL_RUNNING, "a state of sleep after a park");
    read_events(events, n);
}

static void *consume(void *arg) {
    world *w = arg;
    uint32_t todo = 0, received = 1;
    for (int i = 0; i < w->count; i++)
        todo += w->sources[i].todo;
    for (;;) {
        struct epoll_event events[3];
        int n, found = 0;
        for (gl_node *node = gl_inbox_take(w->ps->inbox), *next; node != NULL; node = next, found = 1) {
            letter *l = node->item;
            next = node->next; /* the sender uses it again as soon as it is acknowledged */
            CHECK(l->seq == l->from->got, "letter %u came, %u was next", l->seq, l->from->got);
            got_tokens(l->from, 1);
        }
        n = epoll_wait(w->ps->epfd, events, 1 + rnd(3), 0);
        if (n < 0) {
            CHECK(errno == EINTR, "epoll_wait: %s", strerror(errno));
            continue;
        }
        read_events(events, n);
        received = 0;
        for (int i = 0; i < w->count; i++)
            received += w->sources[i].got;
        if (received == todo)
            break;
        if (rnd(16) == 0) {
            source *s = &w->sources[rnd(w->count)];
            if (s->kind != LETTER && rnd(2)) {
                control(w, s, EPOLL_CTL_MOD);
            } else if (s->kind != LETTER) {
                control(w, s, EPOLL_CTL_DEL);
                control(w, s, EPOLL_CTL_ADD);
            }
        }
        /* Now and then without having looked again: what is ready must end the park at once. */
        if ((!found && n == 0) || rnd(8) == 0) {
            stress_yield();
            park(w);
        }
    }
    __atomic_store_n(&w->done, 1, __ATOMIC_RELEASE);
    return NULL;
}

static __thread gl_pollset *interrupted;

static void on_signal(int signal) {
    int saved = errno;
    (void)signal;
    if (interrupted != NULL)
        gl_unpark(interrupted);
    errno = saved;
}

static void *consume_with_signals(void *arg) {
    interrupted = ((world *)arg)->ps;
    return consume(arg);
}

static void open_world(world *w, int letters, int files, int with) {
    *w = (world){.ps = open_set(), .count = letters + files, .with = with};
    CHECK(w->ps != NULL, "gl_pollset_open: %s", strerror(errno));
    for (int i = 0; i < w->count; i++) {
        source *s = &w->sources[i];
        int ends[2] = {-1, -1};
        s->world = w;
        s->todo = 50 + rnd(150);
        s->kind = i < letters ? LETTER : rnd(2) ? EVENTFD : PIPE;
        s->edge = rnd(2);
        if (s->kind == EVENTFD)
            ends[0] = ends[1] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK | (s->edge ? 0 : EFD_SEMAPHORE));
        else if (s->kind == PIPE)
            CHECK(pipe2(ends, O_CLOEXEC | O_NONBLOCK) == 0, "pipe2: %s", strerror(errno));
        s->in = ends[0];
        s->out = ends[1];
        if (s->kind != LETTER)
            control(w, s, EPOLL_CTL_ADD);
    }
}

static void start_world(world *w) {
    w->consumer = start_thread(w->with & SIGNALS ? consume_with_signals : consume, w);
    for (int i = 0; i < w->count; i++)
        w->sources[i].thread = start_thread(send_tokens, &w->sources[i]);
}

static void close_world(world *w) {
    pthread_join(w->consumer, NULL);
    for (int i = 0; i < w->count; i++) {
        source *s = &w->sources[i];
        pthread_join(s->thread, NULL);
        if (s->kind != LETTER)
            close(s->in);
        if (s->kind == PIPE)
            close(s->out);
    }
    gl_inbox_close(w->ps->inbox);
    close_set(w->ps);
}

static unsigned run_worlds(int letters, int files, int with) {
    static world worlds[2];
    unsigned rounds = 0;
    for (; going(); rounds++) {
        int n = 1 + rnd(2), fds = count_fds();
        for (int i = 0; i < n; i++) {
            /* Often a single source: a second one can wake a consumer that overslept the first. */
            int l = letters ? 1 + rnd(letters) : 0, f = files ? 1 + rnd(files) : 0;
            open_world(&worlds[i], l, f, rnd(with + 1));
            __atomic_store_n(&shown[i], worlds[i].ps, __ATOMIC_RELEASE);
        }
        for (int i = 0; i < n; i++)
            start_world(&worlds[i]);
        for (int i = 0; i < n; i++)
            while (worlds[i].with & (SPURIOUS | SIGNALS) && !__atomic_load_n(&worlds[i].done, __ATOMIC_ACQUIRE)) {
                if (worlds[i].with & SPURIOUS)
                    gl_unpark(worlds[i].ps);
                else
                    pthread_kill(worlds[i].consumer, SIGUSR1);
                nap_us(rnd(200));
            }
        for (int i = 0; i < n; i++) {
            close_world(&worlds[i]);
            __atomic_store_n(&shown[i], NULL, __ATOMIC_RELEASE);
        }
        check_all_closed(fds);
    }
    return rounds;
}

/* A park without a deadline ends with a signal whose handler does nothing for it. */
static void *park_for_signal(void *arg) {
    world *w = arg;
    struct epoll_event event;
    int result, polls = w->with;
    while ((polls ? (result = gl_poll(w->ps, -1, &event, 1)) > 0 : (result = gl_park(w->ps, -1)) == 0))
        ;
    CHECK(result == (polls ? -EINTR : EINTR), "the park returned %d after a signal", result);
    __atomic_store_n(&w->done, 1, __ATOMIC_RELEASE);
    return NULL;
}

static void check_interrupt(int polls) {
    world w = {.ps = open_set(), .with = polls};
    pthread_t thread = start_thread(park_for_signal, &w);
    while (!__atomic_load_n(&w.done, __ATOMIC_ACQUIRE)) {
        pthread_kill(thread, SIGUSR1);
        nap_us(200);
    }
    pthread_join(thread, NULL);
    close_set(w.ps);
}

/* A loop that is busy with what is ready costs the netpoller one event, however long it takes. */
static void check_one_event(void) {
    gl_pollset *ps = open_set();
    struct epoll_event event = {.events = EPOLLIN};
    gl_stats before, after;
    int ready = eventfd(1, EFD_CLOEXEC | EFD_NONBLOCK);
    CHECK(epoll_ctl(ps->epfd, EPOLL_CTL_ADD, ready, &event) == 0, "epoll_ctl: %s", strerror(errno));
    gl_get_stats(&before);
    CHECK(gl_park(ps, -1) == 0, "a park without a deadline failed");
    nap_us(20000);
    gl_get_stats(&after);
    CHECK(after.fires - before.fires == 1, "one park, %d events", (int)(after.fires - before.fires));
    close_set(ps);
    close(ready);
}

/* Nothing ready: a poll ends when its time is over, not before; without a deadline, when the bell rings. */
static void *ring_late(void *arg) {
    gl_pollset *ps = arg;
    static gl_node node;
    nap_us(2000);
    CHECK(gl_inbox_push(ps->inbox, &node) == GL_INBOX_FIRST, "the inbox was not empty");
    gl_unpark(ps);
    return NULL;
}

static void check_poll_deadline(void) {
    gl_pollset *ps = open_set();
    struct epoll_event event;
    int64_t deadline = stress_now() + 300000;
    pthread_t thread;
    int n;
    CHECK(gl_poll(ps, deadline, &event, 1) == 0, "something was ready in an empty poll set");
    CHECK(stress_now() >= deadline, "the poll ended too early");
    CHECK(gl_poll(ps, 0, &event, 1) == 0, "something was ready in an empty poll set");
    thread = start_thread(ring_late, ps);
    n = gl_poll(ps, -1, &event, 1);
    CHECK(n == 0 || (n == 1 && event.data.u64 == GL_BELL), "the poll returned %d", n);
    pthread_join(thread, NULL);
    CHECK(gl_inbox_take(ps->inbox) != NULL, "the poll ended without a reason");
    close_set(ps);
}

static unsigned case_parking(void) { return run_worlds(3, 0, 0); }

static unsigned case_files(void) {
    check_one_event();
    return run_worlds(0, 3, 0);
}

static unsigned case_both(void) {
    check_interrupt(0);
    check_interrupt(1);
    check_poll_deadline();
    return run_worlds(2, 3, DEADLINES | SPURIOUS | SIGNALS);
}

/* ------------------------------------------------------------- e: churn */
enum { CHURNERS = 3, HELD = 30, SHARED = 4, PAST = 64 }; /* together more than one GL_CHUNK of poll sets */

static int shared[SHARED];            /* eventfds in everybody's poll sets, written all the time */
static int mail[CHURNERS];            /* atomic; 1 + a descriptor to write to, once */
static uint32_t held[128 * GL_CHUNK]; /* atomic; by index: somebody has it open */
static gl_pollset *past[PAST];        /* atomic; to wake late */
static uint32_t churning;             /* atomic; churners at work */

static gl_pollset *open_checked(void) {
    gl_pollset *ps = open_set();
    CHECK(ps != NULL, "gl_pollset_open: %s", strerror(errno));
    CHECK(ps->index < 128 * GL_CHUNK, "poll set %u: closed ones are not used again", ps->index);
    CHECK(__atomic_exchange_n(&held[ps->index], 1, __ATOMIC_ACQ_REL) == 0, "poll set %u is open twice", ps->index);
    CHECK(__atomic_load_n(&ps->generation, __ATOMIC_RELAXED) % 2 == 1, "an open poll set's generation is even");
    CHECK(gl_inbox_empty(ps->inbox) && !gl_pollset_foreign(ps), "a new poll set is not new");
    __atomic_store_n(&past[rnd(PAST)], ps, __ATOMIC_RELEASE);
    return ps;
}

static void close_checked(gl_pollset *ps) {
    __atomic_store_n(&held[ps->index], 0, __ATOMIC_RELEASE);
    gl_inbox_close(ps->inbox);
    close_set(ps);
}

static void *churn(void *arg) {
    int me = (int)(intptr_t)arg;
    while (going()) {
        gl_pollset *sets[HELD];
        int own = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), n = 1 + rnd(rnd(4) ? 3 : HELD);
        for (int i = 0; i < n; i++) {
            struct epoll_event event = {.events = EPOLLIN | EPOLLET, .data = {.fd = -1}};
            sets[i] = open_checked();
            if (rnd(2))
                epoll_ctl(sets[i]->epfd, EPOLL_CTL_ADD, shared[rnd(SHARED)], &event);
        }
        for (int rounds = rnd(6); rounds > 0; rounds--) {
            gl_pollset *ps = sets[rnd(n)];
            struct epoll_event event = {.events = EPOLLIN | (rnd(2) ? EPOLLET : 0), .data = {.fd = own}};
            uint64_t value;
            int mine = 0;
            if (rnd(2)) {
                rnd(2) ? gl_park(ps, stress_now() + rnd(100000)) : gl_poll(ps, stress_now() + rnd(100000), &event, 1);
                continue;
            }
            CHECK(epoll_ctl(ps->epfd, EPOLL_CTL_ADD, own, &event) == 0, "epoll_ctl: %s", strerror(errno));
            __atomic_store_n(&mail[me], own + 1, __ATOMIC_RELEASE);
            while (!mine) {
                int polls = rnd(2), got = polls ? gl_poll(ps, -1, &event, 1) : epoll_wait(ps->epfd, &event, 1, 0);
                CHECK(got >= 0, "the poll returned %d", got);
                if (got == 1 && event.data.fd == own) {
                    mine = 1;
                    CHECK(read(own, &value, sizeof value) == sizeof value, "read: %s", strerror(errno));
                } else if (got == 0 && !polls) {
                    CHECK(gl_park(ps, -1) == 0, "a park without a deadline failed");
                }
            }
            CHECK(epoll_ctl(ps->epfd, EPOLL_CTL_DEL, own, NULL) == 0, "epoll_ctl: %s", strerror(errno));
            beat();
        }
        for (int i = 0; i < n; i++)
            close_checked(sets[i]);
        close(own);
        beat();
        if (rnd(2))
            nap_us(rnd(2000)); /* so that now and then none is open and the netpoller stops */
    }
    __atomic_sub_fetch(&churning, 1, __ATOMIC_RELEASE);
    return NULL;
}

static void *write_mail(void *unused) {
    uint64_t one = 1;
    while (__atomic_load_n(&churning, __ATOMIC_ACQUIRE)) {
        int fd = __atomic_exchange_n(&mail[rnd(CHURNERS)], 0, __ATOMIC_ACQ_REL);
        gl_pollset *late = __atomic_load_n(&past[rnd(PAST)], __ATOMIC_ACQUIRE);
        if (fd)
            CHECK(write(fd - 1, &one, sizeof one) == sizeof one, "write: %s", strerror(errno));
        CHECK(write(shared[rnd(SHARED)], &one, sizeof one) == sizeof one, "write: %s", strerror(errno));
        if (late != NULL && rnd(16) == 0)
            gl_unpark(late); /* may be closed, or somebody else's by now */
        stress_yield();
    }
    return unused;
}

/* An event of a closed poll set must not touch the next user of its place. */
static void check_stale(void) {
    gl_pollset *ps = open_set(), *again;
    gl_stats before, after;
    uint32_t generation = ps->generation;
    close_set(ps);
    gl_get_stats(&before);
    netpoller_fired(epoll_key(ps, generation));
    again = open_set();
    CHECK(again == ps && ps->generation != generation, "the last closed place is not used again, or not renewed");
    __atomic_store_n(&ps->armed, 1, __ATOMIC_SEQ_CST);
    netpoller_fired(epoll_key(ps, generation));
    CHECK(__atomic_load_n(&ps->armed, __ATOMIC_SEQ_CST) == 1, "a stale event disarmed a new poll set");
    netpoller_fired(UINT64_MAX - 1);
    gl_get_stats(&after);
    CHECK(after.stale - before.stale == 3, "%d of 3 stale events were dropped", (int)(after.stale - before.stale));
    close_set(ps);
}

static void start_churn(pthread_t *threads) {
    __atomic_store_n(&churning, CHURNERS, __ATOMIC_RELEASE);
    for (int i = 0; i < SHARED; i++)
        shared[i] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    for (intptr_t i = 0; i < CHURNERS; i++)
        threads[i] = start_thread(churn, (void *)i);
    threads[CHURNERS] = start_thread(write_mail, NULL);
    threads[CHURNERS + 1] = start_thread(write_mail, NULL);
}

static void end_churn(pthread_t *threads) {
    for (int i = 0; i < CHURNERS + 2; i++)
        pthread_join(threads[i], NULL);
    for (int i = 0; i < SHARED; i++)
        close(shared[i]);
}

static unsigned case_churn(void) {
    pthread_t threads[CHURNERS + 2];
    uint32_t before = beats;
    int fds = count_fds();
    check_stale();
    start_churn(threads);
    end_churn(threads);
    check_all_closed(fds);
    return beats - before;
}

/* -------------------------------------------------------------- f: fork */
static void *ring(void *arg) {
    uint64_t one = 1;
    nap_us(rnd(500));
    CHECK(write((int)(intptr_t)arg, &one, sizeof one) == sizeof one, "write: %s", strerror(errno));
    return NULL;
}

static void live_as_child(gl_pollset *parked, gl_pollset *idle, int parent_master, int depth) {
    gl_stats stats;
    gl_pollset *ps;
    struct epoll_event event = {.events = EPOLLIN};
    int bell = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), fds, early = rnd(2);
    pthread_t thread;
    in_child = 1;
    alarm(5 * STALL_SECONDS); /* no watchdog here: SIGALRM ends a child that oversleeps */
    gl_get_stats(&stats);
    CHECK(stats.pollsets == 0 && !stats.running, "the child thinks it has %u poll sets", stats.pollsets);
    CHECK(fcntl(parent_master, F_GETFD) == -1 || parent_master == bell, "the parent's master is open in the child");
    CHECK(gl_pollset_foreign(parked) && gl_pollset_foreign(idle), "the parent's poll sets are not foreign");
    fds = count_fds();
    if (early)
        close_set(idle);
    ps = open_set();
    CHECK(ps != NULL && !gl_pollset_foreign(ps), "the child's poll set is foreign");
    CHECK(epoll_ctl(ps->epfd, EPOLL_CTL_ADD, bell, &event) == 0, "epoll_ctl: %s", strerror(errno));
    thread = start_thread(ring, (void *)(intptr_t)bell);
    if (rnd(2))
        CHECK(gl_poll(ps, -1, &event, 1) == 1, "a poll without a deadline failed");
    else
        while (epoll_wait(ps->epfd, &event, 1, 0) == 0)
            CHECK(gl_park(ps, -1) == 0, "a park without a deadline failed");
    pthread_join(thread, NULL);
    gl_unpark(parked); /* wakes nobody, and rings no bell of the parent's */
    if (depth > 0) {
        int status, own_master = master;
        pid_t pid = fork();
        CHECK(pid >= 0, "fork: %s", strerror(errno));
        if (pid == 0) {
            live_as_child(ps, early ? parked : idle, own_master, depth - 1);
            _exit(0);
        }
        CHECK(waitpid(pid, &status, 0) == pid && status == 0, "the grandchild ended with status %#x", status);
    }
    if (!early)
        close_set(idle);
    close_set(parked);
    gl_get_stats(&stats);
    CHECK(stats.pollsets == 1, "closing the parent's poll sets closed the child's");
    CHECK(gl_park(ps, -1) == 0, "a park without a deadline failed"); /* the bell still rings */
    close_set(ps);
    check_all_closed(fds - 4); /* epoll and bell of each */
}

/* A child that still has the parent's descriptors does not keep a closed poll set in the master. */
static void check_kept_alive(void) {
    gl_pollset *gone = open_set(), *ps = open_set();
    struct epoll_event event = {.events = EPOLLIN};
    gl_stats before, after;
    uint64_t one = 1;
    int bell = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), hold[2], status;
    pid_t pid;
    CHECK(pipe2(hold, O_CLOEXEC) == 0, "pipe2: %s", strerror(errno));
    CHECK(epoll_ctl(gone->epfd, EPOLL_CTL_ADD, bell, &event) == 0, "epoll_ctl: %s", strerror(errno));
    CHECK(epoll_ctl(ps->epfd, EPOLL_CTL_ADD, bell, &event) == 0, "epoll_ctl: %s", strerror(errno));
    CHECK(gl_park(gone, 0) == ETIMEDOUT, "a park until 0 did not time out"); /* now it is armed */
    if ((pid = fork()) == 0) {
        close(hold[1]);
        _exit(read(hold[0], &status, 1) != 0);
    }
    CHECK(pid > 0, "fork: %s", strerror(errno));
    close_set(gone);
    gl_get_stats(&before);
    CHECK(write(bell, &one, sizeof one) == sizeof one, "write: %s", strerror(errno));
    CHECK(gl_park(ps, -1) == 0, "a park without a deadline failed"); /* its event stands behind a stale one */
    gl_get_stats(&after);
    CHECK(after.stale == before.stale, "a closed poll set is still in the master");
    close(hold[0]);
    close(hold[1]);
    CHECK(waitpid(pid, &status, 0) == pid && status == 0, "the child ended with status %#x", status);
    close_set(ps);
    close(bell);
}

static unsigned case_fork(void) {
    unsigned rounds = 0;
    int fds = count_fds();
    check_kept_alive();
    forks = 1;
    while (going()) {
        static world w;
        int64_t end = until;
        pthread_t threads[CHURNERS + 2];
        gl_pollset *idle = open_set();
        int noise = rnd(2);
        open_world(&w, rnd(2), 1 + rnd(2), 0);
        for (int i = 0; i < w.count; i++)
            w.sources[i].todo = 600;
        until = stress_now() + 150000000;
        if (noise)
            start_churn(threads); /* forks then meet a table that is being changed */
        start_world(&w);
        do {
            pid_t pid;
            int status, parent_master = master; /* the same while `idle` is open */
            nap_us(rnd(1000));
            pthread_mutex_lock(&keeping);
            pid = fork();
            pthread_mutex_unlock(&keeping);
            if (pid == 0) {
                live_as_child(w.ps, idle, parent_master, rnd(4) == 0);
                _exit(0);
            }
            CHECK(pid > 0, "fork: %s", strerror(errno));
            CHECK(waitpid(pid, &status, 0) == pid && status == 0, "the child ended with status %#x", status);
            rounds++; /* no beat(): the watchdog is to see whether the parent's loop moves */
        } while (!__atomic_load_n(&w.done, __ATOMIC_ACQUIRE));
        close_world(&w);
        if (noise)
            end_churn(threads);
        close_set(idle);
        until = end;
    }
    forks = 0;
    check_all_closed(fds);
    return rounds;
}

/* ----------------------------------------------------------------- main */
static const struct {
    const char *name;
    unsigned (*run)(void);
} cases[] = {{"inbox", case_inbox}, {"parking", case_parking}, {"files", case_files},
             {"both", case_both},   {"churn", case_churn},     {"fork", case_fork}};

int main(int argc, char **argv) {
    struct sigaction action = {.sa_handler = on_signal};
    const char *letters = argc > 3 ? argv[3] : "abcdef";
    if (argc < 3 || strspn(letters, "abcdef") != strlen(letters)) {
        fprintf(stderr, "usage: stress SEED MILLISECONDS [CASES out of abcdef]\n");
        return 2;
    }
    seed = strtoull(argv[1], NULL, 10);
    sigaction(SIGUSR1, &action, NULL);
    for (; *letters; letters++) {
        gl_stats stats;
        unsigned rounds;
        current = *letters;
        rounds = run_watched(cases[*letters - 'a'].run, argv[2]);
        gl_get_stats(&stats);
        printf("%c %-7s ok: %u rounds, %llu fires, %llu stale\n", *letters, cases[*letters - 'a'].name, rounds,
               (unsigned long long)stats.fires, (unsigned long long)stats.stale);
        fflush(stdout);
    }
    return 0;
}
