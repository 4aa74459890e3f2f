/* Replacing a built-in function or method of C in place, so that code with a reference to it, also an old
 * one, calls the replacement. See hook.c. */
#ifndef GOLOOP_HOOK_H
#define GOLOOP_HOOK_H

#include <Python.h>

/* Says whether a call made right now is for the replacement. Called with the GIL; raises nothing. */
typedef int (*gl_applies)(void);

/* Where the method table of a function or method descriptor stands; NULL with TypeError for anything else. */
PyMethodDef *gl_hook_table(PyObject *function);

/* Send calls of `function` to `replacement` whenever applies() says so. Returns a new callable that is what
 * `function` was before, or NULL with an exception. There is no way back. */
PyObject *gl_hook_install(PyObject *function, PyObject *replacement, gl_applies applies);

#endif
