#define _GNU_SOURCE
#include "sysmon.h"

#include "../../system/native/posix.h"

#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <time.h>
#include <unistd.h>

/* A stress build makes the ticks short, and yields at every step of a protocol. */
#ifndef GL_TICK
#define GL_YIELD() ((void)0)
#define GL_TICK 10000000     /* ns between two looks: Go's sysmon backs off to this */
#define GL_FAST_TICK 1000000 /* while it brings in one worker after the other */
#define GL_QUIET 100         /* ticks without any start after which it sleeps until it is woken */
#endif
#define GL_EARLY (GL_FAST_TICK / 4) /* a look that is due within so many ns shares the wake-up */

static long backlog;      /* atomic; goroutines that wait to be started */
static uint32_t starts;   /* atomic; counts those that were started */
static uint32_t asleep;   /* atomic, the futex word: 1 while the monitor sleeps without a deadline */
static uint32_t stopping; /* atomic; also a futex word, for the ticks */
static int running;       /* guard: control */
static pthread_t thread;  /* guard: control */
static pthread_mutex_t control = PTHREAD_MUTEX_INITIALIZER;
static __thread int is_monitor;
static gl_look look; /* atomic; a second thing to look at, at a pace of its own; NULL: none */

static void nap(long ns) {
    struct timespec timeout = {.tv_nsec = ns};
    if (!__atomic_load_n(&stopping, __ATOMIC_ACQUIRE))
        gl_futex(&stopping, FUTEX_WAIT, 0, &timeout);
}

static void sleep_until_woken(void) {
    /* seq_cst: "I sleep" comes before the look at the backlog. Pairs with gl_monitor_backlog, which adds before it
     * looks whether we sleep, and with gl_monitor_stop. */
    gl_look see = __atomic_load_n(&look, __ATOMIC_SEQ_CST);
    __atomic_store_n(&asleep, 1, __ATOMIC_SEQ_CST);
    GL_YIELD();
    if (see != NULL && see() != 0)
        __atomic_store_n(&asleep, 0, __ATOMIC_SEQ_CST);
    while (__atomic_load_n(&asleep, __ATOMIC_SEQ_CST) && __atomic_load_n(&backlog, __ATOMIC_SEQ_CST) == 0 &&
           !__atomic_load_n(&stopping, __ATOMIC_SEQ_CST))
        gl_futex(&asleep, FUTEX_WAIT, 1, NULL);
    __atomic_store_n(&asleep, 0, __ATOMIC_SEQ_CST);
}

static void wake(void) {
    if (__atomic_exchange_n(&asleep, 0, __ATOMIC_SEQ_CST))
        gl_futex(&asleep, FUTEX_WAKE, 1, NULL);
}

/* Nap for one tick, with looks in between. Returns whether there will be something to look at afterwards. */
static int tick(long ns) {
    static int64_t next, early; /* when to look, and how much before; the monitor's */
    int64_t end = gl_monotonic_ns() + ns, now;
    gl_look see = __atomic_load_n(&look, __ATOMIC_ACQUIRE);
    if (see == NULL) {
        nap(ns);
        return 0;
    }
    while ((now = gl_monotonic_ns()) < end && !__atomic_load_n(&stopping, __ATOMIC_ACQUIRE)) {
        if (now < next - early) {
            nap((long)(next < end ? next - now : end - now));
            continue;
        }
        int64_t wait = see();
        if (wait == 0) {
            nap((long)(end > gl_monotonic_ns() ? end - gl_monotonic_ns() : 0));
            return 0;
        }
        next = gl_monotonic_ns() + wait;
        early = wait < GL_FAST_TICK ? 0 : GL_EARLY;
    }
    return 1;
}

static void *monitor_main(void *argument) {
    gl_backlog_report report = (gl_backlog_report)argument;
    uint32_t seen = __atomic_load_n(&starts, __ATOMIC_RELAXED), now;
    int fast = 0, quiet = 0, looking;
    is_monitor = 1;
    while (!__atomic_load_n(&stopping, __ATOMIC_ACQUIRE)) {
        looking = tick(fast ? GL_FAST_TICK : GL_TICK);
        if (__atomic_load_n(&stopping, __ATOMIC_ACQUIRE))
            break;
        now = __atomic_load_n(&starts, __ATOMIC_RELAXED);
        if (__atomic_load_n(&backlog, __ATOMIC_RELAXED) > 0) {
            quiet = 0;
            /* In a fast tick one start is the worker that was brought in just now, and got stuck in its turn. */
            if (now - seen <= (uint32_t)fast)
                fast = report();
        } else {
            fast = 0;
            quiet = now == seen && !looking ? quiet + 1 : 0;
            if (quiet >= GL_QUIET) {
                sleep_until_woken();
                quiet = 0;
            }
        }
        seen = now;
    }
    return NULL;
}

static void after_fork_child(void) {
    /* The thread stayed in the parent, and so did a thread that held the mutex. The goroutines that wait are taken
     * out of the backlog by scheduler.pyx, which put them there. */
    pthread_mutex_init(&control, NULL);
    running = 0;
    __atomic_store_n(&stopping, 0, __ATOMIC_RELAXED);
    __atomic_store_n(&asleep, 0, __ATOMIC_RELAXED);
}

__attribute__((constructor)) static void hook_forks(void) { pthread_atfork(NULL, NULL, after_fork_child); }

static int start(gl_backlog_report report) { /* under control */
    int error;
    __atomic_store_n(&stopping, 0, __ATOMIC_RELAXED);
    error = gl_start_thread(&thread, "goloop-monitor", monitor_main, (void *)report);
    if (error)
        return error;
    running = 1;
    return 0;
}

int gl_monitor_start(gl_backlog_report report) {
    int error = 0;
    if (is_monitor) /* its report asks for it: it runs, if perhaps not for long */
        return 0;
    pthread_mutex_lock(&control);
    if (!running)
        error = start(report);
    pthread_mutex_unlock(&control);
    return error;
}

void gl_monitor_stop(void) {
    pthread_mutex_lock(&control);
    if (running) {
        __atomic_store_n(&stopping, 1, __ATOMIC_SEQ_CST);
        GL_YIELD();
        gl_futex(&stopping, FUTEX_WAKE, INT_MAX, NULL);
        wake();
        pthread_join(thread, NULL);
        running = 0;
    }
    pthread_mutex_unlock(&control);
}

void gl_monitor_backlog(long change) {
    __atomic_fetch_add(&backlog, change, __ATOMIC_SEQ_CST); /* pairs with sleep_until_woken */
    GL_YIELD();
    if (change > 0 && __atomic_load_n(&asleep, __ATOMIC_SEQ_CST))
        wake();
}

void gl_monitor_set_look(gl_look see) {
    __atomic_store_n(&look, see, __ATOMIC_SEQ_CST);
    gl_monitor_poke();
}

void gl_monitor_poke(void) {
    /* seq_cst: comes after what the caller wants to be looked at. Pairs with sleep_until_woken, which says that it
     * sleeps before the last look. */
    if (__atomic_load_n(&asleep, __ATOMIC_SEQ_CST))
        wake();
}

void gl_monitor_started(void) { __atomic_fetch_add(&starts, 1, __ATOMIC_RELAXED); }

int gl_thread_clock(void) {
    clockid_t clock;
    return pthread_getcpuclockid(pthread_self(), &clock) ? -1 : clock;
}

int64_t gl_thread_cpu(int clock) { return gl_clock_ns(clock); }
