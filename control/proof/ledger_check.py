"""Compares the database with what the simulator says it sent: is all there, once, and unchanged?

Trades and books are compared by sums (`control.proof.ledger_sums`), kinds that are few in rows by
value (`control.proof.ledger_kinds`); what was sent so that nobody can read it must be declared
(`control.proof.ledger_unreadable`). Snapshots fetched by REST are stored too, but asked for and not
sent: they are counted apart.
"""

from pathlib import Path

from control.proof.ledger_kinds import check_kinds
from control.proof.ledger_sums import check_sums, count_fetched
from control.proof.ledger_unreadable import check_unreadable
from control.proof.verdict import Verdict
from engine.database.session import PROOF, session
from shards.simulator.core.ledger import read_ledger

__all__ = ["LedgerCheck", "Verdict"]

_FIRST_RECV = "SELECT coalesce(min(ts_recv), 0) FROM trade"


class LedgerCheck:
    """One comparison. `verdicts` holds the result by class of row."""

    def __init__(self, ledger_dir: Path, database_url: str) -> None:
        ledger = read_ledger(ledger_dir)
        by_value = ("quote",) if ledger.sums is None else ()
        by_sums = () if ledger.sums is None else ("quote",)
        with session(database_url, PROOF) as connection:
            self.verdicts = check_sums(ledger, connection, skipped=by_value)
            self.verdicts |= check_kinds(ledger, connection, skipped=by_sums)
            self.verdicts |= check_unreadable(ledger, connection)
            found = connection.execute(_FIRST_RECV).fetchone()
            self.first_recv_ns = int(found[0]) if found else 0
            self.rest_snapshot_rows = count_fetched(connection)
