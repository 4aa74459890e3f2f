"""A Griffe extension: the stubs of compiled modules have the types, and the compiled modules have the docstrings."""

from __future__ import annotations

import inspect
from typing import Any

import griffe


class RuntimeDocstrings(griffe.Extension):
    """Gives each object of a stub the docstring that it has when it is imported.

    A function that the stub describes by overloads alone becomes a member of its module or class; Griffe expects an
    implementation beside them, which only the compiled module has.
    """

    def on_members(self, *, obj: griffe.Object | griffe.Alias, **_: Any) -> None:
        if obj.is_alias or not str(obj.filepath).endswith(".pyi"):
            return
        for name, overloads in getattr(obj, "overloads", {}).items():
            if overloads and name not in obj.members:
                function = overloads[-1]
                function.overloads = overloads
                obj.set_member(name, function)
        if obj.is_class and "__new__" in obj.members and "__init__" not in obj.members:
            _call_by_new(obj)
        for member in obj.members.values():
            if not member.is_alias and not member.is_module and member.docstring is None:
                member.docstring = _docstring(member)
                if member.is_class:
                    self.on_members(obj=member)


def _call_by_new(cls: griffe.Object | griffe.Alias) -> None:
    """Show the arguments of __new__() as those of the class, as other classes have theirs from __init__()."""
    new = cls.members["__new__"]
    if not isinstance(new, griffe.Function) or str(new.returns) == "NoReturn":
        return
    init = griffe.Function("__init__", parameters=new.parameters, lineno=new.lineno, endlineno=new.endlineno)
    cls.set_member("__init__", init)


def _docstring(obj: griffe.Object | griffe.Alias) -> griffe.Docstring | None:
    try:
        found = griffe.dynamic_import(obj.path)
    except ImportError:  # a name that only the stub has
        return None
    text = inspect.getdoc(found)
    if not text or text in (inspect.getdoc(type(found)), object.__init__.__doc__):
        return None
    return griffe.Docstring(text, parent=obj if isinstance(obj, griffe.Object) else None)
