# cython: language_level=3, boundscheck=False, wraparound=False
"""Hooks: built-in functions of C that behave differently in a goroutine, and only there. For goloop.monkey.

hook() sends the calls that a goroutine makes to a replacement. It changes the function where it is, so that it does
not matter which references to it there are, and since when; native/hook.c tells how.
"""

from libc.stdint cimport uintptr_t

from goloop.core.sched.scheduler cimport Worker, bubble_here, bubbles, here


cdef extern from "../patch/native/hook.h":
    ctypedef struct PyMethodDef:
        pass
    PyMethodDef *gl_hook_table(object function) except NULL
    object gl_hook_install(object function, object replacement, gl_applies applies)

cdef extern from *:
    """
    #include "../system/native/thread_local.h"
    GL_THREAD_LOCAL int gl_plain;  /* depth of plain() on this thread */
    """
    int gl_plain


cdef bint cooperative() noexcept:
    """Whether a goroutine calls, outside of plain(), and in the process where it can park."""
    cdef Worker worker = here()
    return worker is not None and worker.current is not None and gl_plain == 0 and not worker.loop.pollset.foreign()


cdef int _always() noexcept:
    return 1


cdef int _cooperative() noexcept:
    return cooperative()


cdef bint _in_bubble() noexcept:
    return bubbles > 0 and bubble_here() is not None


cdef int _of_bubble() noexcept:
    return _in_bubble()


cdef int _cooperative_or_of_bubble() noexcept:
    return cooperative() or _in_bubble()


def is_cooperative():
    """Return whether the caller is to park rather than to block: it is a goroutine that is no coroutine."""
    return cooperative()


class plain:
    """`with plain():` what is called inside blocks as it would on any thread. It must not park by other means:
    the depth is the thread's."""

    def __enter__(self):
        global gl_plain
        gl_plain += 1

    def __exit__(self, *exc):
        global gl_plain
        gl_plain -= 1


cdef object install(object function, object replacement, gl_applies applies):
    _check_writable(<uintptr_t>gl_hook_table(function), function)
    return gl_hook_install(function, replacement, applies)


def hook_time(function, replacement, goroutines=False):
    """As hook(), for what runs in a bubble of goloop.testing; goroutines: and for goroutines outside of one."""
    return install(function, replacement, _cooperative_or_of_bubble if goroutines else _of_bubble)


def hook(function, replacement, always=False):
    """Let goroutines (always: everybody) that call a built-in function call replacement instead.

    function: a built-in function, or a method as it stands in its type's __dict__. The replacement gets the same
    arguments, the object first. Returns a callable that does what the function did before. TypeError for what is
    not built in; SystemError when it is hooked already or cannot be. For good.
    """
    return install(function, replacement, _always if always else _cooperative)


def _check_writable(address, function):
    # A tool may have built Python with its tables read-only; that must be an error and no crash.
    with open("/proc/self/maps") as maps:
        for line in maps:
            region, access = line.split()[:2]
            first, last = region.split("-")
            if int(first, 16) <= address < int(last, 16):
                if access[1] == "w":
                    return
                break
    raise SystemError(f"{function!r} cannot be hooked: this Python keeps it in memory that is read-only")
