"""Compares every kind that has a view with the simulator's ledger, by value.

The database is read through its views, so what is compared is what a reader of them sees: exact
decimals under plain names, whatever units the tables count in. A kind whose view the database does
not have yet is left out. What a view should say follows from the kind's columns and the fields of
the same names in the ledger.

Pushed rows must be there as often as they were sent. Of what REST served, only what a polled stream
of the instrument exists for was asked for; it must be there at least once per instrument and venue
time. Two polls that met the same numbers are two honest samples of them, received at two times.
Where the venue states no time a row is known by its numbers alone.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from control.proof.ledger_intervals import count_wrong_intervals
from control.proof.ledger_sources import BySource, LedgerSource, by_source, settled
from control.proof.ledger_topics import WantedTopics
from control.proof.verdict import Connection, Ints, Verdict, covered_by_gaps
from engine.data.kind import Column, Kind
from engine.data.kinds import KINDS
from engine.data.names import StreamKind, Transport, carriers_of
from shards.simulator.core.ledger import NO_RATE, LedgerRows, Rows
from shards.venues import VENUES

__all__ = ["as_shown", "check_kinds"]

Values = tuple[object, ...]
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_STREAMS = """
    SELECT s.stream_id, i.venue, i.symbol, s.kind, s.transport
    FROM stream s JOIN instrument i USING (instrument_id) WHERE s.kind = ANY(%s)
"""

_WRONGLY_SETTLED = """
    SELECT i.venue, i.symbol, s.transport FROM funding_rates f JOIN stream s USING (stream_id)
        JOIN instrument i USING (instrument_id)
    WHERE f.settled <> (s.kind = 'SettledFunding')
"""


class _StreamName(NamedTuple):
    """One stream; a new version of its instrument gives it another id."""

    source: LedgerSource
    kind: StreamKind

    @property
    def has_venue_time(self) -> bool:
        """Whether its venue says when what it sends has happened."""
        return VENUES[self.source.venue].channels[self.kind, self.source.transport].has_venue_time

    @property
    def is_settled(self) -> bool:
        """Whether it brings what was paid: each payment once, however often it was asked for."""
        return self.kind is StreamKind.SETTLED_FUNDING


def check_kinds(
    ledger: LedgerRows, connection: Connection, skipped: Collection[str] = ()
) -> dict[str, BySource]:
    """Compare every kind the database has a view for, stream by stream."""
    verdicts = {}
    for name, kind in KINDS.items():
        if not kind.view or name in skipped:
            continue
        found = connection.execute("SELECT to_regclass(%s)", (kind.view,)).fetchone()
        rows = ledger.of(name)
        if rows is not None and found is not None and found[0] is not None:
            verdicts[name] = _check_kind(kind, rows, ledger, connection)
    if "funding" in verdicts:
        wrong = count_wrong_intervals(ledger, connection) + _count_wrongly_settled(connection)
        for source, count in wrong.items():
            verdicts["funding"].setdefault(source, Verdict()).altered += count
    return verdicts


def _count_wrongly_settled(connection: Connection) -> Counter[LedgerSource]:
    """By stream, the rows that say they were paid and were not, or the other way."""
    return Counter(
        LedgerSource(venue, symbol, Transport(transport))
        for venue, symbol, transport in connection.execute(_WRONGLY_SETTLED)
    )


def _check_kind(kind: Kind, rows: Rows, ledger: LedgerRows, connection: Connection) -> BySource:
    found = defaultdict[LedgerSource, Verdict](Verdict)
    streams = _streams(kind, connection)
    sent, paid = dict(by_source(ledger, rows)), dict(settled(ledger, rows))
    stored = _stored(kind, connection)
    for name, ids in streams.items():
        part = (paid if name.is_settled else sent).get(name.source, rows[:0])
        have = [row for number in ids for row in stored.get(number, ())]
        covered = partial(covered_by_gaps, connection, ids)
        found[name.source].add(_compare(kind, name, part, have, covered))
    asked, wanted = {name.source for name in streams}, WantedTopics(connection)
    for source, part in sent.items():
        # Pushed because somebody subscribed, and yet there is no such stream.
        is_owed = source.transport is Transport.WS and not wanted.has_not(kind.name, source)
        if source not in asked and is_owed:
            found[source].add(Verdict(sent=len(part), missing=len(part)))
    return dict(found)


def _streams(kind: Kind, connection: Connection) -> Mapping[_StreamName, list[int]]:
    streams: dict[_StreamName, list[int]] = {}
    names = [each.value for each in carriers_of(kind.name)]
    for number, venue, symbol, name, transport in connection.execute(_STREAMS, (names,)):
        source = LedgerSource(venue, symbol, Transport(transport))
        streams.setdefault(_StreamName(source, StreamKind(name)), []).append(number)
    return streams


def _stored(kind: Kind, connection: Connection) -> Mapping[int, list[Values]]:
    """All rows by stream id, read once: the tables have no index on streams. The first value is
    when each was received.
    """
    stored: dict[int, list[Values]] = {}
    columns = f"recv_time, time, {kind.view_values}"
    query = f"SELECT stream_id, {columns} FROM {kind.view}"  # noqa: S608 - constants
    for number, *values in connection.execute(query):
        stored.setdefault(number, []).append(tuple(values))
    return stored


def as_shown(kind: Kind, part: Rows) -> list[Values]:
    """What the view should say of each ledger row: its time, and what else the ledger knows."""
    names = part.dtype.names or ()
    known = [c for c in kind.own_columns if {c.source, f"{c.source}_mantissa"} & {*names}]
    times = map(_time, part["ts_event"].tolist())
    return list(zip(times, *(_values(column, part) for column in known), strict=True))


def _values(column: Column, part: Rows) -> Sequence[object]:
    name = column.source
    values: Sequence[object]
    if column.transform in ("price", "qty", "fixed"):
        unit = "qty" if column.transform == "qty" else "price"
        places = name if f"{name}_decimals" in (part.dtype.names or ()) else unit
        numbers = zip(
            part[f"{name}_mantissa"].tolist(), part[f"{places}_decimals"].tolist(), strict=True
        )
        values = [
            None if decimals == NO_RATE else Decimal(mantissa).scaleb(-decimals)
            for mantissa, decimals in numbers
        ]
    else:
        values = [_SHOWN.get(name, int)(value) for value in part[name].tolist()]
    return [value or None for value in values] if column.zero_is_absent else values


def _time(ns: int) -> datetime | None:
    return _EPOCH + timedelta(microseconds=ns // 1000) if ns else None


_SHOWN: Mapping[str, Callable[[int], object]] = {
    "side": lambda side: "buy" if side == ord("B") else "sell",
    "next_ts": _time,
}
"""How views show fields that are no numbers."""

Covered = Callable[[Ints, Ints], npt.NDArray[np.bool_]]
"""(update ids, venue times in ns) of rows to whether a gap declares each missing."""


def _compare(
    kind: Kind, name: _StreamName, part: Rows, stored: list[Values], covered: Covered
) -> Verdict:
    """Count both sides' rows by what they say."""
    is_polled = name.source.transport is Transport.HTTP_POLL and not name.is_settled
    said = as_shown(kind, part)
    received = len(stored)
    if is_polled:
        stored = list(set(stored))
    doubled = received - len(stored)
    stored = [row[1:] for row in stored]
    if not name.has_venue_time:
        said, stored = [row[1:] for row in said], [row[1:] for row in stored]
    if is_polled:
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


def _declared(
    kind: Kind, part: Rows, said: Sequence[Values], lost: Counter[Values], covered: Covered
) -> int:
    """Count the lost rows a gap of their stream covers."""
    has_ids = kind.id_field != "ts_event"
    seqs: Ints = part[kind.id_field] if has_ids else np.zeros(len(part), np.int64)
    are_covered = covered(seqs, part["ts_event"]).tolist()
    declared = Counter(row for row, yes in zip(said, are_covered, strict=True) if yes)
    return (declared & lost).total()
