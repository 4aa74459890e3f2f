"""Libraries in C that wait by themselves, where no patch reaches."""

from __future__ import annotations

import sys
from collections.abc import Callable


def _psycopg() -> str | None:
    waiting = sys.modules.get("psycopg.waiting")
    if waiting is None or getattr(waiting.wait, "goloop", False):
        return None
    return "goloop.monkey.patch_psycopg() was not called"


def _psycopg2() -> str | None:
    extensions = sys.modules.get("psycopg2.extensions")
    if extensions is None or extensions.get_wait_callback() is not None:
        return None
    return "goloop.monkey.patch_psycopg2() was not called"


_IN_C = (
    "MySQLdb",
    "_sqlite3",
    "confluent_kafka",
    "cx_Oracle",
    "duckdb",
    "ldap",
    "lmdb",
    "oracledb",
    "pycurl",
    "pylibmc",
    "pymssql",
    "pyodbc",
    "zmq",
)
# Module: a function that returns the reason; None: it parks.
_DRIVERS: dict[str, Callable[[], str | None]] = {
    "psycopg": _psycopg,
    "psycopg2": _psycopg2,
    **dict.fromkeys(_IN_C, lambda: "it waits in C"),
}


def blocking_drivers() -> dict[str, str]:
    """Return those that are imported and block: name and reason."""
    found = {name: reason() for name, reason in _DRIVERS.items() if name in sys.modules}
    return {name: reason for name, reason in found.items() if reason is not None}
