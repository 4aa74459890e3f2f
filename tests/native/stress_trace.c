/* Stress for system/native/trace_ring.[ch], which it includes: small rings, and a random pause at every GL_YIELD().
 *
 * Threads emit numbered events all the time, some live for a few of them only. Another one begins and ends sessions: each
 * track must have the numbers of one thread without a gap, up to what that thread had emitted before the end, and
 * ThreadSanitizer sees an event that is written while it is read. With "fork" a process is forked in the middle, in which
 * no session is left and a new one works.
 *
 *     stress_trace SEED MILLISECONDS [fork]
 */
#define _GNU_SOURCE
#define STALL_SECONDS 8
#define STRESS_SLEEPS 2
#define STRESS_SLEEP_US 100
#define STRESS_YIELDS 12
#define STRESS_SPINS 10
#include "stress_common.h"

#include "trace_ring.c"

#include <sys/wait.h>

enum { THREADS = 4, ROOM = 64 };

typedef struct {
    uint64_t id;
    uint64_t emitted; /* atomic; the number of the last event that emit() has returned for */
} source;

static source sources[THREADS];
static uint32_t over; /* atomic */
static uint64_t events_seen, short_lives;

static void print_state(void) { fprintf(stderr, "session %u\n", gl_the_tracer.session); }

static uint32_t name_of(uint64_t number) { return (uint32_t)(number * 2654435761u); }

static void emit_next(source *s) {
    uint64_t number = s->emitted + 1;
    if (__atomic_load_n(&gl_the_tracer.session, __ATOMIC_RELAXED))
        gl_the_tracer.emit(stress_now(), 1 + number % 16, number & 0xffffff, name_of(number), number, s->id);
    __atomic_store_n(&s->emitted, number, __ATOMIC_RELEASE);
}

static void *emit_always(void *argument) {
    source *s = argument;
    while (!__atomic_load_n(&over, __ATOMIC_ACQUIRE)) {
        emit_next(s);
        if (rnd(50) == 0)
            nap_us(rnd(300));
    }
    return NULL;
}

static void *emit_some(void *argument) {
    source *s = argument;
    for (uint32_t n = 1 + rnd(2 * ROOM); n > 0; n--)
        emit_next(s);
    return NULL;
}

static void check_track(const gl_trace_track *t, const uint64_t *before) {
    uint64_t number = 0, id = 0;
    CHECK(t->kept <= t->made && t->kept <= t->room && (t->kept == t->made || t->kept == t->room), "%llu of %llu kept",
          (unsigned long long)t->kept, (unsigned long long)t->made);
    for (uint64_t i = t->made - t->kept; i < t->made; i++) {
        const gl_event *e = &t->events[i & (t->room - 1)];
        CHECK(number == 0 || (e->a == number + 1 && e->b == id), "%llu of thread %llu comes after %llu of %llu",
              (unsigned long long)e->a, (unsigned long long)e->b, (unsigned long long)number, (unsigned long long)id);
        number = e->a;
        id = e->b;
        CHECK(e->name == name_of(number) && e->kind == 1 + number % 16 && e->loop == (number & 0xffffff),
              "event %llu is not what was emitted", (unsigned long long)number);
    }
    events_seen += t->kept;
    if (id > 0 && id <= THREADS)
        CHECK(number >= before[id - 1], "thread %llu had emitted %llu, and %llu is the last one",
              (unsigned long long)id, (unsigned long long)before[id - 1], (unsigned long long)number);
}

static void end_session(void) {
    uint64_t before[THREADS];
    gl_trace_track *tracks;
    ptrdiff_t count;
    for (int i = 0; i < THREADS; i++)
        before[i] = __atomic_load_n(&sources[i].emitted, __ATOMIC_ACQUIRE);
    count = gl_trace_stop(&tracks);
    CHECK(count >= 0, "there was no session");
    for (ptrdiff_t i = 0; i < count; i++)
        check_track(&tracks[i], before);
    gl_trace_free(tracks, count);
    CHECK(gl_trace_lost() == 0, "%llu events are lost", (unsigned long long)gl_trace_lost());
}

static void fork_one(void) {
    int status;
    pid_t child = fork();
    CHECK(child >= 0, "fork: %s", strerror(errno));
    if (child == 0) {
        source alone = {.id = 99};
        gl_trace_track *tracks;
        in_child = 1;
        CHECK(gl_trace_stop(&tracks) == -1, "the parent's session is here");
        CHECK(gl_trace_start(ROOM) == 0, "no session can be begun");
        for (int i = 0; i < 2 * ROOM; i++)
            emit_next(&alone);
        CHECK(gl_trace_stop(&tracks) == 1 && tracks[0].made == 2 * ROOM, "the child's events are not all there");
        check_track(&tracks[0], NULL);
        gl_trace_free(tracks, 1);
        _exit(0);
    }
    CHECK(waitpid(child, &status, 0) == child && status == 0, "the child ended with %d", status);
}

static int forks;

static unsigned run(void) {
    unsigned rounds = 0;
    for (; going(); rounds++) {
        pthread_t short_lived[3];
        source some[3] = {{.id = 1000 + 3 * rounds}, {.id = 1001 + 3 * rounds}, {.id = 1002 + 3 * rounds}};
        uint32_t n = rnd(4);
        CHECK(gl_trace_start(ROOM) == 0, "a session is left");
        CHECK(gl_trace_start(ROOM) == EBUSY, "two sessions at once");
        for (uint32_t i = 0; i < n; i++)
            short_lived[i] = start_thread(emit_some, &some[i]);
        nap_us(rnd(1000));
        if (forks && rnd(10) == 0)
            fork_one();
        if (rnd(2) == 0) {
            end_session();
            for (uint32_t i = 0; i < n; i++)
                pthread_join(short_lived[i], NULL);
        } else {
            for (uint32_t i = 0; i < n; i++)
                pthread_join(short_lived[i], NULL);
            end_session();
        }
        short_lives += n;
        beat();
    }
    return rounds;
}

int main(int argc, char **argv) {
    pthread_t threads[THREADS];
    unsigned rounds;
    if (argc < 3) {
        fprintf(stderr, "usage: %s SEED MILLISECONDS [fork]\n", argv[0]);
        return 2;
    }
    seed = strtoull(argv[1], NULL, 10);
    forks = argc > 3;
    for (int i = 0; i < THREADS; i++) {
        sources[i].id = (uint64_t)i + 1;
        threads[i] = start_thread(emit_always, &sources[i]);
    }
    rounds = run_watched(run, argv[2]);
    __atomic_store_n(&over, 1, __ATOMIC_RELEASE);
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    printf("ok: %u sessions, %llu events, %llu short lives\n", rounds, (unsigned long long)events_seen,
           (unsigned long long)short_lives);
    for (writer *w = writers, *next; w != NULL; w = next) {
        next = w->next;
        free(w);
    }
    return 0;
}
