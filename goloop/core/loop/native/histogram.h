/* A histogram of durations: buckets that double, from one microsecond to about a minute, and one for what is longer.
 *
 * One thread at a time adds, the one that runs the loop. Whoever reads has the GIL; on a free-threaded build it may see
 * a count without its sum. */
#ifndef GOLOOP_HISTOGRAM_H
#define GOLOOP_HISTOGRAM_H

#include <stdint.h>

enum { GL_BUCKETS = 28 }; /* bounds: 1 us << 0 to 1 us << 26, which is 67 s */

typedef struct {
    uint64_t counts[GL_BUCKETS];
    int64_t total;   /* ns */
    int64_t longest; /* ns */
} gl_histogram;

static inline void gl_histogram_add(gl_histogram *h, int64_t ns, uint64_t times) {
    uint64_t above = ns > 1000 ? (uint64_t)(ns - 1) / 1000 : 0;
    int bucket = above ? 64 - __builtin_clzll(above) : 0;
    h->counts[bucket < GL_BUCKETS ? bucket : GL_BUCKETS - 1] += times;
    h->total += ns * (int64_t)times;
    if (ns > h->longest)
        h->longest = ns;
}

#endif
