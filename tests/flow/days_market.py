"""Thirty days of a small market: rows as integers, as records for a writer, and as their bars.

Whatever the product turns into integers begins here as integers, so nothing of the product is
needed to say what a table, a lake and a bar must hold.
"""

from collections import Counter
from collections.abc import Iterable
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from engine.base.clock import DAY_NS
from engine.data.flags import Flag
from engine.data.instrument import Instrument
from engine.data.kind import FLAGS, TIME, Kind, RecordArray
from engine.data.kinds import KINDS
from engine.data.names import StreamKey, StreamKind
from engine.data.slots import Slots

Row = tuple[Any, ...]
Ints = npt.NDArray[np.int64]

FIRST_DAY: Final = 20_000 - 30
"""2024-09-04, in days since 1970."""
DAYS: Final = 30
HOUR_NS: Final = 3_600_000_000_000
VENUES: Final = ("acme", "zeta")
SYMBOLS: Final = ("BTC", "币安")
TABLES: Final = tuple(kind.name for kind in KINDS.values() if kind.columns)
_STREAM_OF: Final = {
    "trade": StreamKind.TRADES,
    "book": StreamKind.L2_BOOK,
    "quote": StreamKind.TICKER,
    "funding": StreamKind.FUNDING,
    "open_interest": StreamKind.OPEN_INTEREST,
    "liquidation": StreamKind.LIQUIDATIONS,
    "gap": StreamKind.TRADES,
}
RATES: Final = {
    "trade": 600, "book": 500, "quote": 200, "funding": 8, "open_interest": 8, "liquidation": 6,
    "gap": 2,
}  # fmt: skip
"""Rows an hour."""
_DECIMALS: Final = {
    "price": 2, "bid": 2, "ask": 2, "qty": 3, "bid_qty": 3, "ask_qty": 3, "filled_qty": 3,
    "avg_price": 8, "mark": 8, "index": 8, "rate": 12,
}  # fmt: skip
_SIDES: Final = {"trade": b"BS", "liquidation": b"BS", "book": b"ba"}


def day_of(time_ns: int) -> int:
    """Since the first of the thirty."""
    return time_ns // DAY_NS - FIRST_DAY


def streams(slots: Slots) -> dict[int, tuple[str, str]]:
    """Venue and symbol of each slot, two of each; all are known to `slots` then."""
    found = {}
    for venue in VENUES:
        for symbol in SYMBOLS:
            for kind in dict.fromkeys(_STREAM_OF.values()):
                slot = slots.assign(StreamKey(venue, symbol, kind)).slot
                slots.describe(slot, Instrument(venue, symbol, 2, 3, tick_size="0.01", status="on"))
                found[slot] = (venue, symbol)
    return found


class Market:
    """What happens, and all that ever happened."""

    def __init__(self, slots: Slots, seed: int) -> None:
        self._random = np.random.default_rng(seed)
        self._names = streams(slots)
        self._slots = {
            table: [slots.assign(StreamKey(v, s, kind)).slot for v in VENUES for s in SYMBOLS]
            for table, kind in _STREAM_OF.items()
        }
        self._next_id = 1
        self.sent: dict[str, list[Row]] = {table: [] for table in TABLES}
        """By table: (venue, symbol, time, ts_recv, flags, own columns) in integers."""

    def hour(self, table: str, start_ns: int, count: int | None = None) -> RecordArray:
        """Rows within an hour, in no order; as many as come in one unless said otherwise."""
        kind, count = KINDS[table], RATES[table] if count is None else count
        minutes = self._random.integers(0, 60, 8)
        time_ns = start_ns + self._random.choice(minutes, count) * 60_000_000_000
        time_ns += self._random.integers(0, 5_000_000, count) * 1_001
        values = {
            "ts_event": time_ns,
            "ts_recv": time_ns + self._random.integers(1, 50_000_000, count),
            "stream": self._random.choice(self._slots[table], count),
            "flags": np.full(count, int(Flag.FIRST_IN_EVENT | Flag.LAST_IN_EVENT)),
        }
        for column in kind.own_columns:
            values[column.source] = self._values(kind, column.source, time_ns)
        self._note(kind, values)
        rows = np.zeros(count, kind.dtype)
        for name, ints in values.items():
            decimals = _DECIMALS.get(name, 0)
            rows[name] = ints / 10**decimals if decimals else ints
        return rows

    def _values(self, kind: Kind, name: str, time_ns: Ints) -> Ints:
        count = len(time_ns)
        if name in _DECIMALS:
            return self._random.integers(1, 9_000_000, count)
        if name == "side":
            sides = np.frombuffer(_SIDES[kind.name], np.uint8)
            return self._random.choice(sides, count).astype(np.int64)
        if name in ("reason", "state"):
            return self._random.integers(1, 4, count)
        if name in ("next_ts", "from_ts", "to_ts"):
            return time_ns + 1_000
        if name == "interval_s":
            return np.full(count, 28_800)
        if name == "trade_id_hi":
            return np.zeros(count, np.int64)
        ids = np.arange(self._next_id, self._next_id + count)
        self._next_id += count
        return ids

    def _note(self, kind: Kind, values: dict[str, Ints]) -> None:
        names = ["ts_event", "ts_recv", *(["flags"] if FLAGS in kind.columns else [])]
        names += [column.source for column in kind.own_columns]
        lists = [values[name].tolist() for name in names]
        for slot, *rest in zip(values["stream"].tolist(), *lists, strict=True):
            self.sent[kind.name].append((*self._names[slot], *rest))


def select_rows(table: str) -> str:
    """The SQL that says of a table what `Market.sent` says."""
    kind = KINDS[table]
    own = [c for c in kind.columns if c not in TIME]
    own_sql = (f"t.{c.name}::int4" if c.pg_type == "char" else f"t.{c.name}" for c in own)
    return (
        "SELECT i.venue, i.symbol,"
        " (extract(epoch FROM t.time) * 1000000)::int8 * 1000 + t.time_sub_us, t.ts_recv,"
        f" {', '.join(own_sql)}"
        f" FROM {table} AS t JOIN stream AS s USING (stream_id) JOIN instrument AS i"
        " USING (instrument_id)"
    )


def bars(trades: Iterable[Row], width_ns: int) -> Counter[Row]:
    """What the bars must be: (venue, symbol, time in ns, open, high, low, close, volume, quote
    volume, buy volume, count), mantissas.
    """
    by_stream: dict[tuple[str, str], list[Row]] = {}
    for venue, symbol, *rest in trades:
        by_stream.setdefault((venue, symbol), []).append(tuple(rest))
    found: Counter[Row] = Counter()
    for name, rows in by_stream.items():
        # time, recv, flags, side, price, qty, trade_id_hi, trade_id
        table = np.array(rows, np.int64)
        table = table[np.lexsort((table[:, 7], table[:, 6], table[:, 0]))]
        buckets = table[:, 0] // width_ns * width_ns
        times, starts = np.unique(buckets, return_index=True)
        price, qty, is_buy = table[:, 4], table[:, 5], table[:, 3] == ord("B")
        last = np.append(starts[1:], len(table)) - 1
        columns = (
            times, price[starts], np.maximum.reduceat(price, starts),
            np.minimum.reduceat(price, starts), price[last], np.add.reduceat(qty, starts),
            np.add.reduceat(price * qty, starts), np.add.reduceat(qty * is_buy, starts),
            last - starts + 1,
        )  # fmt: skip
        for row in zip(*(column.tolist() for column in columns), strict=True):
            found[(*name, *row)] += 1
    return found
