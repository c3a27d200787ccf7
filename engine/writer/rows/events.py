"""Records as the JSON that readers of live rows get: arrays of events, numbers as shortest floats.

Built per stream from whole columns (`tolist`), so that Python touches each event once.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any, Final

import msgspec
import numpy as np
import numpy.typing as npt

from engine.data.kinds import Flag, GapReason, GapState, RecordArray, RecordKind, Side

_SIDE_NAMES: Final = {int(Side.BUY): "buy", int(Side.SELL): "sell"}
_REASON_NAMES: Final = {int(reason): reason.name.lower() for reason in GapReason}
_STATE_NAMES: Final = {int(state): state.name.lower() for state in GapState}
_UINT64: Final = (1 << 64) - 1

encode: Final = msgspec.json.Encoder().encode


class TradeJson(msgspec.Struct, gc=False):
    """One trade. `id` is a string where the venue's ids are UUIDs; times are ns since 1970."""

    id: int | str
    time: int
    recv: int
    side: str | None
    price: float
    qty: float


class BookJson(msgspec.Struct, omit_defaults=True):
    """One event of the venue. Where a flush cut it in two, the parts say so: `more` on the first,
    `continued` on the second."""

    seq: int
    prev_seq: int
    time: int
    recv: int
    snapshot: bool
    bids: list[list[float]]
    asks: list[list[float]]
    more: bool = False
    continued: bool = False


class QuoteJson(msgspec.Struct, gc=False):
    """Best bid and offer; null where that side of the book is empty."""

    seq: int
    time: int
    recv: int
    bid: float | None
    bid_qty: float | None
    ask: float | None
    ask_qty: float | None


class FundingJson(msgspec.Struct, gc=False, omit_defaults=True):
    """A funding rate with mark and index price; null where the venue does not tell. `inexact` is
    there, and true, where the venue wrote more digits than these.
    """

    time: int
    recv: int
    rate: float | None
    mark: float | None
    index: float | None
    next_time: int | None
    interval_s: int | None
    inexact: bool = False


class OpenInterestJson(msgspec.Struct, gc=False, omit_defaults=True):
    """Open interest, in the venue's unit; `inexact` as of a FundingJson."""

    time: int
    recv: int
    qty: float
    inexact: bool = False


class LiquidationJson(msgspec.Struct, gc=False, omit_defaults=True):
    """A liquidation order; `side` is the order's, so `sell` closed a long. `avg_price` is null
    while nothing of it has been filled; `inexact` as of a FundingJson.
    """

    time: int
    recv: int
    side: str | None
    price: float
    avg_price: float | None
    qty: float
    filled_qty: float
    inexact: bool = False


class GapJson(msgspec.Struct):
    """One gap of the ledger."""

    venue: str
    symbol: str
    kind: str
    time: int
    reason: str
    state: str
    from_seq: int
    to_seq: int
    from_time: int
    to_time: int
    missing: int


def by_stream(records: RecordArray) -> Iterator[tuple[int, RecordArray]]:
    """(slot, its rows in order) for every slot in `records`."""
    slots = records["stream"]
    order = np.argsort(slots, kind="stable")
    grouped = records[order]
    starts = np.flatnonzero(np.diff(grouped["stream"], prepend=np.uint32(~grouped["stream"][0])))
    bounds = [*starts.tolist(), len(grouped)]
    for start, stop in pairwise(bounds):
        yield int(grouped["stream"][start]), grouped[start:stop]


def trade_events(rows: RecordArray) -> list[TradeJson]:
    """One event a row, of one stream."""
    ids: Sequence[int | str] = rows["trade_id"].tolist()
    if rows["trade_id_hi"].any():
        ids = list(map(_wide_id, rows["trade_id_hi"].tolist(), ids))
    return list(
        map(
            TradeJson,
            ids,
            rows["ts_event"].tolist(),
            rows["ts_recv"].tolist(),
            map(_SIDE_NAMES.get, rows["side"].tolist()),
            rows["price"].tolist(),
            rows["qty"].tolist(),
        )
    )


def book_events(rows: RecordArray) -> list[BookJson]:
    """One event for each venue event, of one stream."""
    flags = rows["flags"]
    is_first = (flags & int(Flag.FIRST_IN_EVENT)) != 0
    continued = not is_first[0]
    is_first[0] = True
    starts = np.flatnonzero(is_first)
    event_of_row = np.cumsum(is_first) - 1
    bids = _levels(rows, event_of_row, Side.BID, len(starts))
    asks = _levels(rows, event_of_row, Side.ASK, len(starts))
    heads = rows[starts]
    events = list(
        map(
            BookJson,
            heads["seq"].tolist(),
            heads["prev_seq"].tolist(),
            heads["ts_event"].tolist(),
            heads["ts_recv"].tolist(),
            ((heads["flags"] & int(Flag.SNAPSHOT)) != 0).tolist(),
            bids,
            asks,
        )
    )
    events[0].continued = bool(continued)
    events[-1].more = not flags[-1] & int(Flag.LAST_IN_EVENT)
    return events


def quote_events(rows: RecordArray) -> list[QuoteJson]:
    """One event a row, of one stream."""
    sides = []
    for side in ("bid", "ask"):
        present = (rows[side] != 0).tolist()
        for name in (side, f"{side}_qty"):
            values = rows[name].tolist()
            sides.append([v if p else None for v, p in zip(values, present, strict=True)])
    times = (rows[name].tolist() for name in ("seq", "ts_event", "ts_recv"))
    return list(map(QuoteJson, *times, *sides))


def funding_events(rows: RecordArray) -> list[FundingJson]:
    """One event a row, of one stream."""
    return [
        FundingJson(
            time=int(row["ts_event"]),
            recv=int(row["ts_recv"]),
            rate=None if row["flags"] & int(Flag.NO_RATE) else float(row["rate"]),
            mark=float(row["mark"]) or None,
            index=float(row["index"]) or None,
            next_time=int(row["next_ts"]) or None,
            interval_s=int(row["interval_s"]) or None,
            inexact=bool(row["flags"] & int(Flag.INEXACT)),
        )
        for row in rows
    ]


def open_interest_events(rows: RecordArray) -> list[OpenInterestJson]:
    """One event a row, of one stream."""
    columns = (rows[name].tolist() for name in ("ts_event", "ts_recv", "qty"))
    return list(map(OpenInterestJson, *columns, _inexact(rows)))


def _inexact(rows: RecordArray) -> list[bool]:
    flagged: list[bool] = ((rows["flags"] & int(Flag.INEXACT)) != 0).tolist()
    return flagged


def liquidation_events(rows: RecordArray) -> list[LiquidationJson]:
    """One event a row, of one stream."""
    return list(
        map(
            LiquidationJson,
            rows["ts_event"].tolist(),
            rows["ts_recv"].tolist(),
            map(_SIDE_NAMES.get, rows["side"].tolist()),
            rows["price"].tolist(),
            [average or None for average in rows["avg_price"].tolist()],
            *(rows[name].tolist() for name in ("qty", "filled_qty")),
            _inexact(rows),
        )
    )


EVENTS: Final[dict[RecordKind, tuple[str, Callable[[RecordArray], Sequence[Any]]]]] = {
    RecordKind.TRADE: ("trades", trade_events),
    RecordKind.BOOK: ("book", book_events),
    RecordKind.QUOTE: ("quotes", quote_events),
    RecordKind.FUNDING: ("funding", funding_events),
    RecordKind.OPEN_INTEREST: ("open_interest", open_interest_events),
    RecordKind.LIQUIDATION: ("liquidations", liquidation_events),
}
"""(word in the key, rows to events) of every kind that is published per instrument."""


def gap_events(rows: RecordArray, venue: str, symbol: str, kind: str) -> list[GapJson]:
    """One event a row, of one stream."""
    return [
        GapJson(
            venue=venue,
            symbol=symbol,
            kind=kind,
            time=int(row["ts_event"]),
            reason=_REASON_NAMES.get(int(row["reason"]), str(row["reason"])),
            state=_STATE_NAMES.get(int(row["state"]), str(row["state"])),
            from_seq=int(row["from_seq"]),
            to_seq=int(row["to_seq"]),
            from_time=int(row["from_ts"]),
            to_time=int(row["to_ts"]),
            missing=int(row["missing"]),
        )
        for row in rows
    ]


def _levels(
    rows: RecordArray, event_of_row: npt.NDArray[np.int64], side: Side, event_count: int
) -> list[list[list[float]]]:
    """[[price, qty], ...] of one side, for each event."""
    chosen = rows["side"] == side
    pairs: list[list[float]] = np.column_stack(
        (rows["price"][chosen], rows["qty"][chosen])
    ).tolist()
    bounds: list[int] = np.searchsorted(event_of_row[chosen], np.arange(event_count + 1)).tolist()
    return [pairs[start:stop] for start, stop in pairwise(bounds)]


def _wide_id(high: int, low: Any) -> int | str:
    """A 128-bit id as the UUID it was; ids of 64 bits stay numbers."""
    if high == 0:
        return int(low)
    text = f"{high & _UINT64:016x}{low & _UINT64:016x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
