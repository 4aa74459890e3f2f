/* The variables of a contextvars.Context without the object around them.
 *
 * A callback runs in a copy of the context in which it was scheduled. A copy is an object for the collector, of which a
 * loop with many callbacks has as many; its variables are an immutable mapping (a HAMT), which the copy shares. So a
 * handle keeps that mapping, and its callback runs in a spare Context that has been given it. handles.pyx says when a
 * real one is needed. Where in a Context the mapping is, is found out (gl_vars_find), and otherwise copies are made.
 * All of it is guarded by the GIL; without the GIL copies are made.
 */
#ifndef GOLOOP_CONTEXT_VARS_H
#define GOLOOP_CONTEXT_VARS_H

#include "../../system/native/known_python.h"

#include <stdint.h>
#include <string.h>

static Py_ssize_t gl_vars_at; /* the offset of the mapping in a Context; 0: not known */
static PyObject *gl_no_vars;  /* an empty mapping */
static PyObject *gl_spare;    /* a Context that runs nothing, or NULL */

static inline PyObject **gl_vars_slot(PyObject *context) { return (PyObject **)((char *)context + gl_vars_at); }

/* Borrowed: the variables of the current context; NULL: not known, or the thread has no context yet. */
static inline PyObject *gl_vars_now(void) {
    PyObject *context = gl_vars_at ? PyThreadState_Get()->context : NULL;
    return context != NULL ? *gl_vars_slot(context) : NULL;
}

static inline void gl_vars_put(PyObject *context, PyObject *vars) {
    PyObject **slot = gl_vars_slot(context), *before = *slot;
    Py_INCREF(vars);
    *slot = vars;
    Py_DECREF(before);
}

/* A new reference: a Context with these variables, that nobody else has. */
static inline PyObject *gl_context_with(PyObject *vars) {
    PyObject *context = gl_spare;
    gl_spare = NULL;
    if (context == NULL && (context = PyContext_New()) == NULL)
        return NULL;
    gl_vars_put(context, vars);
    return context;
}

/* Nothing but `references` of the caller's refers to the context. */
static inline int gl_context_is_ours(PyObject *context, Py_ssize_t references) {
    Py_ssize_t weak = Py_TYPE(context)->tp_weaklistoffset;
    return Py_REFCNT(context) == references && (weak <= 0 || *(PyObject **)((char *)context + weak) == NULL);
}

/* The caller, whose alone it is, lets go of it. */
static inline void gl_context_spare(PyObject *context) {
    if (gl_spare == NULL) {
        Py_INCREF(context);
        gl_spare = context;
        gl_vars_put(context, gl_no_vars);
    }
}

static inline PyObject *gl_word(PyObject *object, Py_ssize_t at) {
    PyObject *word;
    memcpy(&word, (char *)object + at, sizeof word);
    return word;
}

/* Find the mapping, which is what two copies of a context with a variable share, and an empty one does not. */
static void gl_vars_find(PyObject *one, PyObject *other, PyObject *empty) {
#if GL_PYTHON_KNOWN && !defined(Py_GIL_DISABLED)
    Py_ssize_t found = 0, size = Py_TYPE(one)->tp_basicsize;
    for (Py_ssize_t at = sizeof(PyObject); at + (Py_ssize_t)sizeof(PyObject *) <= size; at += sizeof(PyObject *)) {
        PyObject *word = gl_word(one, at);
        if (word != NULL && word == gl_word(other, at) && word != gl_word(empty, at)) {
            if (found)
                return;
            found = at;
        }
    }
    if (!found || gl_word(empty, found) == NULL || Py_TYPE(gl_word(one, found)) != Py_TYPE(gl_word(empty, found)) ||
        strcmp(Py_TYPE(gl_word(one, found))->tp_name, "hamt") != 0)
        return;
    gl_no_vars = gl_word(empty, found);
    Py_INCREF(gl_no_vars);
    gl_vars_at = found;
#else
    (void)one, (void)other, (void)empty;
#endif
}

#endif
