"""Compares the database with what the simulator says it sent: is all there, once, and unchanged?

Trades and books are compared by sums (`control.proof.ledger_sums`), kinds that are few in rows by
value (`control.proof.ledger_kinds`); what was sent so that nobody can read it must be declared
(`control.proof.ledger_unreadable`). Snapshots fetched by REST are stored too, but asked for and not
sent: they are counted apart.
"""

from collections import Counter, defaultdict
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

from control.proof.ledger_kinds import check_kinds
from control.proof.ledger_sources import LedgerSource
from control.proof.ledger_sums import check_sums, count_fetched
from control.proof.ledger_unreadable import check_unreadable
from control.proof.verdict import Connection, Verdict, total
from engine.data.names import CARRIES, StreamKind
from engine.database.session import PROOF, session
from shards.simulator.core.ledger import read_ledger

__all__ = ["LedgerCheck", "Unequal", "Verdict"]

_FIRST_RECV = "SELECT coalesce(min(ts_recv), 0) FROM trade"
_GAPS = """
    SELECT i.venue, s.kind, count(*)
    FROM gap JOIN stream s USING (stream_id) JOIN instrument i USING (instrument_id) GROUP BY 1, 2
"""


class Unequal(NamedTuple):
    """A stream of which not all that was sent is stored once and unchanged, or declared."""

    stream: LedgerSource
    row_class: str
    verdict: Verdict

    def to_json(self) -> dict[str, object]:
        """As `fts demo --json` says it."""
        return self.stream._asdict() | {"class": self.row_class} | asdict(self.verdict)


class LedgerCheck:
    """One comparison. `verdicts` holds the result by class of row, `by_venue` the same by venue and
    class, and `total` all of it; `unequal` are the streams to look at where it is not equal; `gaps`
    are the rows of the gap table by venue and kind of record.
    """

    def __init__(self, ledger_dir: Path, database_url: str) -> None:
        ledger = read_ledger(ledger_dir)
        by_value = ("quote",) if ledger.sums is None else ()
        by_sums = () if ledger.sums is None else ("quote",)
        with session(database_url, PROOF) as connection:
            found = check_sums(ledger, connection, skipped=by_value)
            found |= check_kinds(ledger, connection, skipped=by_sums)
            found |= check_unreadable(ledger, connection)
            self.gaps = _gaps(connection)
            first = connection.execute(_FIRST_RECV).fetchone()
            self.first_recv_ns = int(first[0]) if first else 0
            self.rest_snapshot_rows = count_fetched(connection)
        self.verdicts = {name: total(streams.values()) for name, streams in found.items()}
        self.total = total(self.verdicts.values())
        self.by_venue: dict[str, dict[str, Verdict]] = {}
        self.unequal: list[Unequal] = []
        for name, streams in found.items():
            for stream, verdict in streams.items():
                of_venue = self.by_venue.setdefault(stream.venue, {})
                of_venue.setdefault(name, Verdict()).add(verdict)
                if not verdict.is_equal:
                    self.unequal.append(Unequal(stream, name, verdict))


def _gaps(connection: Connection) -> dict[str, dict[str, int]]:
    """Those of a stream that brings two kinds of record are gaps of both."""
    found: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for venue, stream_kind, count in connection.execute(_GAPS):
        for kind in CARRIES[StreamKind(stream_kind)]:
            found[venue][kind] += count
    return {venue: dict(counts) for venue, counts in found.items()}
