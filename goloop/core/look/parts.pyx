# cython: language_level=3, boundscheck=False, wraparound=False
"""The small steps of looking at a program that runs: names, frames, references, fields.

None of them runs code of the program's: no repr(), no property, no __getattr__(), no __class__ that is one. So a look
is possible from a finalizer and in a signal handler, and does not wait. Guard: the GIL.
"""

import functools
import types

from cpython.object cimport PyObject
from cpython.mem cimport PyMem_Free, PyMem_Malloc
from cpython.ref cimport Py_DECREF, Py_INCREF

from goloop.core.loop.handles cimport gl_untrack


cdef extern from "Python.h":
    ctypedef struct PyFrameObject:
        pass
    ctypedef struct PyCodeObject:
        pass
    ctypedef struct PyTypeObject:
        int (*tp_traverse)(PyObject *, int (*)(PyObject *, void *) except -1, void *) except -1
        PyObject *(*tp_getattro)(PyObject *, PyObject *)
        object (*tp_alloc)(PyTypeObject *, Py_ssize_t)
    ctypedef struct PyMemberDef:
        Py_ssize_t offset
    ctypedef struct PyMemberDescrObject:
        PyMemberDef *d_member
    str PyUnicode_FromString(const char *text)
    PyTypeObject *Py_TYPE(object o)
    int PyObject_TypeCheck(object o, PyTypeObject *type)
    PyCodeObject *PyFrame_GetCode(PyFrameObject *frame)
    PyFrameObject *PyFrame_GetBack(PyFrameObject *frame)
    int PyFrame_GetLasti(PyFrameObject *frame)
    object PyObject_GenericGetAttr(object o, object name)
    PyObject *_PyType_Lookup(PyTypeObject *type, object name)
    bint PyGC_Enable()
    bint PyGC_Disable()

cdef extern from "stdio.h" nogil:
    int snprintf(char *text, size_t room, const char *format, ...)

cdef object Function = types.FunctionType
cdef object Method = types.MethodType
cdef object Builtin = types.BuiltinFunctionType
cdef object Partial = functools.partial
cdef tuple PLAIN = (types.MemberDescriptorType, types.GetSetDescriptorType)
cdef tuple NAMED = (Function, Builtin, types.MethodWrapperType, types.WrapperDescriptorType, types.MethodDescriptorType)


cdef class Shape:
    """How to make objects of a class with slots: as its __init__() would, in a tenth of the time.

    The collector does not look at them: nothing that they refer to refers to them. names: the slots, in the order in
    which make() takes their values.
    """

    def __cinit__(self, made, tuple names):
        cdef Py_ssize_t i
        self.cls = made
        self.count = len(names)
        self.offsets = <Py_ssize_t *>PyMem_Malloc((self.count + 1) * sizeof(Py_ssize_t))
        if self.offsets == NULL:
            raise MemoryError
        for i in range(self.count):
            described = made.__dict__[names[i]]
            if type(described) is not types.MemberDescriptorType:
                raise TypeError(f"{made!r} has no slot {names[i]!r}")
            self.offsets[i] = (<PyMemberDescrObject *>described).d_member.offset

    def __dealloc__(self):
        PyMem_Free(self.offsets)

    cdef object make(self, tuple values):
        cdef object made = (<PyTypeObject *>self.cls).tp_alloc(<PyTypeObject *>self.cls, 0)
        cdef Py_ssize_t i
        for i in range(self.count):
            Py_INCREF(values[i])
            (<PyObject **>(<char *><PyObject *>made + self.offsets[i]))[0] = <PyObject *>values[i]
        gl_untrack(made)
        return made


cdef str key_text(const char *kind, size_t number):
    cdef char text[64]
    snprintf(text, sizeof(text), "%s-%zx", kind, number)
    return PyUnicode_FromString(text)


cdef bint pause_gc() noexcept:
    """The collector would go through all that there is, as a look makes many objects, and run finalizers."""
    return PyGC_Disable()


cdef void resume_gc(bint on) noexcept:
    if on:
        PyGC_Enable()


cdef bint is_a(object o, object cls) noexcept:
    return PyObject_TypeCheck(o, <PyTypeObject *>cls)


cdef object name_of(object function):
    for _ in range(16):
        if type(function) is Method:
            function = function.__func__
        elif is_a(function, Partial):
            function = Partial.func.__get__(function)
        else:
            break
    if type(function) in NAMED:
        name = function.__qualname__
        return name if type(name) is str else str(name)
    if is_a(function, type):
        return type.__dict__["__qualname__"].__get__(function)
    if Py_TYPE(function).tp_getattro == <PyObject *(*)(PyObject *, PyObject *)>PyObject_GenericGetAttr:
        name = field(function, "__qualname__")                # functions of Cython's
        if type(name) is str:
            return name
    return type(function).__qualname__


cdef object place_of(object frame):
    cdef PyObject *code = <PyObject *>PyFrame_GetCode(<PyFrameObject *>frame)
    cdef object place = (<object>code, PyFrame_GetLasti(<PyFrameObject *>frame))
    Py_DECREF(<object>code)
    gl_untrack(place)
    return place


cdef object places_above(object frame, object base):
    cdef list places = []
    cdef PyFrameObject *back
    while frame is not None and frame is not base:
        places.append(place_of(frame))
        back = PyFrame_GetBack(<PyFrameObject *>frame)
        if back == NULL:
            break
        frame = <object><PyObject *>back
        Py_DECREF(frame)                  # that of the call
    places.reverse()
    return untracked(tuple(places))


cdef tuple untracked(tuple made):
    gl_untrack(made)
    return made


cdef object places_of(object frame):
    return places_above(frame, None)


cdef int _add(PyObject *o, void *found) except -1:
    (<list>found).append(<object>o)
    return 0


cdef list referents(object o):
    cdef list found = []
    if Py_TYPE(o).tp_traverse != NULL:
        Py_TYPE(o).tp_traverse(<PyObject *>o, _add, <void *>found)
    return found


cdef object field(object o, str name):
    """The value of an attribute in the object's dictionary or slots; None if there is none.

    What is looked up is a member, a getter in C, or no part of the type at all: a property would run code.
    """
    cdef PyObject *described = _PyType_Lookup(Py_TYPE(o), name)
    if described != NULL and type(<object>described) not in PLAIN:
        if hasattr(type(<object>described), "__get__"):
            return None
    try:
        return PyObject_GenericGetAttr(o, name)
    except Exception:
        return None


def callable_name(function):
    """Return the qualified name of anything that can be called, without running its code."""
    return name_of(function)


def frames_of(frame, base=None):
    """Return (code, instruction) of a frame and of those that called it, outermost first, but not from `base` on."""
    return places_above(frame, base)
