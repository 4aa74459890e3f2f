/* The parts of a trap that need CPython's own names: what stops a thread at its next step in Python. Checked for
 * 3.11 to 3.15; without them on a newer one, where prepare() refuses.
 *
 * 3.11: a trace function on that thread alone, put there by another one. From 3.12 on that would trace everybody;
 * there sys.monitoring stops it in the frame that it is in (sched/handoff.pyx), and a frame evaluation function (PEP
 * 523) in a frame that it may begin first. All under the GIL.
 */
#ifndef GOLOOP_TRAP_H
#define GOLOOP_TRAP_H

#include <Python.h>
#include <frameobject.h>

#include "../../system/native/known_python.h"

typedef void (*gl_entered)(void); /* a frame begins in this thread */

#if PY_VERSION_HEX < 0x030C0000

#define GL_TRACES 1
static inline int gl_trace_busy(PyThreadState *ts) { return ts->tracing != 0; }

static inline void gl_trace_put(PyThreadState *ts, Py_tracefunc function, PyObject *object) {
    /* As _PyEval_SetTrace, but without its audit event: hooks would run Python code in the middle of a handoff. */
    ts->c_tracefunc = function;
    ts->c_traceobj = object;
    ts->cframe->use_tracing = (ts->tracing == 0 && (function != NULL || ts->c_profilefunc != NULL)) ? 255 : 0;
}

static inline Py_tracefunc gl_trace_function(PyThreadState *ts) { return ts->c_tracefunc; }
static inline PyObject *gl_trace_object(PyThreadState *ts) { return ts->c_traceobj; }
static inline int gl_eval_hook(gl_entered entered) {
    (void)entered;
    return 0;
}
static inline void gl_eval_unhook(void) {}

#else

#define GL_TRACES 0
static inline void gl_trace_put(PyThreadState *ts, Py_tracefunc function, PyObject *object) {
    (void)ts;
    (void)function;
    (void)object;
}
static inline Py_tracefunc gl_trace_function(PyThreadState *ts) {
    (void)ts;
    return NULL;
}
static inline PyObject *gl_trace_object(PyThreadState *ts) {
    (void)ts;
    return NULL;
}

#if !GL_PYTHON_KNOWN

static inline int gl_trace_busy(PyThreadState *ts) {
    (void)ts;
    return 1;
} /* so ownership is not retaken */
static inline int gl_eval_hook(gl_entered entered) {
    (void)entered;
    return 0;
}
static inline void gl_eval_unhook(void) {}

#else

static inline int gl_trace_busy(PyThreadState *ts) { return ts->tracing != 0; }

static gl_entered gl_on_entry;
static _PyFrameEvalFunction gl_eval_before;
static int gl_eval_on;

static PyObject *gl_eval(PyThreadState *ts, struct _PyInterpreterFrame *frame, int throwing) {
    gl_on_entry();
    return gl_eval_before(ts, frame, throwing);
}

static inline int gl_eval_hook(gl_entered entered) {
    PyInterpreterState *interp = PyInterpreterState_Get();
    if (!gl_eval_on) {
        gl_on_entry = entered;
        gl_eval_before = _PyInterpreterState_GetEvalFrameFunc(interp);
        _PyInterpreterState_SetEvalFrameFunc(interp, gl_eval);
        gl_eval_on = 1;
    }
    return 0;
}

static inline void gl_eval_unhook(void) {
    PyInterpreterState *interp = PyInterpreterState_Get();
    /* Another function may have been put on top of ours, and call it: then ours stays. */
    if (gl_eval_on && _PyInterpreterState_GetEvalFrameFunc(interp) == gl_eval) {
        _PyInterpreterState_SetEvalFrameFunc(interp, gl_eval_before);
        gl_eval_on = 0;
    }
}

#endif
#endif
#endif
