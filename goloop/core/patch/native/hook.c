/* A built-in function is an object that points to an entry of a table, a PyMethodDef, with the address of the C
 * function in it. Every bound method and every reference that was taken before points to the same entry. So the
 * address there is exchanged for that of a trampoline, which decides for each call: the replacement, a Python
 * callable, or the C function that was there before. Types, identities, signatures and documentation stay as they
 * are, and a call that is not for the replacement costs one C call more.
 *
 * A second instance of the module (another interpreter has one) uses the same table with types of its own: what is no
 * object of the type that was hooked, or not the module, goes to the original.
 *
 * That a call reads the address from the table, specialized or not, was checked for 3.11 to 3.15; on a newer Python
 * nothing is hooked.
 *
 * C functions have no closures: each hook has trampolines of its own, made by a macro, one for each of CPython's
 * calling conventions. Guard of everything here: the GIL. */
#include "hook.h"

#include "../../system/native/known_python.h"

#define HOOKS 64 /* as many as there are MAKE()s below */
#define ON_STACK 8

typedef struct {
    PyMethodDef *table;   /* the entry that was changed; NULL: this hook is free */
    PyMethodDef original; /* what it was */
    PyObject *replacement;
    gl_applies applies;
    PyTypeObject *type; /* of a method, whose replacement gets the object as its first argument; NULL: a function */
    PyObject *module;   /* of a function */
} hook;

static hook hooks[HOOKS];

static inline int applies(hook *h, PyObject *self) {
    return (h->type != NULL ? PyObject_TypeCheck(self, h->type) : self == h->module) && h->applies();
}

static PyObject *call(hook *h, PyObject *self, PyObject *const *args, Py_ssize_t n, PyObject *kwnames) {
    PyObject *few[ON_STACK], **all = few, *result;
    Py_ssize_t i, total;
    if (h->type == NULL)
        return PyObject_Vectorcall(h->replacement, args, (size_t)n, kwnames);
    total = n + 1 + (kwnames != NULL ? PyTuple_GET_SIZE(kwnames) : 0);
    if (total > ON_STACK) {
        all = PyMem_Malloc((size_t)total * sizeof *all);
        if (all == NULL)
            return PyErr_NoMemory();
    }
    all[0] = self;
    for (i = 1; i < total; i++)
        all[i] = args[i - 1];
    result = PyObject_Vectorcall(h->replacement, all, (size_t)n + 1, kwnames);
    if (all != few)
        PyMem_Free(all);
    return result;
}

static PyObject *call_tuple(hook *h, PyObject *self, PyObject *args, PyObject *kwargs) {
    Py_ssize_t i, n = PyTuple_GET_SIZE(args);
    PyObject *all, *result;
    if (h->type == NULL)
        return PyObject_Call(h->replacement, args, kwargs);
    all = PyTuple_New(n + 1);
    if (all == NULL)
        return NULL;
    PyTuple_SET_ITEM(all, 0, Py_NewRef(self));
    for (i = 0; i < n; i++)
        PyTuple_SET_ITEM(all, i + 1, Py_NewRef(PyTuple_GET_ITEM(args, i)));
    result = PyObject_Call(h->replacement, all, kwargs);
    Py_DECREF(all);
    return result;
}

typedef PyObject *(*fast)(PyObject *, PyObject *const *, Py_ssize_t);
typedef PyObject *(*fast_kw)(PyObject *, PyObject *const *, Py_ssize_t, PyObject *);
/* Not PyCMethod, which has size_t up to 3.13 and Py_ssize_t from 3.14 on. */
typedef PyObject *(*method)(PyObject *, PyTypeObject *, PyObject *const *, Py_ssize_t, PyObject *);

#define ORIGINAL(type) ((type)(void (*)(void))h->original.ml_meth)

static inline PyObject *enter_none(hook *h, PyObject *self, PyObject *unused) {
    return applies(h, self) ? call(h, self, NULL, 0, NULL) : h->original.ml_meth(self, unused);
}
static inline PyObject *enter_one(hook *h, PyObject *self, PyObject *arg) {
    return applies(h, self) ? call(h, self, &arg, 1, NULL) : h->original.ml_meth(self, arg);
}
static inline PyObject *enter_tuple(hook *h, PyObject *self, PyObject *args) {
    return applies(h, self) ? call_tuple(h, self, args, NULL) : h->original.ml_meth(self, args);
}
static inline PyObject *enter_dict(hook *h, PyObject *self, PyObject *args, PyObject *kwargs) {
    return applies(h, self) ? call_tuple(h, self, args, kwargs) : ORIGINAL(PyCFunctionWithKeywords)(self, args, kwargs);
}
static inline PyObject *enter_fast(hook *h, PyObject *self, PyObject *const *args, Py_ssize_t n) {
    return applies(h, self) ? call(h, self, args, n, NULL) : ORIGINAL(fast)(self, args, n);
}
static inline PyObject *enter_fast_kw(hook *h, PyObject *self, PyObject *const *args, Py_ssize_t n, PyObject *names) {
    return applies(h, self) ? call(h, self, args, n, names) : ORIGINAL(fast_kw)(self, args, n, names);
}
static inline PyObject *enter_class(hook *h, PyObject *self, PyTypeObject *cls, PyObject *const *args, Py_ssize_t n,
                                    PyObject *names) {
    return applies(h, self) ? call(h, self, args, n, names) : ORIGINAL(method)(self, cls, args, n, names);
}

typedef struct {
    PyCFunction none, one, tuple;
    PyCFunctionWithKeywords dict;
    fast quick;
    fast_kw quick_kw;
    method cls;
} trampolines;

#define MAKE(N)                                                                                                        \
    static PyObject *none_##N(PyObject *s, PyObject *u) { return enter_none(&hooks[N], s, u); }                        \
    static PyObject *one_##N(PyObject *s, PyObject *a) { return enter_one(&hooks[N], s, a); }                          \
    static PyObject *tuple_##N(PyObject *s, PyObject *a) { return enter_tuple(&hooks[N], s, a); }                      \
    static PyObject *dict_##N(PyObject *s, PyObject *a, PyObject *k) { return enter_dict(&hooks[N], s, a, k); }        \
    static PyObject *quick_##N(PyObject *s, PyObject *const *a, Py_ssize_t n) {                                        \
        return enter_fast(&hooks[N], s, a, n);                                                                         \
    }                                                                                                                  \
    static PyObject *quick_kw_##N(PyObject *s, PyObject *const *a, Py_ssize_t n, PyObject *k) {                        \
        return enter_fast_kw(&hooks[N], s, a, n, k);                                                                   \
    }                                                                                                                  \
    static PyObject *cls_##N(PyObject *s, PyTypeObject *c, PyObject *const *a, Py_ssize_t n, PyObject *k) {            \
        return enter_class(&hooks[N], s, c, a, n, k);                                                                  \
    }
#define ENTRY(N) {none_##N, one_##N, tuple_##N, dict_##N, quick_##N, quick_kw_##N, cls_##N},

#define EIGHT(DO, TENS) DO(TENS##0) DO(TENS##1) DO(TENS##2) DO(TENS##3) DO(TENS##4) DO(TENS##5) DO(TENS##6) DO(TENS##7)
/* The numbers are octal, so that eight of them share what stands before their last digit. */
#define ALL(DO)                                                                                                        \
    EIGHT(DO, 0) EIGHT(DO, 01) EIGHT(DO, 02) EIGHT(DO, 03) EIGHT(DO, 04) EIGHT(DO, 05) EIGHT(DO, 06) EIGHT(DO, 07)

ALL(MAKE)

static const trampolines entries[HOOKS] = {ALL(ENTRY)};

PyMethodDef *gl_hook_table(PyObject *function) {
    if (PyCFunction_Check(function))
        return ((PyCFunctionObject *)function)->m_ml;
    if (Py_IS_TYPE(function, &PyMethodDescr_Type))
        return ((PyMethodDescrObject *)function)->d_method;
    PyErr_Format(PyExc_TypeError, "a built-in function or method is needed, got %R", function);
    return NULL;
}

static PyCFunction trampoline(const trampolines *t, int flags) {
    switch (flags & (METH_VARARGS | METH_KEYWORDS | METH_NOARGS | METH_O | METH_FASTCALL | METH_METHOD)) {
    case METH_NOARGS: return t->none;
    case METH_O: return t->one;
    case METH_VARARGS: return t->tuple;
    case METH_VARARGS | METH_KEYWORDS: return (PyCFunction)(void (*)(void))t->dict;
    case METH_FASTCALL: return (PyCFunction)(void (*)(void))t->quick;
    case METH_FASTCALL | METH_KEYWORDS: return (PyCFunction)(void (*)(void))t->quick_kw;
    case METH_METHOD | METH_FASTCALL | METH_KEYWORDS: return (PyCFunction)(void (*)(void))t->cls;
    default: return NULL;
    }
}

PyObject *gl_hook_install(PyObject *function, PyObject *replacement, gl_applies applies) {
    PyMethodDef *table = gl_hook_table(function);
    PyCFunction entry;
    PyObject *original;
    int i;
    if (table == NULL)
        return NULL;
    if (!GL_PYTHON_KNOWN) {
        PyErr_Format(PyExc_SystemError, "%R cannot be hooked: that has not been checked with this Python", function);
        return NULL;
    }
    for (i = 0; i < HOOKS && hooks[i].table != NULL; i++) {
        if (hooks[i].table == table) {
            PyErr_Format(PyExc_SystemError, "%R is hooked already", function);
            return NULL;
        }
    }
    entry = i < HOOKS ? trampoline(&entries[i], table->ml_flags) : NULL;
    if (entry == NULL) {
        PyErr_Format(PyExc_SystemError, "%R cannot be hooked", function);
        return NULL;
    }
    hooks[i].original = *table;
    if (PyCFunction_Check(function)) {
        hooks[i].module = Py_XNewRef(PyCFunction_GET_SELF(function));
        original = PyCFunction_NewEx(&hooks[i].original, PyCFunction_GET_SELF(function),
                                     ((PyCFunctionObject *)function)->m_module);
    } else {
        original = PyDescr_NewMethod(PyDescr_TYPE(function), &hooks[i].original);
        hooks[i].type = (PyTypeObject *)Py_NewRef((PyObject *)PyDescr_TYPE(function));
    }
    if (original == NULL)
        return NULL;
    hooks[i].replacement = Py_NewRef(replacement);
    hooks[i].applies = applies;
    hooks[i].table = table;
    table->ml_meth = entry;
    return original;
}
