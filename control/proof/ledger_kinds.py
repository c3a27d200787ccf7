"""Compares quotes, funding, open interest and liquidations with the simulator's ledger, by value.

The database is read through its views, so what is compared is what a reader of them sees: exact
decimals under plain names, whatever units the tables count in. A kind whose view the database does
not have yet is left out.

Pushed rows must be there as often as they were sent. Of what REST served, only what a polled stream
of the instrument exists for was asked for; it must be there at least once per instrument and venue
time. Two polls that met the same numbers are two honest samples of them, received at two times.
Where the venue states no time a row is known by its numbers alone.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from control.proof.ledger_intervals import count_wrong_intervals
from control.proof.verdict import Connection, Ints, Verdict, covered_by_gaps
from engine.data.slots import StreamKind, Transport
from engine.messages.status import KINDS_OF_STREAM
from shards.simulator.core.ledger import ASK_PRESENT, BID_PRESENT, LedgerRows, Rows
from shards.venues import VENUES

__all__ = ["KINDS", "LedgerKind", "check_kinds"]

Values = tuple[object, ...]
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_STREAMS = """
    SELECT s.stream_id, i.venue, i.symbol, s.kind, s.transport
    FROM stream s JOIN instrument i USING (instrument_id) WHERE s.kind = ANY(%s)
"""
_TRANSPORTS = (Transport.WS, Transport.HTTP_POLL)
"""By the ledger's `rest`."""


@dataclass(frozen=True, slots=True)
class LedgerKind:
    """One kind: its ledger file and table, its view, and how a ledger row reads in the view."""

    name: str
    view: str
    columns: str
    values: Callable[[Rows], Values]
    """What `columns` should say of one ledger row."""

    @property
    def stream_kinds(self) -> frozenset[StreamKind]:
        """The kinds of stream that produce it."""
        return frozenset(kind for kind, names in KINDS_OF_STREAM.items() if self.name in names)


def _number(row: Rows, name: str, decimals: str) -> Decimal:
    return Decimal(int(row[f"{name}_mantissa"])).scaleb(-int(row[f"{decimals}_decimals"]))


def _quote(row: Rows) -> Values:
    sides = int(row["sides"])
    numbers: list[Decimal | None] = []
    for name, present in (("bid", BID_PRESENT), ("ask", ASK_PRESENT)):
        shown = bool(sides & present)
        numbers.append(_number(row, name, "price") if shown else None)
        numbers.append(_number(row, f"{name}_qty", "qty") if shown else None)
    return int(row["seq"]), *numbers


def _funding(row: Rows) -> Values:
    next_ns = int(row["next_funding"])
    return (
        _number(row, "rate", "rate"),
        _number(row, "mark", "price"),
        _number(row, "index", "price"),
        _time(next_ns) if next_ns else None,
    )


def _open_interest(row: Rows) -> Values:
    return (_number(row, "value", "value"),)


def _liquidation(row: Rows) -> Values:
    return (
        "buy" if row["side"] == ord("B") else "sell",
        _number(row, "price", "price"),
        _number(row, "average", "price"),
        _number(row, "qty", "qty"),
        _number(row, "filled", "qty"),
    )


def _time(ns: int) -> datetime:
    return _EPOCH + timedelta(microseconds=ns // 1000)


KINDS = (
    LedgerKind(
        "quote",
        "quotes",
        "seq, bid, bid_quantity, ask, ask_quantity",
        _quote,
    ),
    LedgerKind(
        "funding",
        "funding_rates",
        "rate, mark_price, index_price, next_funding_time",
        _funding,
    ),
    LedgerKind(
        "open_interest",
        "open_interest_points",
        "quantity",
        _open_interest,
    ),
    LedgerKind(
        "liquidation",
        "liquidations",
        "side, price, average_price, quantity, filled_quantity",
        _liquidation,
    ),
)


class _Source(NamedTuple):
    """Where rows come from: what the ledger knows of a stream."""

    venue: str
    symbol: str
    transport: Transport


class _StreamName(NamedTuple):
    """One stream; a new version of its instrument gives it another id."""

    source: _Source
    kind: str


def check_kinds(
    ledger: LedgerRows, connection: Connection, skipped: Collection[str] = ()
) -> dict[str, Verdict]:
    """Compare every kind the database has a view for."""
    verdicts = {}
    for kind in KINDS:
        if kind.name in skipped:
            continue
        found = connection.execute("SELECT to_regclass(%s)", (kind.view,)).fetchone()
        if found is not None and found[0] is not None:
            verdicts[kind.name] = _check_kind(kind, ledger, connection)
    if "funding" in verdicts:
        verdicts["funding"].altered += count_wrong_intervals(ledger, connection)
    return verdicts


def _check_kind(kind: LedgerKind, ledger: LedgerRows, connection: Connection) -> Verdict:
    total = Verdict()
    streams = _streams(kind, connection)
    rows: Rows = getattr(ledger, kind.name)
    sent = dict(_by_source(ledger, rows))
    stored = _stored(kind, connection)
    for name, ids in streams.items():
        part = sent.get(name.source, rows[:0])
        have = [row for number in ids for row in stored.get(number, ())]
        covered = partial(covered_by_gaps, connection, ids)
        total.add(_compare(kind, name.source, part, have, covered))
    asked = {name.source for name in streams}
    for source, part in sent.items():
        # Pushed because somebody subscribed, and yet there is no such stream.
        if source not in asked and source.transport is Transport.WS:
            total.add(Verdict(sent=len(part), missing=len(part)))
    return total


def _streams(kind: LedgerKind, connection: Connection) -> Mapping[_StreamName, list[int]]:
    streams: dict[_StreamName, list[int]] = {}
    names = [each.value for each in kind.stream_kinds]
    for number, venue, symbol, name, transport in connection.execute(_STREAMS, (names,)):
        source = _Source(venue, symbol, Transport(transport))
        streams.setdefault(_StreamName(source, name), []).append(number)
    return streams


def _by_source(ledger: LedgerRows, rows: Rows) -> Iterator[tuple[_Source, Rows]]:
    rests = rows["rest"] if "rest" in (rows.dtype.names or ()) else np.zeros(len(rows), np.uint8)
    for rest, transport in enumerate(_TRANSPORTS):
        part = rows[rests == rest]
        for number in np.unique(part["symbol"]):
            venue, symbol = ledger.symbols[int(number)]
            yield _Source(venue, symbol, transport), part[part["symbol"] == number]


def _stored(kind: LedgerKind, connection: Connection) -> Mapping[int, list[Values]]:
    """All rows by stream id, read once: the tables have no index on streams. The first value is
    when each was received.
    """
    stored: dict[int, list[Values]] = {}
    columns = f"recv_time, time, {kind.columns}"
    query = f"SELECT stream_id, {columns} FROM {kind.view}"  # noqa: S608 - constants
    for number, *values in connection.execute(query):
        stored.setdefault(number, []).append(tuple(values))
    return stored


Covered = Callable[[Ints, Ints], npt.NDArray[np.bool_]]
"""(update ids, venue times in ns) of rows to whether a gap declares each missing."""


def _compare(
    kind: LedgerKind, source: _Source, part: Rows, stored: list[Values], covered: Covered
) -> Verdict:
    """Count both sides' rows by what they say."""
    times = [_time(ns) for ns in part["ts_event"].tolist()]
    said: list[Values] = [(at, *kind.values(row)) for at, row in zip(times, part, strict=True)]
    received = len(stored)
    if source.transport is Transport.HTTP_POLL:
        stored = list(set(stored))
    doubled = received - len(stored)
    stored = [row[1:] for row in stored]
    if not _has_venue_time(kind, source):
        said, stored = [row[1:] for row in said], [row[1:] for row in stored]
    if source.transport is Transport.HTTP_POLL:
        stored = list(set(stored))
        said_once = dict(zip(said, range(len(said)), strict=True))
        said, part = list(said_once), part[list(said_once.values())]
    sent, have = Counter(said), Counter(stored)
    lost, extra = sent - have, have - sent
    declared = _declared(kind, part, said, lost, covered) if lost else 0
    return Verdict(
        sent=sent.total(),
        stored=sent.total() - lost.total(),
        duplicates=doubled + sum(count for row, count in extra.items() if row in sent),
        missing=lost.total() - declared,
        declared_missing=declared,
        altered=sum(count for row, count in extra.items() if row not in sent),
    )


def _has_venue_time(kind: LedgerKind, source: _Source) -> bool:
    """Whether the venue says when the rows of a source are of."""
    channels = VENUES[source.venue].channels
    found = [channels.get((each, source.transport)) for each in kind.stream_kinds]
    return all(channel.has_venue_time for channel in found if channel is not None)


def _declared(
    kind: LedgerKind, part: Rows, said: Sequence[Values], lost: Counter[Values], covered: Covered
) -> int:
    """Count the lost rows a gap of their stream covers."""
    seqs: Ints = part["seq"] if kind.name == "quote" else np.zeros(len(part), np.int64)
    are_covered = covered(seqs, part["ts_event"]).tolist()
    declared = Counter(row for row, yes in zip(said, are_covered, strict=True) if yes)
    return (declared & lost).total()
