"""Compares the rows of one stream with those the ledger says were sent, one by one."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from control.proof.verdict import Connection, Ints, Verdict, covered_by_gaps
from engine.data.flags import CoverageEnd
from engine.data.kind import Kind
from shards.simulator.core.ledger import LedgerRows, Rows

__all__ = ["Decimals", "Versions", "compare_rows", "rows_of"]


_CHANGES = """
    SELECT DISTINCT seq FROM book WHERE stream_id = ANY(%s) AND seq = ANY(%s) AND flags & 1 = 0
"""
_HANDOVERS = 'SELECT ended FROM coverage WHERE stream_id = ANY(%s) AND "end" = %s'
_HANDOVER_NS = 40_000_000_000
"""The next socket has so long to join the present one, and a little more."""


class Decimals(NamedTuple):
    """Of an instrument's mantissas."""

    price: int
    qty: int


Versions = Mapping[int, Decimals]
"""The stream ids of one stream, which has a new one with every version of its instrument."""


def rows_of(ledger: LedgerRows, name: str, here: tuple[str, str]) -> Rows:
    """What was sent of one instrument (venue, symbol) in one class of row."""
    if name == "trade":
        rows = np.concatenate([ledger.trade, ledger.withheld])
    else:
        rows = ledger.book[ledger.book["snapshot"] == (name == "whole")]
    found: Rows = rows[rows["symbol"] == ledger.symbols.index(here)]
    return found


def compare_rows(
    kind: Kind,
    where: str,
    part: Rows,
    versions: Versions,
    connection: Connection,
    *,
    may_repeat: bool = False,
) -> Verdict:
    """Compare at the most decimals any version has. A row that is not stored is declared when a gap
    of its stream covers it. Those that `may_repeat` what is stored are not owed where they do.
    """
    if not versions:
        return Verdict(sent=len(part), missing=len(part))
    most = Decimals(*map(max, zip(*versions.values(), strict=True)))
    query = (
        f"SELECT stream_id, {kind.id_field}, price, qty, ascii(side::text)"  # noqa: S608 - constants
        f" FROM {kind.name} WHERE stream_id = ANY(%s) AND {where}"
    )
    numbered = np.array(
        connection.execute(query, ([*versions],)).fetchall(), dtype=np.int64
    ).reshape(-1, 5)
    numbers, have = numbered[:, 0], numbered[:, 1:]
    for number, (price, qty) in versions.items():
        have[numbers == number, 1:3] *= 10 ** (most.price - price), 10 ** (most.qty - qty)
    return _verdict(kind, part, have, most, [*versions], connection, may_repeat=may_repeat)


def _is_repeated(connection: Connection, ids: list[int], wholes: Rows) -> npt.NDArray[np.bool_]:
    """Which rows of whole books said only what changes had: those of a socket that took over from
    another, and those as of a change that is stored.
    """
    is_near = np.zeros(len(wholes), np.bool_)
    for (ended,) in connection.execute(_HANDOVERS, (ids, int(CoverageEnd.HANDOVER))):
        is_near |= np.abs(wholes["ts_event"] - int(ended)) < _HANDOVER_NS
    asked = np.unique(wholes["seq"]).tolist()
    stored = [seq for (seq,) in connection.execute(_CHANGES, (ids, asked))]
    return is_near | np.isin(wholes["seq"], stored)


def _verdict(
    kind: Kind,
    part: Rows,
    have: Ints,
    most: Decimals,
    ids: list[int],
    connection: Connection,
    *,
    may_repeat: bool,
) -> Verdict:
    sent = _fields(part, kind.id_field, most)
    distinct = np.unique(have, axis=0)
    sent_keys, stored_keys = _keys(np.unique(sent, axis=0)), _keys(distinct)
    lost = ~np.isin(sent_keys, stored_keys)
    rows = part[np.isin(_keys(sent), sent_keys[lost])]
    if may_repeat:
        rows = rows[~_is_repeated(connection, ids, rows)]
    covered = covered_by_gaps(connection, ids, rows[kind.id_field], rows["ts_event"])
    declared, stored = int(covered.sum()), int((~lost).sum())
    return Verdict(
        sent=stored + len(rows) if may_repeat else len(part),
        stored=stored,
        duplicates=len(have) - len(distinct),
        missing=len(rows) - declared,
        declared_missing=declared,
        altered=int((~np.isin(stored_keys, sent_keys)).sum()),
    )


def _fields(part: Rows, id_field: str, most: Decimals) -> Ints:
    """Id, price, quantity and side, numbers as the database has them."""
    columns: list[Ints] = [
        part[id_field].astype(np.int64),
        _scaled(part["price_mantissa"], part["price_decimals"], most.price),
        _scaled(part["qty_mantissa"], part["qty_decimals"], most.qty),
        part["side"].astype(np.int64),
    ]
    return np.stack(columns, axis=1)


def _scaled(mantissa: Ints, decimals: npt.NDArray[np.uint8], wanted: int) -> Ints:
    """Mantissas at `wanted` decimals. Digits the database could not hold would show as altered."""
    shift = wanted - decimals.astype(np.int64)
    scaled: Ints = mantissa * 10 ** np.maximum(shift, 0) // 10 ** np.maximum(-shift, 0)
    return scaled


def _keys(rows: Ints) -> npt.NDArray[np.void]:
    """Rows as single comparable values."""
    whole = np.ascontiguousarray(rows)
    return whole.view(np.dtype((np.void, whole.dtype.itemsize * whole.shape[1]))).ravel()
