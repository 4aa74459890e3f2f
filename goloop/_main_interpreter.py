"""Importing this module fails where goloop cannot work: in any interpreter of the process but the main one.

The compiled modules, the netpoller and the monitor belong to the process as a whole, and so do the signals that a loop
needs. Without this, the import would fail later with words that do not say why, or keep the main interpreter from it.
"""

import _thread
import sys


def _is_main() -> bool:
    if sys.version_info >= (3, 12):
        return bool(_thread._is_main_interpreter())  # type: ignore[attr-defined]
    try:
        import _xxsubinterpreters as interpreters  # type: ignore[import-not-found]
    except ImportError:
        return True  # a Python without the module; programs that embed it are on their own
    return bool(interpreters.get_current() == interpreters.get_main())


if not _is_main():
    raise ImportError(
        "goloop works in the main interpreter of a process only, not in a subinterpreter "
        "(mod_wsgi has the main one with WSGIApplicationGroup %{GLOBAL})"
    )
