/* What the stress programs share: random numbers from the seed, pauses, a watchdog, and the verdict of a failure.
 *
 * A program defines STALL_SECONDS and how likely which pause is, in 64ths, before it includes this, and print_state()
 * behind the source that it tests. It ends with status 1 for a broken promise and with 3 for a stall. */
#ifndef STRESS_COMMON_H
#define STRESS_COMMON_H

#include <dirent.h>
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#if !defined STALL_SECONDS || !defined STRESS_SLEEPS || !defined STRESS_SLEEP_US || !defined STRESS_YIELDS ||          \
    !defined STRESS_SPINS
#error "define STALL_SECONDS, STRESS_SLEEPS, STRESS_SLEEP_US, STRESS_YIELDS and STRESS_SPINS"
#endif

static uint64_t seed;
static uint32_t thread_count; /* atomic; each thread's place in the seed */
static char current = '-';    /* the case that runs */
static uint32_t beats;        /* atomic; whatever makes progress counts here */
static uint32_t watching;     /* atomic; the watchdog's case is on */
static int in_child;          /* for messages */
static int64_t until;         /* the case ends here, on the monotonic clock, in nanoseconds */

static void print_state(void); /* the program's; to stderr, what helps to explain a failure */

static inline uint32_t rnd(uint32_t below) { /* 0 .. below - 1, xorshift64* */
    static __thread uint64_t x;
    if (x == 0)
        x = (seed + 1) * 0x9E3779B97F4A7C15u +
            __atomic_add_fetch(&thread_count, 1, __ATOMIC_RELAXED) * 0xD1B54A32D192ED03u;
    x ^= x >> 12, x ^= x << 25, x ^= x >> 27;
    return (uint32_t)((x * 0x2545F4914F6CDD1Du) >> 33) % below;
}

static inline void nap_us(uint32_t microseconds) {
    struct timespec t = {.tv_nsec = 1000 * (long)microseconds};
    nanosleep(&t, NULL);
}

static inline void stress_yield(void) {
    uint32_t n = rnd(64);
    if (n < STRESS_SLEEPS) /* on few cores only a sleep lets the others run through the gap */
        nap_us(1 + rnd(STRESS_SLEEP_US));
    else if (n < STRESS_SLEEPS + STRESS_YIELDS)
        sched_yield();
    else if (n < STRESS_SLEEPS + STRESS_YIELDS + STRESS_SPINS)
        for (n = rnd(300); n > 0; n--)
            __asm__ volatile("" ::: "memory");
}

#define GL_YIELD() stress_yield()

static inline void fail(int status, const char *format, ...) {
    char text[400];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    fprintf(stderr, "FAILED case %c, seed %llu%s: %s\n", current, (unsigned long long)seed,
            in_child ? ", in a child" : "", text);
    print_state();
    fflush(NULL);
    _exit(status);
}

#define CHECK(truth, ...) ((truth) ? (void)0 : fail(1, __VA_ARGS__))

static inline pthread_t start_thread(void *(*body)(void *), void *arg) {
    pthread_t thread;
    errno = pthread_create(&thread, NULL, body, arg);
    CHECK(errno == 0, "pthread_create: %s", strerror(errno));
    return thread;
}

static inline int count_fds(void) {
    int n = 0;
    DIR *dir = opendir("/proc/self/fd");
    CHECK(dir != NULL, "/proc/self/fd: %s", strerror(errno));
    while (readdir(dir) != NULL)
        n++;
    closedir(dir);
    return n;
}

/* ------------------------------------------------------ the case's time, watchdog */
static inline int64_t stress_now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * INT64_C(1000000000) + t.tv_nsec;
}

static inline int going(void) { return stress_now() < until; }
static inline void beat(void) { __atomic_add_fetch(&beats, 1, __ATOMIC_RELAXED); }

static inline void *watchdog(void *unused) {
    uint32_t before = 0;
    int64_t since = stress_now();
    while (__atomic_load_n(&watching, __ATOMIC_ACQUIRE)) {
        uint32_t now = __atomic_load_n(&beats, __ATOMIC_RELAXED);
        if (now != before) {
            before = now;
            since = stress_now();
        } else if (stress_now() - since > STALL_SECONDS * INT64_C(1000000000)) {
            fail(3, "no progress for %d seconds: a wake-up was lost", STALL_SECONDS);
        }
        nap_us(20000);
    }
    return unused;
}

/* Run a case for about so long, under the watchdog's eyes; returns what it returns. */
static inline unsigned run_watched(unsigned (*run)(void), const char *milliseconds) {
    pthread_t dog;
    unsigned rounds;
    watching = 1;
    dog = start_thread(watchdog, NULL);
    until = stress_now() + strtoll(milliseconds, NULL, 10) * 1000000;
    rounds = run();
    __atomic_store_n(&watching, 0, __ATOMIC_RELEASE);
    pthread_join(dog, NULL);
    return rounds;
}

#endif
