"""Compares the database with the simulator's ledger: is everything there, once, and unchanged?

Fast path: for every stream and class of row, the row count, the sums of id, price and quantity,
and the count of one side must agree with the ledger. A row missing, doubled or altered changes at
least one of the five, and one scan of each table answers for millions of rows. Only classes that
disagree are compared row by row.

Classes of row
- `trade`: every trade sent, or withheld on purpose.
- `delta`: book changes, also those from before the first snapshot: they were received.
- `whole`: books that a venue pushes whole.
Snapshots fetched by REST are stored too, but asked for and not sent: they are counted apart.
Kinds that are few in rows (quotes, funding and the like) are in `control.proof.ledger_kinds`, what
was sent so that nobody can read it in `control.proof.ledger_unreadable`; a ledger that only has
sums of the others is compared in `control.proof.ledger_sums`.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from control.proof.ledger_kinds import check_kinds
from control.proof.ledger_sums import check_sums
from control.proof.ledger_unreadable import check_unreadable
from control.proof.verdict import Ints, Verdict, covered_by_gaps
from engine.database.session import PROOF, session
from shards.simulator.core.ledger import LedgerRows, Rows, read_ledger
from shards.simulator.core.ledger_sums import exact_sum
from shards.venues import VENUES

__all__ = ["LedgerCheck", "Sums", "Verdict"]

_STREAMS = """
    SELECT s.stream_id, i.venue, i.symbol, i.price_decimals, i.qty_decimals, s.kind
    FROM stream s JOIN instrument i USING (instrument_id)
"""
_TRADES = """
    SELECT stream_id, min(ts_recv), count(*), sum(trade_id), sum(price), sum(qty),
           count(*) FILTER (WHERE side = 'B')
    FROM trade GROUP BY stream_id
"""
_FIRST_RECV = "SELECT min(ts_recv) FROM trade"
_LEVELS = """
    SELECT stream_id, flags & 1, count(*), sum(seq), sum(price), sum(qty),
           count(*) FILTER (WHERE side = 'b')
    FROM book GROUP BY stream_id, flags & 1
"""
_TRADE_ROWS = """
    SELECT stream_id, trade_id, price, qty, ascii(side::text) FROM trade WHERE stream_id = ANY(%s)
"""
_LEVEL_ROWS = """
    SELECT stream_id, seq, price, qty, ascii(side::text) FROM book
    WHERE stream_id = ANY(%s) AND flags & 1 = %s
"""


class Sums(NamedTuple):
    """What a class of rows adds up to."""

    rows: int = 0
    ids: int = 0
    prices: int = 0
    quantities: int = 0
    buys: int = 0
    """Trades that bought, levels that bid."""

    def plus(self, other: "Sums") -> "Sums":
        """Both together."""
        return Sums(*(a + b for a, b in zip(self, other, strict=True)))

    def times(self, price_factor: int, qty_factor: int) -> "Sums":
        """The same numbers in smaller units."""
        return self._replace(
            prices=self.prices * price_factor, quantities=self.quantities * qty_factor
        )


class _Stream:
    """The versions of one stream, compared at the most decimals any of them has."""

    def __init__(self) -> None:
        self.decimals: dict[int, tuple[int, int]] = {}
        """(price, qty) by stream id."""

    @property
    def ids(self) -> list[int]:
        return list(self.decimals)

    @property
    def price_decimals(self) -> int:
        return max(price for price, _ in self.decimals.values())

    @property
    def qty_decimals(self) -> int:
        return max(qty for _, qty in self.decimals.values())

    def factors(self, number: int) -> tuple[int, int]:
        """What makes the mantissas of one version comparable."""
        price, qty = self.decimals[number]
        return 10 ** (self.price_decimals - price), 10 ** (self.qty_decimals - qty)


class LedgerCheck:
    """One comparison. `verdicts` holds the result by class."""

    def __init__(self, ledger_dir: Path, database_url: str) -> None:
        self.verdicts = {"trade": Verdict(), "delta": Verdict(), "whole": Verdict()}
        self.rest_snapshot_rows = 0
        self.first_recv_ns = 0
        self._ledger = read_ledger(ledger_dir)
        with session(database_url, PROOF) as self._connection:
            self._streams = self._read_streams()
            if self._ledger.sums is None:
                self._check_trades()
                self._check_levels()
                self.verdicts |= check_kinds(self._ledger, self._connection)
            else:
                self.verdicts |= check_kinds(self._ledger, self._connection, skipped=("quote",))
                self.verdicts |= check_sums(self._ledger, self._connection)
                found = self._connection.execute(_FIRST_RECV).fetchone()
                self.first_recv_ns = found[0] or 0 if found else 0
                self.rest_snapshot_rows = self._count_fetched()
            self.verdicts |= check_unreadable(self._ledger, self._connection)

    def _count_fetched(self) -> int:
        """Rows of books that came by REST, where a venue pushes changes alone."""
        changing = {
            number
            for (venue, _, _), stream in self._streams.items()
            if VENUES[venue].book_snapshot is not None
            for number in stream.ids
        }
        levels = self._connection.execute(_LEVELS)
        return sum(rows for number, snapshot, rows, *_ in levels if snapshot and number in changing)

    def _read_streams(self) -> dict[tuple[str, str, str], _Stream]:
        """Streams by venue, symbol and kind; instrument versions of one stream are merged."""
        streams: dict[tuple[str, str, str], _Stream] = {}
        for number, venue, symbol, price, qty, kind in self._connection.execute(_STREAMS):
            streams.setdefault((venue, symbol, kind), _Stream()).decimals[number] = price, qty
        return streams

    def _check_trades(self) -> None:
        stored: dict[int, Sums] = {}
        for number, first_recv_ns, *sums in self._connection.execute(_TRADES):
            stored[number] = Sums(*map(int, sums))
            self.first_recv_ns = min(first_recv_ns, self.first_recv_ns or first_recv_ns)
        rows = np.concatenate([self._ledger.trade, self._ledger.withheld])
        for venue, symbol, part in _by_symbol(self._ledger, rows):
            stream = self._streams.get((venue, symbol, "Trades"))
            sent = _sums(part, "trade_id", stream)
            have = _total(stored, stream)
            if sent == have:
                verdict = Verdict(sent=sent.rows, stored=have.rows)
            else:
                verdict = self._compare(part, "trade_id", stream, _TRADE_ROWS, ())
            self.verdicts["trade"].add(verdict)

    def _check_levels(self) -> None:
        stored: tuple[dict[int, Sums], dict[int, Sums]] = ({}, {})
        for number, snapshot, *sums in self._connection.execute(_LEVELS):
            stored[snapshot][number] = Sums(*map(int, sums))
        book = self._ledger.book
        whole = book["snapshot"] == 1
        for venue, symbol, part in _by_symbol(self._ledger, book[whole]):
            self._check_class("whole", (venue, symbol), part, stored[1])
        for venue, symbol, part in _by_symbol(self._ledger, book[~whole]):
            stream = self._streams.get((venue, symbol, "L2Book"))
            ids = stream.ids if stream else []
            self._check_class("delta", (venue, symbol), part, stored[0])
            self.rest_snapshot_rows += sum(
                stored[1][number].rows for number in ids if number in stored[1]
            )

    def _check_class(
        self, name: str, instrument: tuple[str, str], part: Rows, stored: dict[int, Sums]
    ) -> None:
        stream = self._streams.get((*instrument, "L2Book"))
        sent, have = _sums(part, "seq", stream), _total(stored, stream)
        if sent == have:
            verdict = Verdict(sent=sent.rows, stored=have.rows)
        else:
            verdict = self._compare(part, "seq", stream, _LEVEL_ROWS, (int(name == "whole"),))
        self.verdicts[name].add(verdict)

    def _compare(
        self, part: Rows, id_field: str, stream: _Stream | None, query: str, extra: tuple[int, ...]
    ) -> Verdict:
        """Row by row. A row that is not stored is declared when a gap of its stream covers it."""
        if stream is None:
            return Verdict(sent=len(part), missing=len(part))
        sent = _fields(part, id_field, stream)
        numbered = np.array(
            self._connection.execute(query, (stream.ids, *extra)).fetchall(), dtype=np.int64
        ).reshape(-1, 1 + sent.shape[1])
        numbers, have = numbered[:, 0], numbered[:, 1:]
        for number in stream.ids:
            have[numbers == number, 1:3] *= stream.factors(number)
        distinct = np.unique(have, axis=0)
        sent_keys, stored_keys = _keys(np.unique(sent, axis=0)), _keys(distinct)
        lost = ~np.isin(sent_keys, stored_keys)
        lost_rows = part[np.isin(_keys(sent), sent_keys[lost])]
        ids, ts_event = lost_rows[id_field], lost_rows["ts_event"]
        declared = int(covered_by_gaps(self._connection, stream.ids, ids, ts_event).sum())
        return Verdict(
            sent=len(part),
            stored=int((~lost).sum()),
            duplicates=len(have) - len(distinct),
            missing=len(lost_rows) - declared,
            declared_missing=declared,
            altered=int((~np.isin(stored_keys, sent_keys)).sum()),
        )


def _by_symbol(ledger: LedgerRows, rows: Rows) -> Iterator[tuple[str, str, Rows]]:
    """Split rows by instrument, sorting once."""
    if not len(rows):
        return
    order = np.argsort(rows["symbol"], kind="stable")
    ordered = rows[order]
    numbers, starts = np.unique(ordered["symbol"], return_index=True)
    for number, part in zip(numbers, np.split(ordered, starts[1:]), strict=True):
        venue, symbol = ledger.symbols[int(number)]
        yield venue, symbol, part


def _fields(part: Rows, id_field: str, stream: _Stream) -> Ints:
    """Id, price, quantity and side, numbers as the database has them."""
    columns: list[Ints] = [
        part[id_field].astype(np.int64),
        _scaled(part["price_mantissa"], part["price_decimals"], stream.price_decimals),
        _scaled(part["qty_mantissa"], part["qty_decimals"], stream.qty_decimals),
        part["side"].astype(np.int64),
    ]
    return np.stack(columns, axis=1)


def _sums(part: Rows, id_field: str, stream: _Stream | None) -> Sums:
    if stream is None or not len(part):
        return Sums(rows=len(part))
    fields = _fields(part, id_field, stream)
    buys = int(np.isin(part["side"], (ord("B"), ord("b"))).sum())
    ids, prices, quantities = (exact_sum(fields[:, column]) for column in range(3))
    return Sums(len(part), ids, prices, quantities, buys)


def _scaled(mantissa: Ints, decimals: npt.NDArray[np.uint8], wanted: int) -> Ints:
    """Mantissas at `wanted` decimals. Digits the database could not hold would show as altered."""
    shift = wanted - decimals.astype(np.int64)
    scaled: Ints = mantissa * 10 ** np.maximum(shift, 0) // 10 ** np.maximum(-shift, 0)
    return scaled


def _keys(rows: Ints) -> npt.NDArray[np.void]:
    """Rows as single comparable values."""
    whole = np.ascontiguousarray(rows)
    return whole.view(np.dtype((np.void, whole.dtype.itemsize * whole.shape[1]))).ravel()


def _total(stored: dict[int, Sums], stream: _Stream | None) -> Sums:
    total = Sums()
    if stream is not None:
        for number in stream.ids:
            total = total.plus(stored.get(number, Sums()).times(*stream.factors(number)))
    return total
