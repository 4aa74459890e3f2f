/* Types of which only their own module makes instances: for everybody else `T()`, `T.__new__(T)` and a subclass of T
 * raise TypeError, so that there is no instance whose fields are not set. Guard: the GIL, at import. */
#ifndef GOLOOP_SEALED_H
#define GOLOOP_SEALED_H

#include <Python.h>

#define GL_SEALED 8 /* types a module may seal */

static struct {
    PyTypeObject *type;
    const char *reason;
} gl_sealed[GL_SEALED];

static PyObject *gl_refuse(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    (void)args;
    (void)kwargs;
    for (PyTypeObject *t = type; t != NULL; t = t->tp_base)
        for (int i = 0; i < GL_SEALED && gl_sealed[i].type != NULL; i++)
            if (gl_sealed[i].type == t) {
                PyErr_SetString(PyExc_TypeError, gl_sealed[i].reason);
                return NULL;
            }
    PyErr_Format(PyExc_TypeError, "cannot create %s instances", type->tp_name);
    return NULL;
}

/* Cython's T.__new__(T) in T's own module does not look at tp_new. T is no base of a type in another module, whose
 * own tp_new would. */
static int gl_seal(PyObject *type, const char *reason) {
    for (int i = 0; i < GL_SEALED; i++)
        if (gl_sealed[i].type == NULL) {
            gl_sealed[i].type = (PyTypeObject *)type;
            gl_sealed[i].reason = reason;
            ((PyTypeObject *)type)->tp_new = gl_refuse;
            ((PyTypeObject *)type)->tp_vectorcall = NULL; /* it would pass over tp_new */
            return 0;
        }
    PyErr_SetString(PyExc_SystemError, "a module seals more types than GL_SEALED");
    return -1;
}

#endif
