/* What the monitor sees of the loops: whether the callback that a loop runs gets on.
 *
 * Each loop that may be taken over, or whose slow callbacks are to be reported, has a gl_stall in a list. The
 * monitor's thread looks at it without the GIL and without touching a Python object, and only says which loops
 * are worth the GIL. HACKING.md, "Handoff", has the signs by which a blocked thread is told from one that computes.
 */
#ifndef GOLOOP_STALL_H
#define GOLOOP_STALL_H

#include <stdint.h>

/* A stress build makes everything shorter. */
#ifndef GL_LOOK_BASE
#define GL_LOOK_BASE 10000000  /* ns between two looks while callbacks come and go: the monitor's own tick */
#define GL_LOOK_HOT 1000000    /* while one seems stuck, and for GL_HOT_FOR after a handoff */
#define GL_HOT_FOR 2000000000  /* ns; bursts of blocking calls come again */
#define GL_LOOK_FAST 100000    /* while one sleeps in a call, and for GL_FAST_FOR after a handoff */
#define GL_FAST_FOR 3000000    /* ns; what waited behind a call that blocks often blocks as well */
#define GL_WORTH 1000000       /* ns in a call after which a handoff is worth it though nothing waits */
#define GL_LOOK_IDLE 100       /* looks at parked loops after which the monitor need not look any more */
#define GL_ASLEEP_FOR 10000000 /* ns without processor time that tell, where the kernel does not say what for */
#endif

enum { GL_KEEP = 0, GL_HANDOFF = 1, GL_REGION = 2 }; /* may it be taken over? */
enum {
    GL_NOTHING = 0,
    GL_RETAKE = 1,
    GL_PROBE = 2,
    GL_SLOW = 4,
    GL_VACANT = 8,
    GL_RETAKE_IF_WAITED_FOR = 16
}; /* verdicts, or-ed together */
enum { GL_UNKNOWN = 0, GL_ON_CPU = 1, GL_FOR_GIL = 2, GL_SLEEPS = 3 }; /* what a thread is doing */

typedef struct gl_stall {
    uint64_t beat;   /* atomic, relaxed: the loop's thread counts each callback that begins */
    uint32_t idle;   /* atomic: 1 while the loop is parked or does not run. Pairs with the monitor's sleep */
    uint32_t vacant; /* atomic: no thread runs the loop though one should */
    uint32_t mode;   /* atomic: GL_KEEP, GL_HANDOFF, GL_REGION */
    int tid;         /* of the thread that runs it; stored before the beat that goes with it. Guard: the GIL */
    int clock;       /* its processor time. Guard: the GIL */
    int64_t slow;    /* ns after which a callback is slow; 0: no reports are wanted. Guard: the GIL */
    int64_t due;     /* when to look at a callback that was handed off already, 0: never. Guard: the GIL */
    /* The monitor's own, but for `verdict` and `since`, which its report reads while it waits for that. */
    uint64_t seen;
    int64_t since;     /* when the beat was new */
    int64_t cpu;       /* processor time at the last look */
    int64_t asleep;    /* since when it has not changed; 0: it has */
    int64_t retry;     /* when to try again for a thread that uses processor time */
    int64_t pause;     /* what to add then */
    uint32_t reported; /* slow, for this beat */
    uint32_t verdict;
    struct gl_stall *next, *before; /* guarded by the list's mutex */
} gl_stall;

void gl_stall_add(gl_stall *w);        /* any thread; wakes the monitor */
void gl_stall_remove(gl_stall *w);     /* any thread */
void gl_stall_forget(void);            /* in a forked child */
void gl_stall_awake(gl_stall *w);      /* idle no more; the loop's thread, which then pokes the monitor */
void gl_stall_handed_off(int64_t now); /* a handoff happened: look often for a while */

/* One look at every loop; the monitor's thread, without the GIL. Returns the ns until the next one, 0: none is
 * wanted before the monitor is woken. `*verdicts` gets all verdicts or-ed together. */
int64_t gl_stall_look(uint32_t *verdicts);

int gl_thread_does(int tid);   /* what a thread of this process does: GL_ON_CPU, … */
int64_t gl_learn_gil(int tid); /* the thread waits for the GIL: remember what that looks like. 0: not yet */
int gl_gettid(void);

#endif
