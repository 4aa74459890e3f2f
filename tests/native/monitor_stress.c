/* Stress for sched/native/sysmon.c, which it includes, with short ticks and a random pause at every GL_YIELD().
 *
 * Submitters put units of work into the backlog and wait until they were taken. Takers take one only with a permit,
 * and permits come from nowhere but the monitor's report: a monitor that sleeps although the backlog is not empty
 * stops everybody, which a watchdog sees (status 3). Controllers start and stop it, several at a time.
 *
 *     monitor_stress SEED MILLISECONDS [fork]
 */
#define _GNU_SOURCE
#include <sys/wait.h>

#define STALL_SECONDS 10
#define STRESS_SLEEPS 12
#define STRESS_SLEEP_US 200
#define STRESS_YIELDS 20
#define STRESS_SPINS 0
#include "stress_common.h"

#define GL_TICK 300000
#define GL_FAST_TICK 50000
#define GL_QUIET 2
#include "sysmon.c"

enum { SUBMITTERS = 2, TAKERS = 2, CONTROLLERS = 2 };

static long waiting;     /* atomic; units in the backlog */
static long permits;     /* atomic */
static uint32_t reports; /* atomic */
static uint32_t over;    /* atomic */
static int forks;        /* constant while threads run */

static void print_state(void) {
    fprintf(stderr, "%ld wait, the monitor counts %ld, running %d, asleep %u\n",
            __atomic_load_n(&waiting, __ATOMIC_SEQ_CST), __atomic_load_n(&backlog, __ATOMIC_SEQ_CST), running, asleep);
}

static int report(void) {
    if (__atomic_load_n(&waiting, __ATOMIC_SEQ_CST) == 0)
        return 0; /* taken in the meantime */
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
        nap_us(rnd(4) ? rnd(300) : 1500); /* long enough for the monitor to fall asleep, now and then */
    }
    return unused;
}

static void *take(void *unused) {
    while (!ended()) {
        if (__atomic_load_n(&waiting, __ATOMIC_SEQ_CST) && take_one(&permits)) {
            if (take_one(&waiting)) {
                gl_monitor_backlog(-1);
                gl_monitor_started();
                beat();
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
        CHECK(gl_monitor_start(report) == 0, "the monitor could not be started");
        nap_us(rnd(3000));
    }
    return unused;
}

static void fork_once(void) {
    int status;
    pid_t child = fork();
    if (child == 0) { /* it has no monitor, can start one, and stop it */
        alarm(20);
        if (running)
            _exit(4);
        if (gl_monitor_start(report) || !running)
            _exit(5);
        gl_monitor_stop();
        _exit(running ? 6 : 0);
    }
    CHECK(waitpid(child, &status, 0) == child && status == 0, "a child ended with status %#x", status);
}

static unsigned run_all(void) {
    pthread_t threads[SUBMITTERS + TAKERS + CONTROLLERS];
    uint32_t before;
    int n = 0;
    gl_monitor_start(report);
    for (int i = 0; i < SUBMITTERS; i++)
        threads[n++] = start_thread(submit, NULL);
    for (int i = 0; i < TAKERS; i++)
        threads[n++] = start_thread(take, NULL);
    for (int i = 0; i < CONTROLLERS; i++)
        threads[n++] = start_thread(control_it, NULL);
    while (going()) {
        nap_us(10000);
        if (forks && rnd(4) == 0)
            fork_once();
    }
    before = __atomic_load_n(&beats, __ATOMIC_RELAXED);
    while (__atomic_load_n(&beats, __ATOMIC_RELAXED) == before)
        nap_us(10000); /* it ends in motion, or as a failure */
    __atomic_store_n(&over, 1, __ATOMIC_SEQ_CST);
    while (n > 0)
        pthread_join(threads[--n], NULL);
    gl_monitor_stop();
    CHECK(!running && __atomic_load_n(&backlog, __ATOMIC_SEQ_CST) == waiting, "what is left is not what was put in");
    return beats;
}

int main(int argc, char **argv) {
    unsigned taken;
    if (argc < 3) {
        fprintf(stderr, "usage: monitor_stress SEED MILLISECONDS [fork]\n");
        return 2;
    }
    seed = strtoull(argv[1], NULL, 10);
    forks = argc > 3 && strcmp(argv[3], "fork") == 0;
    taken = run_watched(run_all, argv[2]);
    printf("ok: %u taken, %u reports\n", taken, reports);
    return 0;
}
