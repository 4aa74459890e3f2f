# cython: language_level=3, boundscheck=False, wraparound=False, freethreading_compatible=True
"""Signals that ask for a dump: a handler in C, which counts them and wakes a thread of goloop's.

Python's own handlers run in the main thread, between two instructions: not while that is stuck in a call. This one runs
at once, in whichever thread the kernel chooses, and only writes to an eventfd. A handler that was there before is
called as well. The functions here may be called from any thread; guard: the GIL.
"""

from libc.errno cimport errno

from goloop.core.system.posix cimport os_error


cdef extern from *:
    """
    #include <errno.h>
    #include <signal.h>
    #include <stdatomic.h>
    #include <stdint.h>
    #include <string.h>
    #include <sys/eventfd.h>
    #include <unistd.h>

    static atomic_int gl_door = -1;             /* the eventfd; -1: closed */
    static struct {
        atomic_uint asked;                      /* since the last take() */
        atomic_int installed;
        struct sigaction before;                /* written before the handler that reads it is there */
    } gl_dump_signals[NSIG];

    static void gl_ask_for_dump(int number, siginfo_t *info, void *context) {
        int error = errno, door = atomic_load(&gl_door);
        uint64_t one = 1;
        struct sigaction *before = &gl_dump_signals[number].before;
        atomic_fetch_add(&gl_dump_signals[number].asked, 1);
        if (door >= 0 && write(door, &one, sizeof one) < 0) {
            /* the count of an eventfd is full: it is readable all the same */
        }
        if (before->sa_flags & SA_SIGINFO)
            before->sa_sigaction(number, info, context);
        else if (before->sa_handler != SIG_DFL && before->sa_handler != SIG_IGN)
            before->sa_handler(number);
        errno = error;
    }

    static int gl_dump_install(int number) {
        struct sigaction action, now;
        if (sigaction(number, NULL, &now) < 0)
            return -1;
        if ((now.sa_flags & SA_SIGINFO) && now.sa_sigaction == gl_ask_for_dump)
            return 0;
        memset(&action, 0, sizeof action);
        gl_dump_signals[number].before = now;
        action.sa_sigaction = gl_ask_for_dump;
        action.sa_flags = SA_SIGINFO | SA_RESTART | SA_ONSTACK;
        sigemptyset(&action.sa_mask);
        if (sigaction(number, &action, NULL) < 0)
            return -1;
        atomic_store(&gl_dump_signals[number].installed, 1);
        return 0;
    }

    /* 1: what was there before is there again; 0: another handler has taken its place, and stays. */
    static int gl_dump_remove(int number) {
        struct sigaction now;
        if (!atomic_exchange(&gl_dump_signals[number].installed, 0) || sigaction(number, NULL, &now) < 0)
            return 0;
        if (!(now.sa_flags & SA_SIGINFO) || now.sa_sigaction != gl_ask_for_dump)
            return 0;
        return sigaction(number, &gl_dump_signals[number].before, NULL) == 0;
    }

    static int gl_door_open(void) {
        int door = eventfd(0, EFD_CLOEXEC), before;
        if (door < 0)
            return -1;
        before = atomic_exchange(&gl_door, door);
        if (before >= 0)
            close(before);
        return door;
    }

    static void gl_door_close(void) {
        int before = atomic_exchange(&gl_door, -1);
        if (before >= 0)
            close(before);
    }

    static unsigned gl_dump_take(int number) { return atomic_exchange(&gl_dump_signals[number].asked, 0); }
    """
    int gl_door_open()
    void gl_door_close()
    int gl_dump_install(int number)
    bint gl_dump_remove(int number)
    unsigned int gl_dump_take(int number)
    int NSIG


cdef int check(int number) except -1:
    if not 0 < number < NSIG:
        raise ValueError(f"invalid signal number {number}")
    return 0


def open_door():
    """Make the eventfd that the handler writes to, instead of one that there was; returns its descriptor."""
    cdef int door = gl_door_open()
    if door < 0:
        raise os_error(errno)
    return door


def close_door():
    """Close it. The caller sees that nobody waits for it."""
    gl_door_close()


def install(int number):
    """Let a signal ask for a dump. OSError for one that cannot be caught."""
    check(number)
    if gl_dump_install(number) < 0:
        raise os_error(errno)


def remove(int number):
    """Put back what was there before; returns whether the handler was still there."""
    check(number)
    return gl_dump_remove(number)


def take(int number):
    """How often the signal has come since it was asked last."""
    check(number)
    return gl_dump_take(number)
