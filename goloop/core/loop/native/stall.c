/* See stall.h. */
#define _GNU_SOURCE
#include "stall.h"

#include "../../system/native/posix.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define NEAR 512 /* bytes: the GIL's condition variables and mutexes stand together in one structure */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static gl_stall *list;                       /* guarded by lock */
static int64_t last_handoff = INT64_MIN / 2; /* atomic; when */
static uint64_t gil_futex;                   /* atomic; an address inside the GIL, 0: not known */
static uint32_t idle_looks;                  /* the monitor's */

int gl_gettid(void) { return (int)syscall(SYS_gettid); }

void gl_stall_add(gl_stall *w) {
    pthread_mutex_lock(&lock);
    w->seen = __atomic_load_n(&w->beat, __ATOMIC_RELAXED);
    w->since = gl_monotonic_ns();
    w->asleep = 0;
    w->reported = 0;
    w->verdict = 0;
    w->before = NULL;
    w->next = list;
    if (list != NULL)
        list->before = w;
    list = w;
    pthread_mutex_unlock(&lock);
}

void gl_stall_remove(gl_stall *w) {
    pthread_mutex_lock(&lock);
    if (w->before != NULL)
        w->before->next = w->next;
    else
        list = w->next;
    if (w->next != NULL)
        w->next->before = w->before;
    w->next = w->before = NULL;
    pthread_mutex_unlock(&lock);
}

void gl_stall_forget(void) {
    pthread_mutex_init(&lock, NULL);
    list = NULL;
}

void gl_stall_awake(gl_stall *w) {
    /* seq_cst: comes before the look whether the monitor sleeps; pairs with its last look before it does. */
    __atomic_store_n(&w->idle, 0, __ATOMIC_SEQ_CST);
}

void gl_stall_handed_off(int64_t now) { __atomic_store_n(&last_handoff, now, __ATOMIC_RELAXED); }

/* ------------------------------------------------------------- what it does
 * The kernel tells what a thread of our own process is blocked in: the system call's number and arguments. The one
 * wait that is not a blocking call is the wait for the GIL, a futex inside the interpreter's GIL structure. */
static int read_syscall(int tid, char *text, size_t room) {
    char path[64];
    ssize_t n;
    int fd;
    snprintf(path, sizeof path, "/proc/self/task/%d/syscall", tid);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -1;
    n = read(fd, text, room - 1);
    close(fd);
    if (n <= 0)
        return -1;
    text[n] = 0;
    return 0;
}

static int is_futex(long number) {
#ifdef SYS_futex_time64
    if (number == SYS_futex_time64)
        return 1;
#endif
    return number == SYS_futex;
}

int gl_thread_does(int tid) {
    uint64_t gil = __atomic_load_n(&gil_futex, __ATOMIC_RELAXED), address;
    char text[256], *end;
    long number;
    if (gil == 0 || read_syscall(tid, text, sizeof text) < 0)
        return GL_UNKNOWN;
    if (strncmp(text, "running", 7) == 0)
        return GL_ON_CPU;
    number = strtol(text, &end, 10);
    if (!is_futex(number))
        return GL_SLEEPS;
    address = strtoull(end, NULL, 16);
    return address + NEAR > gil && address < gil + NEAR ? GL_FOR_GIL : GL_SLEEPS;
}

int64_t gl_learn_gil(int tid) {
    char text[256], *end;
    uint64_t address;
    if (read_syscall(tid, text, sizeof text) < 0)
        return -1;
    if (strncmp(text, "running", 7) == 0 || !is_futex(strtol(text, &end, 10)))
        return 0;
    address = strtoull(end, NULL, 16);
    __atomic_store_n(&gil_futex, address, __ATOMIC_RELAXED);
    return 1;
}

/* --------------------------------------------------------------------- look */
static void start_anew(gl_stall *w, uint64_t beat, int64_t now) { /* another callback runs than at the last look */
    w->seen = beat;
    w->since = now;
    w->cpu = gl_clock_ns(w->clock);
    w->asleep = 0;
    w->pause = 1000000;
    w->retry = now + w->pause;
    w->reported = 0;
}

static void update_asleep(gl_stall *w, int64_t now) {
    int64_t cpu = gl_clock_ns(w->clock);
    if (cpu != w->cpu)
        w->asleep = 0;
    else if (w->asleep == 0)
        w->asleep = now;
    w->cpu = cpu;
}

/* Whether a thread that has not run since the last look is in a blocking call. */
static int is_blocked(const gl_stall *w, int64_t now) {
    int does = gl_thread_does(w->tid);
    return does == GL_SLEEPS || (does == GL_UNKNOWN && now - w->asleep >= GL_ASLEEP_FOR);
}

/* Whether to try again for a thread that computes, in Python, or in C without the GIL. Which of both it is can only be
 * told with the GIL, and that disturbs: so more and more seldom. */
static int is_due_for_probe(gl_stall *w, int64_t now) {
    if (now < w->retry)
        return 0;
    if (w->pause < 64000000)
        w->pause *= 2;
    w->retry = now + w->pause;
    return 1;
}

static int is_due_for_report(gl_stall *w, int64_t now) { /* once for a callback */
    if (w->slow == 0 || w->reported || now - w->since < w->slow)
        return 0;
    w->reported = 1;
    return 1;
}

/* Looks at a loop that runs. Lowers *next, the ns until the next look, if it seems stuck. */
static uint32_t examine(gl_stall *w, int64_t now, int64_t since_handoff, int64_t *next) {
    uint64_t beat = __atomic_load_n(&w->beat, __ATOMIC_RELAXED);
    uint32_t mode = __atomic_load_n(&w->mode, __ATOMIC_RELAXED), verdict = GL_NOTHING;
    if (beat != w->seen) {
        start_anew(w, beat, now);
        if (mode == GL_REGION ||
            (mode == GL_HANDOFF && since_handoff < GL_HOT_FOR && gl_thread_does(w->tid) == GL_SLEEPS))
            *next = GL_LOOK_FAST;
        return GL_NOTHING;
    }
    if (mode != GL_KEEP && *next > GL_LOOK_HOT)
        *next = GL_LOOK_HOT;
    update_asleep(w, now);
    if (mode == GL_REGION || (mode == GL_HANDOFF && w->asleep && is_blocked(w, now))) {
        *next = GL_LOOK_FAST;
        verdict |= now - w->since >= GL_WORTH ? GL_RETAKE : GL_RETAKE_IF_WAITED_FOR;
    }
    if (mode == GL_HANDOFF && !w->asleep && is_due_for_probe(w, now))
        verdict |= GL_PROBE;
    if (is_due_for_report(w, now))
        verdict |= GL_SLOW;
    return verdict;
}

static int64_t pace(int64_t since_handoff) {
    return since_handoff < GL_FAST_FOR ? GL_LOOK_FAST : since_handoff < GL_HOT_FOR ? GL_LOOK_HOT : GL_LOOK_BASE;
}

int64_t gl_stall_look(uint32_t *verdicts) {
    int64_t now = gl_monotonic_ns(), since_handoff = now - __atomic_load_n(&last_handoff, __ATOMIC_RELAXED);
    int64_t next = pace(since_handoff);
    int all_idle = 1;
    *verdicts = 0;
    pthread_mutex_lock(&lock);
    if (list == NULL) {
        pthread_mutex_unlock(&lock);
        return 0;
    }
    for (gl_stall *w = list; w != NULL; w = w->next) {
        w->verdict = 0;
        if (__atomic_load_n(&w->vacant, __ATOMIC_SEQ_CST)) {
            w->verdict = GL_VACANT;
            all_idle = 0;
        } else if (__atomic_load_n(&w->idle, __ATOMIC_SEQ_CST)) {
            w->seen = UINT64_MAX; /* what it runs next is new */
        } else {
            all_idle = 0;
            w->verdict = examine(w, now, since_handoff, &next);
        }
        if (w->due) {
            all_idle = 0;
            if (now >= w->due)
                w->verdict |= GL_SLOW;
        }
        *verdicts |= w->verdict;
    }
    pthread_mutex_unlock(&lock);
    idle_looks = all_idle && next == GL_LOOK_BASE ? idle_looks + 1 : 0;
    return idle_looks >= GL_LOOK_IDLE ? 0 : next;
}
