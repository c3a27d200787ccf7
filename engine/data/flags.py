"""Small numbers in records, each with its meaning: flags, sides, reasons, marks.

They are in rings, journals and tables: a number keeps its meaning for ever.
"""

import enum


class Flag(enum.IntFlag):
    """Bits of `flags`, in rings, journal and tables alike."""

    SNAPSHOT = 1
    FIRST_IN_EVENT = 2
    LAST_IN_EVENT = 4
    AFTER_GAP = 8
    BACKFILLED = 16
    """From the venue's replay of the recent past, not live: its age is no latency."""
    INEXACT = 32
    NO_RATE = 64
    """A funding row with prices only: the contract pays no funding."""
    SETTLED = 128
    """Funding that was paid, at the row's time, and no state of the market."""


class Side(enum.IntEnum):
    """One ASCII byte. Trades carry the taker's side, book levels the side of the book, liquidations
    the side of the order that closes the position (SELL: a long was liquidated)."""

    BUY = ord("B")
    SELL = ord("S")
    BID = ord("b")
    ASK = ord("a")
    NONE = ord("-")
    """Marker row of an event that holds no level: keeps the chain, or empties the book."""


class GapReason(enum.IntEnum):
    """Why rows are missing; the text of each is in table `gap_reason`."""

    SEQUENCE = 1
    """The venue's ids jumped on a live connection."""
    RECONNECT = 2
    """The ids jumped across a reconnect."""
    RESTART = 3
    """The ids jumped across a restart of the shard."""
    RING_FULL = 4
    """The writer was a whole ring behind; the newest records were dropped."""
    RESYNC = 5
    """A book's chain broke; the rows between the edges were never seen."""
    HISTORY_SHORT = 6
    """The venue has no ids, and its replayed history did not reach back to what we had."""
    RENUMBERED = 7
    """The venue's ids went back while its clock went on: it counts anew."""
    POLL_MISSED = 8
    """Polls failed, or had to wait, for longer than their interval: samples were never taken."""
    SILENCE = 9
    """A stream that comes at a steady pace did not come, on a live connection."""
    JOURNAL_LOSS = 10
    """Rows that were received are in neither ring nor journal, and the database has not had them:
    damage, or a database restored from a backup. Which streams had rows among them is unknown."""
    NOT_STORED = 11
    """Knob `db_writes_enabled` was off: the rows were received, and kept out of the database."""
    UNREADABLE = 12
    """The venue sent something for the stream that no row can be made of: refused, and counted."""
    QUARANTINED = 13
    """Received, and refused by the database or by what it could hold: kept in the quarantine."""
    STOPPED = 14
    """Nobody wanted the stream: it was removed, or the engine was stopped."""


class GapState(enum.IntEnum):
    """What can be said of a gap."""

    OPEN = 1
    REPAIRED = 2
    UNRECOVERABLE = 3
    UNPROVABLE = 4


class CoverageMark(enum.IntEnum):
    """What a coverage record says of its stream and its carrier (a socket, or a poller)."""

    BEGAN = 1
    """From `at` on (venue time) the stream is heard. What was missed since `since`, when it was
    heard before, is named by gaps (0: it never was)."""
    ENDED = 2
    """It was heard up to `at`; `end` says why it ended."""
    ALIVE = 3
    """Every stream that began on this carrier and has not ended is heard up to `at`."""


class CoverageEnd(enum.IntEnum):
    """Why an interval ended; the text of each is in table `coverage_end`."""

    STOPPED = 1
    """Nobody wanted the stream: it was removed, or the engine was stopped."""
    RECONNECT = 2
    """Its socket was lost."""
    HANDOVER = 3
    """Another socket goes on, and nothing is missing in between."""
    SILENCE = 4
    """What comes at a steady pace did not come, or polls were not answered."""
    FAILED = 5
    """It could not run any more."""
    RESYNC = 6
    """A book lost its chain and waits for a snapshot."""
    CRASH = 7
    """The process died; written by the writer, with the time of the carrier's last ALIVE."""
