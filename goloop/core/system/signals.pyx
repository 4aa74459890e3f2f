# cython: language_level=3, boundscheck=False, wraparound=False, freethreading_compatible=True
"""Which signals have come: a count for each number, kept by a handler in C that stands in front of Python's.

Python's own handler writes the number to the wake-up descriptor, which may be full, and notes that the signal has
come, which two signals do as one and only the main thread looks at. The count can neither overflow nor wait for the
main thread. A loop counts the signals that it has handlers for, and takes what has come when it is woken.
"""

from libc.errno cimport errno

from goloop.core.system.posix cimport os_error


cdef extern from *:
    """
    #include <signal.h>
    #include <stdatomic.h>

    static struct {
        atomic_uint arrived;       /* since the last take() */
        atomic_uint total;         /* ever */
        unsigned seen;             /* main thread: of `total`, when Python's handler ran last */
        unsigned unseen;           /* main thread: of what it saw then, what it may yet be run for */
        void (*python)(int);       /* set before the handler that reads it is installed */
    } gl_signals[NSIG];

    static void gl_count_signal(int number) {
        atomic_fetch_add(&gl_signals[number].total, 1);
        atomic_fetch_add(&gl_signals[number].arrived, 1);
        gl_signals[number].python(number);
    }

    static int gl_begin_to_count(int number) {
        struct sigaction action;
        if (sigaction(number, NULL, &action) < 0)
            return -1;
        if (action.sa_flags & SA_SIGINFO || action.sa_handler == gl_count_signal)
            return 0;
        gl_signals[number].python = action.sa_handler;
        action.sa_handler = gl_count_signal;
        return sigaction(number, &action, NULL);
    }

    static unsigned gl_take_signals(int number) {
        gl_signals[number].unseen = 0;
        return atomic_exchange(&gl_signals[number].arrived, 0);
    }

    /* Python's handler runs once for each time that it found the signal noted: for one that has come, or for several,
       and then for those that came since Python had looked once more. If nothing has come, the program
       made it up. */
    static void gl_python_ran(int number) {
        unsigned total = atomic_load(&gl_signals[number].total), fresh = total - gl_signals[number].seen;
        gl_signals[number].seen = total;
        if (fresh)
            gl_signals[number].unseen = fresh - 1;
        else if (gl_signals[number].unseen)
            gl_signals[number].unseen--;
        else
            atomic_fetch_add(&gl_signals[number].arrived, 1);
    }

    static void gl_forget_signals(void) {
        for (int number = 1; number < NSIG; number++)
            gl_take_signals(number);
    }
    """
    int gl_begin_to_count(int number)
    unsigned int gl_take_signals(int number)
    void gl_python_ran(int number)
    void gl_forget_signals()
    int NSIG


cdef int check(int number) except -1:
    if not 0 < number < NSIG:
        raise ValueError(f"invalid signal number {number}")
    return 0


def count(int number):
    """Count a signal from now on. Call it when signal.signal() has just installed a Python handler that calls ran()."""
    check(number)
    if gl_begin_to_count(number) < 0:
        raise os_error(errno)


def ran(int number):
    """Python's handler was called, in the main thread: count the signal if no handler in C has seen it.

    That is so if interrupt_main() made it up. Or Python's handler was exchanged and put back meanwhile, which took ours
    away: it is put back, too.
    """
    check(number)
    gl_python_ran(number)
    if gl_begin_to_count(number) < 0:
        raise os_error(errno)


def take(int number):
    """How often the signal has come since it was asked last."""
    check(number)
    return gl_take_signals(number)


def forget():
    """Nothing has come: in a forked child, for which the parent's signals were not meant."""
    gl_forget_signals()
