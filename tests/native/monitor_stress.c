/* Stress for sched/native/sysmon.c, which it includes, with short ticks and a random pause at every GL_YIELD().
 *
 * Submitters put units of work into the backlog and wait until they were taken. Takers take one only with a permit,
 * and permits come from nowhere but the monitor's report: a monitor that sleeps although the backlog is not empty
 * stops everybody, which a watchdog sees (status 3). Controllers start and stop it, several at a time.
 *
 *     monitor_stress SEED MILLISECONDS [fork]
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static uint64_t seed;
static uint32_t thread_count;  /* atomic; each thread's place in the seed */

static uint32_t rnd(uint32_t below) {  /* 0 .. below - 1, xorshift64* */
    static __thread uint64_t x;
    if (x == 0)
        x = (seed + 1) * 0x9E3779B97F4A7C15u +
            __atomic_add_fetch(&thread_count, 1, __ATOMIC_RELAXED) * 0xD1B54A32D192ED03u;
    x ^= x >> 12, x ^= x << 25, x ^= x >> 27;
    return (uint32_t)((x * 0x2545F4914F6CDD1Du) >> 33) % below;
}

static void nap_us(uint32_t microseconds) {
    struct timespec t = {.tv_nsec = 1000 * (long)microseconds};
    nanosleep(&t, NULL);
}

static void stress_yield(void) {
    uint32_t n = rnd(32);
    if (n < 6)
        nap_us(1 + rnd(200));
    else if (n < 16)
        sched_yield();
}

#define GL_YIELD() stress_yield()
#define GL_TICK 300000
#define GL_FAST_TICK 50000
#define GL_QUIET 2
#include "sysmon.c"

enum { SUBMITTERS = 2, TAKERS = 2, CONTROLLERS = 2, STALL_SECONDS = 10 };

static long waiting;      /* atomic; units in the backlog */
static long permits;      /* atomic */
static long taken;        /* atomic */
static uint32_t reports;  /* atomic */
static uint32_t over;     /* atomic */

static int report(void) {
    if (__atomic_load_n(&waiting, __ATOMIC_SEQ_CST) == 0)
        return 0;  /* taken in the meantime */
    __atomic_add_fetch(&reports, 1, __ATOMIC_RELAXED);
    __atomic_add_fetch(&permits, 1, __ATOMIC_SEQ_CST);
    return rnd(2);
}

static int take_one(long *from) {
    long n = __atomic_load_n(from, __ATOMIC_SEQ_CST);
    while (n > 0)
        if (__atomic_compare_exchange_n(from, &n, n - 1, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
            return 1;
    return 0;
}

static int ended(void) { return __atomic_load_n(&over, __ATOMIC_SEQ_CST); }

static void *submit(void *unused) {
    while (!ended()) {
        for (uint32_t n = 1 + rnd(3); n > 0; n--) {
            __atomic_add_fetch(&waiting, 1, __ATOMIC_SEQ_CST);
            gl_monitor_backlog(1);
            stress_yield();
        }
        while (__atomic_load_n(&waiting, __ATOMIC_SEQ_CST) && !ended())
            nap_us(20);
        nap_us(rnd(4) ? rnd(300) : 1500);  /* long enough for the monitor to fall asleep, now and then */
    }
    return unused;
}

static void *take(void *unused) {
    while (!ended()) {
        if (__atomic_load_n(&waiting, __ATOMIC_SEQ_CST) && take_one(&permits)) {
            if (take_one(&waiting)) {
                gl_monitor_backlog(-1);
                gl_monitor_started();
                __atomic_add_fetch(&taken, 1, __ATOMIC_SEQ_CST);
            }
        } else {
            nap_us(1 + rnd(30));
        }
    }
    return unused;
}

static void *control_it(void *unused) {
    while (!ended()) {
        if (rnd(3) == 0)
            gl_monitor_stop();
        stress_yield();
        if (gl_monitor_start(report)) {
            fprintf(stderr, "FAILED: the monitor could not be started\n");
            _exit(1);
        }
        nap_us(rnd(3000));
    }
    return unused;
}

static void fork_once(void) {
    int status;
    pid_t child = fork();
    if (child == 0) {  /* it has no monitor, can start one, and stop it */
        alarm(20);
        if (running)
            _exit(4);
        if (gl_monitor_start(report) || !running)
            _exit(5);
        gl_monitor_stop();
        _exit(running ? 6 : 0);
    }
    if (waitpid(child, &status, 0) != child || status != 0) {
        fprintf(stderr, "FAILED: seed %llu: a child ended with status %x\n", (unsigned long long)seed, status);
        _exit(1);
    }
}

int main(int argc, char **argv) {
    pthread_t threads[SUBMITTERS + TAKERS + CONTROLLERS];
    int n = 0, forks = argc > 3 && strcmp(argv[3], "fork") == 0;
    long before = 0, quiet_ms = 0;
    if (argc < 3) {
        fprintf(stderr, "usage: monitor_stress SEED MILLISECONDS [fork]\n");
        return 2;
    }
    seed = strtoull(argv[1], NULL, 10);
    gl_monitor_start(report);
    for (int i = 0; i < SUBMITTERS; i++)
        pthread_create(&threads[n++], NULL, submit, NULL);
    for (int i = 0; i < TAKERS; i++)
        pthread_create(&threads[n++], NULL, take, NULL);
    for (int i = 0; i < CONTROLLERS; i++)
        pthread_create(&threads[n++], NULL, control_it, NULL);
    for (long ms = 0; ms < atol(argv[2]); ms += 10) {
        long now = __atomic_load_n(&taken, __ATOMIC_SEQ_CST);
        nap_us(10000);
        quiet_ms = now == before ? quiet_ms + 10 : 0;
        before = now;
        if (forks && rnd(4) == 0)
            fork_once();
        if (quiet_ms > STALL_SECONDS * 1000) {
            fprintf(stderr, "FAILED: seed %llu: no progress: %ld in the backlog, asleep %u\n",
                    (unsigned long long)seed, waiting, asleep);
            return 3;
        }
        if (ms + 10 >= atol(argv[2]) && quiet_ms)
            ms -= 10;  /* it ends in motion, or as a failure */
    }
    __atomic_store_n(&over, 1, __ATOMIC_SEQ_CST);
    while (n > 0)
        pthread_join(threads[--n], NULL);
    gl_monitor_stop();
    if (running || __atomic_load_n(&backlog, __ATOMIC_SEQ_CST) != waiting) {
        fprintf(stderr, "FAILED: seed %llu: running %d, backlog %ld, waiting %ld\n", (unsigned long long)seed, running,
                backlog, waiting);
        return 1;
    }
    printf("ok: %ld taken, %u reports\n", taken, reports);
    return 0;
}
