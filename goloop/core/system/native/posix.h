/* What several C files take from the system. */
#ifndef GOLOOP_POSIX_H
#define GOLOOP_POSIX_H

#include <linux/futex.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* A clock in nanoseconds; -1 if there is none, as after its thread has ended. */
static inline int64_t gl_clock_ns(clockid_t clock) {
    struct timespec now;
    if (clock == (clockid_t)-1 || clock_gettime(clock, &now))
        return -1;
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static inline int64_t gl_monotonic_ns(void) { return gl_clock_ns(CLOCK_MONOTONIC); }

/* The same clock as of the kernel's last tick, 1 to 10 ms ago: a few instructions. */
static inline int64_t gl_coarse_ns(void) { return gl_clock_ns(CLOCK_MONOTONIC_COARSE); }

/* A counter that grows steadily, in units of its own: cheaper to read than a clock (6 ns for 20 on a virtual machine). */
static inline int64_t gl_ticks(void) {
#if defined(__x86_64__) || defined(__i386__)
    return (int64_t)__builtin_ia32_rdtsc();
#elif defined(__aarch64__)
    int64_t ticks;
    __asm__ volatile("mrs %0, cntvct_el0" : "=r"(ticks));
    return ticks;
#else
    return gl_monotonic_ns();
#endif
}

/* A futex of this process. `time`: a duration for FUTEX_WAIT, a moment for FUTEX_WAIT_BITSET. */
static inline int gl_futex(uint32_t *word, int op, uint32_t value, const struct timespec *time) {
    return (int)syscall(SYS_futex, word, op | FUTEX_PRIVATE_FLAG, value, time, NULL, FUTEX_BITSET_MATCH_ANY);
}

/* Start a thread with all signals blocked: they are for Python's threads. Returns 0, or an error. */
static inline int gl_start_thread(pthread_t *thread, const char *name, void *(*body)(void *), void *arg) {
    sigset_t all, before;
    int error;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    error = pthread_create(thread, NULL, body, arg);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (!error)
        pthread_setname_np(*thread, name);
    return error;
}

#endif
