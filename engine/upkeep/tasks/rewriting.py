"""Rewrites chunks whose columns are not in order, once no rows are expected for them any more.

A writer that catches up lets its rows be compressed as they come; their batches overlap then, and
whoever reads in order must sort. Late rows lie beside the columns of their chunk. Rewriting the
chunk puts both right (`compact_chunk` leaves such batches as they are).
"""

from typing import ClassVar, Final

from engine.database.timescale import columns_refused
from engine.upkeep.chunks import ended_before, is_undone, put_in_order
from engine.upkeep.hypertables import find, goal
from engine.upkeep.task import Place

_S_NS: Final = 1_000_000_000


class Rewriting:
    """On hypertables with a columnstore."""

    name: ClassVar[str] = "rewriting"
    every_s: ClassVar[float] = 600.0

    def run(self, place: Place) -> str:
        """The newest first: it is read most. A chunk that somebody is busy with waits for the next
        time.
        """
        if place.layout != "hypertables":
            return ""
        if columns_refused(place.seen, place.session.info.server_version):
            return ""
        counts: dict[str, int] = {}
        for found in find(place.session):
            if found.has_columns:
                over_ns = place.now_ns() - goal(found.table, None).columns_after_s * _S_NS
                counts[found.table] = self._rewrite(place, found.table, over_ns)
        return ", ".join(f"{n} chunks of {table}" for table, n in counts.items() if n)

    def _rewrite(self, place: Place, table: str, over_ns: int) -> int:
        count = 0
        for chunk in reversed(ended_before(place, table, over_ns)):
            if is_undone(place, chunk):
                place.pause()
                count += put_in_order(place, chunk)
        return count
