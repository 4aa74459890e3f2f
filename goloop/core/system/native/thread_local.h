/* Variables of a thread.

   A shared object asks for the address of its thread's variables by a call (__tls_get_addr) each time. glibc keeps
   room for some more in every thread's own block, for objects loaded later: "initial-exec" takes 8 bytes of it and
   reaches them by one addition. Other C libraries refuse to load such an object, so there the call stays. */
#ifndef GOLOOP_LOCAL_H
#define GOLOOP_LOCAL_H

#include <features.h>

#ifdef __GLIBC__
#define GL_THREAD_LOCAL static __thread __attribute__((tls_model("initial-exec")))
#else
#define GL_THREAD_LOCAL static __thread
#endif

#endif
