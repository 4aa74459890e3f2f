/* What goloop assumes of CPython beyond its documented C interface was read and tested in the versions below. On a
   newer one each such place turns itself off, and what is slower or blocks takes its place, until it was checked:

   sched/native/trap.h          fields of the thread state (3.11), frame evaluation functions      no handoff
   sched/scheduler.pyx          where a threading.local finds its thread's values                  no patch_threading()
   patch/native/hook.c          calls read the C function from the table each time                 no patches
   patch/cpython_layout.pyx     the first field of a poll object                                   a thread waits for it
                                the timeout in a socket object: found out, or no patch_ssl()
   loop/native/context_vars.h   that a Context has its variables as a mapping of their own         copies of contexts
   loop/handles.pxd             what the collector makes of an untracked object                    tracked

   To look at a version: build with it, run all tests, read the places above in its sources, and raise the number.
   -DGL_PYTHON_KNOWN=0 builds what an unknown version gets. */
#ifndef GOLOOP_KNOWN_PYTHON_H
#define GOLOOP_KNOWN_PYTHON_H

#include <Python.h>

#ifndef GL_PYTHON_KNOWN
#define GL_PYTHON_KNOWN (PY_VERSION_HEX < 0x03100000) /* 3.11 to 3.15 */
#endif

#endif
