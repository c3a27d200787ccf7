"""Compares trades, books and quotes with the ledger by sums: is everything there, once, unchanged?

For every stream and class of row, the row count, the sums of id, price and quantity, and the count
of one side must agree with the ledger. A row missing, doubled or altered changes at least one of
them, and one scan of each table answers for millions of rows. Where sums disagree, a ledger of rows
is compared row by row (`control.proof.ledger_rows`). With one that has only sums, rows can but be
counted: what is missing is declared as far as gaps of the stream say how many, or that nobody knows
how many. To know which rows, run with a ledger of rows (`fts demo --for`).

Classes of row
- `trade`: every trade sent, or withheld on purpose.
- `delta`: book changes, also those from before the first snapshot: they were received.
- `whole`: books that a venue pushes whole.
- `quote`: of a ledger that has only sums; else they are compared by value.
"""

from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

from control.proof.ledger_rows import Decimals, Versions, compare_rows, rows_of
from control.proof.ledger_sources import BySource, LedgerSource
from control.proof.ledger_topics import WantedTopics
from control.proof.verdict import Connection, Verdict
from engine.data.kind import Kind
from engine.data.kinds import BOOK, QUOTE, TRADE
from engine.data.names import StreamKind, Transport, carriers_of
from shards.simulator.core.ledger import LedgerRows
from shards.simulator.core.ledger_sums import FIELDS, Numbers, SumsKey, Totals, added
from shards.venues import VENUES
from shards.venues.kit import Channel

__all__ = ["check_sums", "count_fetched"]

Sums = tuple[int, ...]
Here = tuple[str, str]
"""Venue and symbol."""
_STREAMS = """
    SELECT s.stream_id, i.venue, i.symbol, i.price_decimals, i.qty_decimals
    FROM stream s JOIN instrument i USING (instrument_id) WHERE s.kind = ANY(%s)
"""
_DECLARED = """
    SELECT coalesce(sum(missing) FILTER (WHERE missing > 0), 0),
           count(*) FILTER (WHERE coalesce(missing, -1) < 0)
    FROM gap WHERE stream_id = ANY(%s)
"""
_NO_ROWS = (0,)
_DECIMALS = 18
"""At which all numbers are compared, as Python's integers have no end."""


class _Class(NamedTuple):
    """Rows of a table that are added up together."""

    name: str
    kind: Kind
    where: str = "true"

    @property
    def query(self) -> str:
        """Their sums by stream id, as the ledger has them."""
        sums = ["count(*)", *(f"sum({name})" for name in self._summed)]
        if any(column.source == "side" for column in self.kind.columns):
            sums.append("count(*) FILTER (WHERE side IN ('B', 'b'))")
        return (
            f"SELECT stream_id, {', '.join(sums)} FROM {self.kind.name}"  # noqa: S608 - constants
            f" WHERE {self.where} GROUP BY 1"
        )

    @property
    def _summed(self) -> list[str]:
        return [name.removesuffix("_mantissa") for name in FIELDS[self.kind.name]]

    def scaled(self, sums: Iterable[int], decimals: Decimals) -> Sums:
        """Sums of mantissas in units that all versions of a stream share."""
        units = {column.source: column.transform for column in self.kind.columns}
        shifts = {"price": _DECIMALS - decimals.price, "qty": _DECIMALS - decimals.qty}
        factors = [10 ** shifts.get(units[name], 0) for name in self._summed]
        # Before them is the number of rows, and behind them may be how many buy.
        return tuple(map(int.__mul__, sums, (1, *factors, 1)))


CLASSES = (
    _Class("trade", TRADE),
    _Class("delta", BOOK, "flags & 1 = 0"),
    _Class("whole", BOOK, "flags & 1 = 1"),
    _Class("quote", QUOTE),
)


def check_sums(
    ledger: LedgerRows, connection: Connection, skipped: Collection[str] = ()
) -> dict[str, BySource]:
    """Compare every class, stream by stream."""
    totals = _totals(ledger) if ledger.sums is None else ledger.sums
    return {
        each.name: _check_class(each, totals, ledger, connection)
        for each in CLASSES
        if each.name not in skipped
    }


def _check_class(
    each: _Class, totals: Totals, ledger: LedgerRows, connection: Connection
) -> BySource:
    sent = _sent(each, totals, ledger)
    versions = _versions(each, connection)
    have = _have(each, versions, connection)
    found, wanted = BySource(), WantedTopics(connection)
    for here in sorted(sent.keys() | have.keys()):
        known = versions.get(here, {})
        pushed = LedgerSource(*here, Transport.WS)
        if not known and wanted.has_not(each.kind.name, pushed):
            continue
        ours, theirs = sent.get(here, _NO_ROWS), have.get(here, _NO_ROWS)
        if ours == theirs:
            found[pushed] = Verdict(sent=ours[0], stored=ours[0])
        elif ledger.sums is None:
            part = rows_of(ledger, each.name, here)
            may_repeat = each.name == "whole" and _is_pushed_before_changes(here)
            found[pushed] = compare_rows(
                each.kind, each.where, part, known, connection, may_repeat=may_repeat
            )
        else:
            found[pushed] = _counted(ours[0], theirs[0], list(known), connection)
    return found


def count_fetched(connection: Connection) -> int:
    """Rows of books that came by REST, where a venue pushes changes alone."""
    whole = CLASSES[2]
    stored = {number: rows for number, rows, *_ in connection.execute(whole.query)}
    fetched = (ids for here, ids in _versions(whole, connection).items() if _is_fetched(here))
    return sum(stored.get(number, 0) for ids in fetched for number in ids)


def _is_fetched(here: Here) -> bool:
    """Whether whole books of the venue are asked for by REST, and not sent."""
    return VENUES[here[0]].book_snapshot is not None


def _is_pushed_before_changes(here: Here) -> bool:
    """Whether a subscription begins with a whole book: on the socket that takes over, it repeats
    what the changes on the other one have said.
    """
    channel = VENUES[here[0]].channels.get((StreamKind.L2_BOOK, Transport.WS))
    return isinstance(channel, Channel) and channel.book is not None


def _totals(ledger: LedgerRows) -> Totals:
    """The sums of a ledger that has rows."""
    found: dict[SumsKey, Numbers] = {}
    for name in ("trade", "withheld", "book"):
        for key, sums in added(name, getattr(ledger, name)):
            found[key] = found.get(key, 0) + sums
    return {key: tuple(sums.tolist()) for key, sums in found.items()}


def _versions(each: _Class, connection: Connection) -> Mapping[Here, Versions]:
    """The streams that bring a class; versions of one instrument are merged."""
    found: dict[Here, dict[int, Decimals]] = {}
    names = [kind.value for kind in carriers_of(each.kind.name)]
    for number, venue, symbol, price, qty in connection.execute(_STREAMS, (names,)):
        found.setdefault((venue, symbol), {})[number] = Decimals(price, qty)
    return found


def _sent(each: _Class, totals: Totals, ledger: LedgerRows) -> dict[Here, Sums]:
    sent: dict[Here, Sums] = {}
    for key, sums in totals.items():
        if key.name == each.name:
            here = ledger.symbols[key.symbol]
            scaled = each.scaled(sums, Decimals(key.price_decimals, key.qty_decimals))
            sent[here] = _plus(sent.get(here), scaled)
    return sent


def _have(
    each: _Class, versions: Mapping[Here, Versions], connection: Connection
) -> dict[Here, Sums]:
    stored = {number: map(int, sums) for number, *sums in connection.execute(each.query)}
    have: dict[Here, Sums] = {}
    for here, known in versions.items():
        if each.name == "whole" and _is_fetched(here):
            continue
        for number in known.keys() & stored.keys():
            have[here] = _plus(have.get(here), each.scaled(stored[number], known[number]))
    return have


def _plus(one: Sums | None, other: Sums) -> Sums:
    return other if one is None else tuple(a + b for a, b in zip(one, other, strict=True))


def _counted(sent_rows: int, have_rows: int, ids: list[int], connection: Connection) -> Verdict:
    """What can be said when it is not known which rows were sent."""
    missing = max(sent_rows - have_rows, 0)
    declared = _declared(ids, connection, missing) if missing else 0
    return Verdict(
        sent=sent_rows,
        stored=min(have_rows, sent_rows),
        duplicates=max(have_rows - sent_rows, 0),
        missing=missing - declared,
        declared_missing=declared,
        altered=int(sent_rows == have_rows),
    )


def _declared(ids: list[int], connection: Connection, missing: int) -> int:
    found = connection.execute(_DECLARED, (ids,)).fetchone()
    known, unknown = found or (0, 0)
    return missing if unknown else min(missing, int(known))
