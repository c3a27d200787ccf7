"""Compares the database with a ledger of sums: one scan a table, whatever has been sent.

Where sums agree everything is there, once, and unchanged. Where they do not, rows can only be
counted: what is missing is declared as far as gaps of the stream say how many, or that nobody knows
how many. To know which rows, run with a ledger of rows (`fts demo --for`).
"""

from collections.abc import Iterable, Sequence

from control.proof.verdict import Connection, Verdict
from shards.simulator.core.ledger import LedgerRows
from shards.simulator.core.ledger_sums import Totals
from shards.venues import VENUES

__all__ = ["check_sums"]

Sums = tuple[int, ...]
Here = tuple[str, str]
"""Venue and symbol."""
_KIND_OF_STREAM = {"trade": "Trades", "delta": "L2Book", "whole": "L2Book", "quote": "Ticker"}
_STORED = {
    "trade": """SELECT stream_id, count(*), sum(trade_id), sum(price), sum(qty),
                count(*) FILTER (WHERE side = 'B') FROM trade GROUP BY 1""",
    "delta": """SELECT stream_id, count(*), sum(seq), sum(price), sum(qty),
                count(*) FILTER (WHERE side = 'b') FROM book WHERE flags & 1 = 0 GROUP BY 1""",
    "whole": """SELECT stream_id, count(*), sum(seq), sum(price), sum(qty),
                count(*) FILTER (WHERE side = 'b') FROM book WHERE flags & 1 = 1 GROUP BY 1""",
    "quote": """SELECT stream_id, count(*), sum(bid), sum(bid_qty), sum(ask), sum(ask_qty)
                FROM quote GROUP BY 1""",
}
_UNITS = {"quote": "-pqpq"}
"""Of each sum: price, quantity, or neither."""
_NO_ROWS = (0, 0, 0, 0, 0)
_STREAMS = """
    SELECT s.stream_id, i.venue, i.symbol, s.kind, i.price_decimals, i.qty_decimals
    FROM stream s JOIN instrument i USING (instrument_id)
"""
_DECLARED = """
    SELECT coalesce(sum(missing) FILTER (WHERE missing > 0), 0),
           count(*) FILTER (WHERE coalesce(missing, -1) < 0)
    FROM gap WHERE stream_id = ANY(%s)
"""
_DECIMALS = 18
"""At which all numbers are compared, as Python's integers have no end."""


def check_sums(ledger: LedgerRows, connection: Connection) -> dict[str, Verdict]:
    """Compare every kind that the ledger adds up."""
    assert ledger.sums is not None
    streams = connection.execute(_STREAMS).fetchall()
    verdicts = {}
    for name, query in _STORED.items():
        stored = {number: tuple(map(int, sums)) for number, *sums in connection.execute(query)}
        sent = _sent(name, ledger, ledger.sums)
        have: dict[Here, Sums] = {}
        ids: dict[Here, list[int]] = {}
        for number, venue, symbol, kind, price, qty in streams:
            if kind == _KIND_OF_STREAM[name] and not _is_fetched(name, venue):
                here = venue, symbol
                scaled = _scaled(name, stored.get(number, _NO_ROWS), price, qty)
                have[here] = _plus(have.get(here), scaled)
                ids.setdefault(here, []).append(number)
        verdict = Verdict()
        for here in sorted(sent.keys() | have.keys()):
            verdict.add(_compare(sent.get(here), have.get(here), ids.get(here, ()), connection))
        verdicts[name] = verdict
    return verdicts


def _is_fetched(name: str, venue: str) -> bool:
    """Whether whole books of the venue were asked for by REST, and not sent."""
    return name == "whole" and VENUES[venue].book_snapshot is not None


def _sent(name: str, ledger: LedgerRows, totals: Totals) -> dict[Here, Sums]:
    sent: dict[Here, Sums] = {}
    for key, sums in totals.items():
        if key.name == name:
            here = ledger.symbols[key.symbol]
            scaled = _scaled(name, sums, key.price_decimals, key.qty_decimals)
            sent[here] = _plus(sent.get(here), scaled)
    return sent


def _scaled(name: str, sums: Iterable[int], price: int, qty: int) -> Sums:
    shifts = {"p": _DECIMALS - price, "q": _DECIMALS - qty, "-": 0}
    units = _UNITS.get(name, "--pq-")
    return tuple(each * 10 ** shifts[unit] for each, unit in zip(sums, units, strict=True))


def _plus(one: Sums | None, other: Sums) -> Sums:
    return other if one is None else tuple(a + b for a, b in zip(one, other, strict=True))


def _compare(
    sent: Sums | None, have: Sums | None, ids: Sequence[int], connection: Connection
) -> Verdict:
    sent_rows, have_rows = (each[0] if each else 0 for each in (sent, have))
    if sent == have or not (sent_rows or have_rows):
        return Verdict(sent=sent_rows, stored=have_rows)
    missing = max(sent_rows - have_rows, 0)
    declared = _declared(list(ids), connection, missing) if missing else 0
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
