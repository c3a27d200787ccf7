"""What the system moves: the record kinds, declared once.

Ring layout, journal header, COPY payload, Redis payload and the tables in `sql/` all follow from
the declarations in this module. Times are int64 nanoseconds since 1970 UTC; prices and quantities
are float64 here and exact integer mantissas in the database (`engine.writer.rows.exact` proves it).

Trade, 56 bytes      stream u4 | flags u2 | side u1 | - | ts_event i8 | ts_recv i8
                     | trade_id_hi i8 | trade_id i8 | price f8 | qty f8
Book level, 56 bytes stream u4 | flags u2 | side u1 | - | ts_event i8 | ts_recv i8
                     | seq i8 | prev_seq i8 | price f8 | qty f8
Quote, 64 bytes      stream u4 | flags u2 | - - | ts_event i8 | ts_recv i8 | seq i8
                     | bid f8 | bid_qty f8 | ask f8 | ask_qty f8
Funding, 64 bytes    stream u4 | flags u2 | - - | ts_event i8 | ts_recv i8
                     | rate f8 | mark f8 | index f8 | next_ts i8 | interval_s u4 | - - - -
Open interest, 32    stream u4 | flags u2 | - - | ts_event i8 | ts_recv i8 | qty f8
Liquidation, 56      stream u4 | flags u2 | side u1 | - | ts_event i8 | ts_recv i8
                     | price f8 | avg_price f8 | qty f8 | filled_qty f8
Gap, 64 bytes        stream u4 | flags u2 | reason u1 | state u1 | ts_event i8 | ts_recv i8
                     | from_seq i8 | to_seq i8 | from_ts i8 | to_ts i8 | missing i8
Coverage, 48 bytes   stream u4 | flags u2 | mark u1 | end u1 | ts_event i8 | ts_recv i8
                     | carrier i8 | at i8 | since i8

A quote's side without an order has price and quantity 0. A funding row's `index` is the venue's
index or oracle price; `next_ts` and `interval_s` are 0 where its message does not tell them, and a
contract that pays no funding has `rate` 0 and the flag NO_RATE.

What is traded has the instrument's decimals. Rates, mark and index prices and average prices are
computed by the venue and have more; so that a mark price cannot raise the decimals of every trade,
their columns have fixed exponents (RATE_DECIMALS, MARK_DECIMALS), proven row by row like any other.
"""

import enum
import hashlib
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

LAYOUT_VERSION = 1
"""Part of every fingerprint: raise it when a field keeps its name and changes its meaning."""

RecordArray = npt.NDArray[np.void]


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


class RecordKind(enum.StrEnum):
    """Kinds of record; the value is the table's name."""

    TRADE = "trade"
    BOOK = "book"
    QUOTE = "quote"
    FUNDING = "funding"
    OPEN_INTEREST = "open_interest"
    LIQUIDATION = "liquidation"
    GAP = "gap"
    COVERAGE = "coverage"
    """No rows of a table, but what the writer keeps table `coverage` with."""


NOT_MARKET_DATA = frozenset({RecordKind.GAP, RecordKind.COVERAGE})
"""What is said about rows, and counted apart from them."""

RATE_DECIMALS = 12
"""Of funding rates; venues send 8 to 10. Rates below 4503 are proven."""
MARK_DECIMALS = 8
"""Of mark, index and average prices; venues send up to 8. Prices below 45 million are proven."""

Transform = Literal["copy", "stream", "time_us", "sub_us", "price", "qty", "fixed", "flags"]
PgType = Literal["int8", "int4", "int2", "char", "timestamptz"]


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table and where its value comes from.

    `transform`: `copy` takes the field as it is; `stream` maps the slot to the database's stream
    id; `time_us` turns nanoseconds into PostgreSQL's microseconds since 2000 and `sub_us` keeps
    the remaining 0-999 ns; `price` and `qty` become exact mantissas with the instrument's decimals,
    `fixed` ones with `decimals`; `flags` gains `INEXACT` where the proof of exactness failed.
    """

    name: str
    pg_type: PgType
    source: str
    transform: Transform = "copy"
    decimals: int = 0


@dataclass(frozen=True, slots=True)
class RecordSpec:
    """Everything the rest of the system needs to know of one kind of record."""

    kind: RecordKind
    dtype: np.dtype[np.void]
    columns: tuple[Column, ...]
    """None where the records are no rows of a table."""
    id_field: str
    """Field that orders the rows of a stream: trade id or sequence."""

    @property
    def table(self) -> str:
        """Name of the table."""
        return self.kind.value

    @property
    def fingerprint(self) -> bytes:
        """16 bytes that change with any change of the layout."""
        text = f"{LAYOUT_VERSION}:{self.kind.value}:{np.lib.format.dtype_to_descr(self.dtype)}"
        return hashlib.blake2b(text.encode(), digest_size=16).digest()


_TIME = (
    Column("time", "timestamptz", "ts_event", "time_us"),
    Column("time_sub_us", "int2", "ts_event", "sub_us"),
    Column("ts_recv", "int8", "ts_recv"),
    Column("stream_id", "int4", "stream", "stream"),
)
_LEVEL = (
    Column("price", "int8", "price", "price"),
    Column("qty", "int8", "qty", "qty"),
)

TRADE = RecordSpec(
    RecordKind.TRADE,
    np.dtype(
        [
            ("stream", "<u4"), ("flags", "<u2"), ("side", "u1"), ("_pad", "u1"),
            ("ts_event", "<i8"), ("ts_recv", "<i8"), ("trade_id_hi", "<i8"), ("trade_id", "<i8"),
            ("price", "<f8"), ("qty", "<f8"),
        ]
    ),
    (
        *_TIME,
        Column("flags", "int2", "flags", "flags"),
        Column("side", "char", "side"),
        *_LEVEL,
        Column("trade_id_hi", "int8", "trade_id_hi"),
        Column("trade_id", "int8", "trade_id"),
    ),
    id_field="trade_id",
)  # fmt: skip

BOOK = RecordSpec(
    RecordKind.BOOK,
    np.dtype(
        [
            ("stream", "<u4"), ("flags", "<u2"), ("side", "u1"), ("_pad", "u1"),
            ("ts_event", "<i8"), ("ts_recv", "<i8"), ("seq", "<i8"), ("prev_seq", "<i8"),
            ("price", "<f8"), ("qty", "<f8"),
        ]
    ),
    (
        *_TIME,
        Column("flags", "int2", "flags", "flags"),
        Column("side", "char", "side"),
        *_LEVEL,
        Column("seq", "int8", "seq"),
        Column("prev_seq", "int8", "prev_seq"),
    ),
    id_field="seq",
)  # fmt: skip

QUOTE = RecordSpec(
    RecordKind.QUOTE,
    np.dtype(
        [
            ("stream", "<u4"), ("flags", "<u2"), ("_pad", "<u2"), ("ts_event", "<i8"),
            ("ts_recv", "<i8"), ("seq", "<i8"), ("bid", "<f8"), ("bid_qty", "<f8"),
            ("ask", "<f8"), ("ask_qty", "<f8"),
        ]
    ),
    (
        *_TIME,
        Column("flags", "int2", "flags", "flags"),
        Column("seq", "int8", "seq"),
        Column("bid", "int8", "bid", "price"),
        Column("bid_qty", "int8", "bid_qty", "qty"),
        Column("ask", "int8", "ask", "price"),
        Column("ask_qty", "int8", "ask_qty", "qty"),
    ),
    id_field="seq",
)  # fmt: skip

FUNDING = RecordSpec(
    RecordKind.FUNDING,
    np.dtype(
        [
            ("stream", "<u4"), ("flags", "<u2"), ("_pad", "<u2"), ("ts_event", "<i8"),
            ("ts_recv", "<i8"), ("rate", "<f8"), ("mark", "<f8"), ("index", "<f8"),
            ("next_ts", "<i8"), ("interval_s", "<u4"), ("_tail", "<u4"),
        ]
    ),
    (
        *_TIME,
        Column("flags", "int2", "flags", "flags"),
        Column("rate", "int8", "rate", "fixed", RATE_DECIMALS),
        Column("mark", "int8", "mark", "fixed", MARK_DECIMALS),
        Column("index", "int8", "index", "fixed", MARK_DECIMALS),
        Column("next_ts", "int8", "next_ts"),
        Column("interval_s", "int4", "interval_s"),
    ),
    id_field="ts_event",
)  # fmt: skip

OPEN_INTEREST = RecordSpec(
    RecordKind.OPEN_INTEREST,
    np.dtype(
        [
            ("stream", "<u4"), ("flags", "<u2"), ("_pad", "<u2"), ("ts_event", "<i8"),
            ("ts_recv", "<i8"), ("qty", "<f8"),
        ]
    ),
    (
        *_TIME,
        Column("flags", "int2", "flags", "flags"),
        Column("qty", "int8", "qty", "qty"),
    ),
    id_field="ts_event",
)  # fmt: skip

LIQUIDATION = RecordSpec(
    RecordKind.LIQUIDATION,
    np.dtype(
        [
            ("stream", "<u4"), ("flags", "<u2"), ("side", "u1"), ("_pad", "u1"),
            ("ts_event", "<i8"), ("ts_recv", "<i8"), ("price", "<f8"), ("avg_price", "<f8"),
            ("qty", "<f8"), ("filled_qty", "<f8"),
        ]
    ),
    (
        *_TIME,
        Column("flags", "int2", "flags", "flags"),
        Column("side", "char", "side"),
        Column("price", "int8", "price", "price"),
        Column("avg_price", "int8", "avg_price", "fixed", MARK_DECIMALS),
        Column("qty", "int8", "qty", "qty"),
        Column("filled_qty", "int8", "filled_qty", "qty"),
    ),
    id_field="ts_event",
)  # fmt: skip

GAP = RecordSpec(
    RecordKind.GAP,
    np.dtype(
        [
            ("stream", "<u4"), ("flags", "<u2"), ("reason", "u1"), ("state", "u1"),
            ("ts_event", "<i8"), ("ts_recv", "<i8"), ("from_seq", "<i8"), ("to_seq", "<i8"),
            ("from_ts", "<i8"), ("to_ts", "<i8"), ("missing", "<i8"),
        ]
    ),
    (
        *_TIME,
        Column("reason", "int2", "reason"),
        Column("state", "int2", "state"),
        Column("from_seq", "int8", "from_seq"),
        Column("to_seq", "int8", "to_seq"),
        Column("from_ts", "int8", "from_ts"),
        Column("to_ts", "int8", "to_ts"),
        Column("missing", "int8", "missing"),
    ),
    id_field="to_seq",
)  # fmt: skip

COVERAGE = RecordSpec(
    RecordKind.COVERAGE,
    np.dtype(
        [
            ("stream", "<u4"), ("flags", "<u2"), ("mark", "u1"), ("end", "u1"),
            ("ts_event", "<i8"), ("ts_recv", "<i8"), ("carrier", "<i8"), ("at", "<i8"),
            ("since", "<i8"),
        ]
    ),
    (),
    id_field="carrier",
)  # fmt: skip

SPECS: dict[RecordKind, RecordSpec] = {
    spec.kind: spec
    for spec in (TRADE, BOOK, QUOTE, FUNDING, OPEN_INTEREST, LIQUIDATION, GAP, COVERAGE)
}
