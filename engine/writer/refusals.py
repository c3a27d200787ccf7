"""What a PostgreSQL error means: try again later, or find the row that is to blame."""

import psycopg

from engine.database_words import unavailable

__all__ = ["NO_PARTITION", "is_for_later", "unavailable"]

_LATER_CLASSES = frozenset(
    {
        "08",  # connection
        "25",  # transaction state, read-only server
        "28",  # login
        "3D",  # no such database
        "3F",  # no such schema
        "40",  # rollback: serialization, deadlock
        "42",  # missing table, column or right: no row is to blame
        "53",  # out of disk, memory, connections
        "55",  # lock not available
        "57",  # shutdown, crash, cancel
        "58",  # input/output
        "72",  # snapshot too old
        "F0",  # configuration file
    }
)
_LATER_STATES = frozenset({"XX001", "XX002"})
"""Damaged table or index: an operator's case. Other internal errors may well be a row's doing."""

NO_PARTITION = "23514"
"""check_violation: also what a row without a partition gets."""


def is_for_later(error: psycopg.Error) -> bool:
    """Whether the error says nothing against any row."""
    state = error.sqlstate
    return state is None or state[:2] in _LATER_CLASSES or state in _LATER_STATES
