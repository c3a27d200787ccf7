"""What a PostgreSQL error means for the rows that were being stored: whose state it is.

Every class of SQLSTATE (appendix A of PostgreSQL's manual, and TimescaleDB's own) is in one table
here. A class that is not, because an extension or a newer server made it up, counts as `ROW`: it is
looked for among the rows, and found out to be the table's where none of them is taken.
"""

import enum
import re
from typing import Final

import psycopg

from engine.database.words import unavailable

__all__ = ["Fault", "fault_of", "in_full", "in_words", "is_for_later", "unavailable"]


class Fault(enum.Enum):
    """Whose doing a refusal is."""

    LATER = "later"
    """The server's, the session's or the login's: says nothing against any row or table."""
    TABLE = "table"
    """The table's as it is now: all its rows wait, and other tables go on."""
    ROW = "row"
    """Perhaps a row's. It is to blame only if the table takes others at the same moment."""


_CLASSES: Final[dict[str, Fault]] = {
    "00": Fault.LATER,  # successful completion
    "01": Fault.LATER,  # warning
    "02": Fault.LATER,  # no data
    "03": Fault.LATER,  # statement not yet complete
    "08": Fault.LATER,  # connection
    "09": Fault.ROW,  # triggered action
    "0A": Fault.TABLE,  # feature not supported: a frozen chunk, a view, a foreign partition
    "0B": Fault.LATER,  # transaction initiation
    "0F": Fault.TABLE,  # locator
    "0L": Fault.LATER,  # grantor
    "0P": Fault.LATER,  # role specification
    "0Z": Fault.TABLE,  # diagnostics, in somebody's trigger
    "10": Fault.ROW,  # XQuery
    "20": Fault.ROW,  # case not found, in somebody's trigger
    "21": Fault.ROW,  # cardinality
    "22": Fault.ROW,  # data
    "23": Fault.ROW,  # integrity constraint; also a row without a partition
    "24": Fault.LATER,  # cursor state
    "25": Fault.LATER,  # transaction state, read-only server
    "26": Fault.LATER,  # statement name
    "27": Fault.TABLE,  # triggered data change
    "28": Fault.LATER,  # login
    "2B": Fault.TABLE,  # dependent privileges
    "2D": Fault.LATER,  # transaction termination
    "2F": Fault.TABLE,  # SQL routine, of somebody's trigger
    "34": Fault.LATER,  # cursor name
    "38": Fault.TABLE,  # external routine
    "39": Fault.TABLE,  # external routine invocation, trigger protocol
    "3B": Fault.LATER,  # savepoint
    "3D": Fault.LATER,  # no such database
    "3F": Fault.TABLE,  # no such schema
    "40": Fault.LATER,  # rollback: serialization, deadlock
    "42": Fault.TABLE,  # missing table, column or right
    "44": Fault.ROW,  # check option
    "53": Fault.LATER,  # out of disk, memory, connections
    "54": Fault.TABLE,  # program limit: rows are all of one size
    "55": Fault.LATER,  # lock not available
    "57": Fault.LATER,  # shutdown, crash, cancel
    "58": Fault.LATER,  # input/output
    "72": Fault.LATER,  # snapshot too old, up to PostgreSQL 16
    "F0": Fault.LATER,  # configuration file
    "HV": Fault.TABLE,  # foreign data wrapper: the far end of a foreign partition
    "IO": Fault.TABLE,  # TimescaleDB
    "P0": Fault.ROW,  # PL/pgSQL: somebody's trigger raises
    "TS": Fault.TABLE,  # TimescaleDB
    "XX": Fault.ROW,  # internal error: may well be a row's doing
}
_CHUNK: Final = re.compile(r'"_hyper_\d+_\d+_chunk"')
_STATES: Final[dict[str, Fault]] = {
    "XX001": Fault.LATER,  # damaged data
    "XX002": Fault.LATER,  # damaged index: an operator's case, like the line before
}


def fault_of(error: psycopg.Error) -> Fault:
    """Whose doing it is. Without a SQLSTATE the server did not say it: the connection broke."""
    state = error.sqlstate
    if state is None:
        return Fault.LATER
    return _STATES.get(state) or _CLASSES.get(state[:2], Fault.ROW)


def is_for_later(error: psycopg.Error) -> bool:
    """Whether the error says nothing against any row or table."""
    return fault_of(error) is Fault.LATER


def in_words(error: psycopg.Error) -> str:
    """Code and first line of a refusal: the others quote the row."""
    return in_full(error).split("\n")[0]


def in_full(error: psycopg.Error) -> str:
    """Code and text of a refusal, alike for like faults: a chunk that TimescaleDB makes for a row
    that is refused goes with it, and the next one has another number.
    """
    return f"{error.sqlstate}: {_CHUNK.sub('(a chunk)', str(error).strip())}"
