# cython: language_level=3, boundscheck=False, wraparound=False, freethreading_compatible=True
"""When tasks took their last steps, for those who look at the program: since then a task waits.

A task of asyncio's has no room for a time. So there is a table of fixed size, by the address of the task, in which a
new entry takes the place of the older one of two. What it says of a task that is alive is true: a task's address is its
own, and it is entered when it is made. An entry costs a few instructions, and only its memory as long as nobody looks.
"""

from libc.stdint cimport int64_t

cdef extern from *:
    """
    #include "../system/native/posix.h"

    enum { GL_STEPS = 1 << 16 };  /* places, in pairs */

    /* Written by the thread that runs the task's loop. Atomic, relaxed: it is read by any thread, and on a
       free-threaded build two tasks of two threads may share a pair. The time is the task's if the entry is its own
       before and after the look. */
    static struct {
        void *task;
        int64_t at;
    } gl_steps[GL_STEPS];

    static inline size_t gl_step_pair(void *task) {
        uint64_t x = (uint64_t)(uintptr_t)task * UINT64_C(0x9E3779B97F4A7C15);
        return (size_t)(x >> 48) & (GL_STEPS - 2);
    }

    static void gl_note_step(void *task) {
        size_t i = gl_step_pair(task);
        int64_t now = gl_coarse_ns();
        if (__atomic_load_n(&gl_steps[i].task, __ATOMIC_RELAXED) != task &&
            (__atomic_load_n(&gl_steps[i + 1].task, __ATOMIC_RELAXED) == task ||
             __atomic_load_n(&gl_steps[i + 1].at, __ATOMIC_RELAXED) <
                 __atomic_load_n(&gl_steps[i].at, __ATOMIC_RELAXED)))
            i++;
        __atomic_store_n(&gl_steps[i].task, task, __ATOMIC_RELAXED);
        __atomic_store_n(&gl_steps[i].at, now, __ATOMIC_RELAXED);
    }

    static int64_t gl_step_of(void *task) {
        size_t i = gl_step_pair(task);
        for (size_t k = i; k < i + 2; k++)
            if (__atomic_load_n(&gl_steps[k].task, __ATOMIC_RELAXED) == task) {
                int64_t at = __atomic_load_n(&gl_steps[k].at, __ATOMIC_RELAXED);
                if (__atomic_load_n(&gl_steps[k].task, __ATOMIC_RELAXED) == task)
                    return at;
            }
        return 0;
    }
    """
    void gl_note_step(void *task) nogil
    int64_t gl_step_of(void *task) nogil


cdef void note_step(void *task) noexcept nogil:
    gl_note_step(task)


cdef int64_t step_of(void *task) noexcept nogil:
    return gl_step_of(task)
