"""Compares the funding interval of each stored row with what the venue had said by then.

Rows carry what was said last when the venue was asked last, so after a change the interval before
it is right for as long as a shard may go without asking. An interval nobody had said yet must be
NULL, and once the venue has said it, it must not be.
"""

from collections import Counter, defaultdict
from itertools import pairwise
from typing import NamedTuple

from control.proof.ledger_sources import LedgerSource
from control.proof.verdict import Connection
from engine.data.names import Transport
from shards.simulator.core.ledger import LedgerRows
from shards.venues import VENUES

__all__ = ["count_wrong_intervals"]

_ROWS = """
    SELECT i.venue, i.symbol, s.transport, (extract(epoch FROM f.recv_time) * 1e9)::bigint,
           extract(epoch FROM f.funding_interval)::bigint
    FROM funding_rates f JOIN stream s USING (stream_id) JOIN instrument i USING (instrument_id)
    WHERE NOT f.settled
"""
_ON_ITS_WAY_NS = 2_000_000_000
"""An answer is on record when it leaves the venue, a little before anybody has it."""
_FOR_EVER = 1 << 63


class _Said(NamedTuple):
    """What the venue said of one contract from one time to another (ns)."""

    interval_s: int
    from_ns: int
    to_ns: int


def count_wrong_intervals(ledger: LedgerRows, connection: Connection) -> Counter[LedgerSource]:
    """By stream, the funding rows that say another interval than they should."""
    said = _said(ledger)
    wrong = Counter[LedgerSource]()
    for venue, symbol, transport, recv_ns, interval_s in connection.execute(_ROWS):
        stream = LedgerSource(venue, symbol, Transport(transport))
        history = said.get((venue, symbol), [])
        if interval_s is None:
            wrong[stream] += bool(history) and recv_ns > history[0].from_ns + _ON_ITS_WAY_NS
            continue
        source = VENUES[venue].funding_intervals
        stale_ns = int(2e9 * source.refresh_s) if source is not None else 0
        wrong[stream] += not any(
            interval_s == each.interval_s and each.from_ns <= recv_ns <= each.to_ns + stale_ns
            for each in history
        )
    return wrong


def _said(ledger: LedgerRows) -> dict[tuple[str, str], list[_Said]]:
    history: defaultdict[tuple[str, str], list[tuple[int, int]]] = defaultdict(list)
    for row in ledger.interval:
        pair = (int(row["ts_event"]), int(row["interval_s"]))
        history[ledger.symbols[int(row["symbol"])]].append(pair)
    return {
        instrument: [
            _Said(interval_s, from_ns, to_ns)
            for (from_ns, interval_s), (to_ns, _) in pairwise([*sorted(rows), (_FOR_EVER, 0)])
        ]
        for instrument, rows in history.items()
    }
