"""Rewrites chunks whose columns are not in order, once no rows are expected for them any more.

A writer that catches up lets its rows be compressed as they come; their batches overlap then, and
whoever reads in order must sort. Late rows lie beside the columns of their chunk. Rewriting the
chunk puts both right (`compact_chunk` leaves such batches as they are).

The room that loose rows took cannot be given back while a transaction that is older than their end
goes on, in whatever database of the server. Each try copies what is left of them, so they become
rarer, down to one a day.
"""

from typing import ClassVar, Final, NamedTuple

from engine.base.clock import DAY_NS
from engine.database.timescale import columns_refused
from engine.upkeep.chunks import ROOM, Chunk, ended_before, put_in_order, undone
from engine.upkeep.hypertables import find, goal
from engine.upkeep.task import Place

_S_NS: Final = 1_000_000_000
_HELD_NS_MAX: Final = DAY_NS


class _Held(NamedTuple):
    """Room that was still held when it was tried to give it back (ns since 1970), and for how long
    (ns) that is not tried again.
    """

    tried_ns: int
    wait_ns: int


class Rewriting:
    """On hypertables with a columnstore."""

    name: ClassVar[str] = "rewriting"
    every_s: ClassVar[float] = 600.0

    def __init__(self) -> None:
        self._held: dict[str, _Held] = {}
        """By name of chunk. Nobody else remembers: a new process tries once more."""

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
            found = undone(place, chunk)
            if not found:
                self._held.pop(chunk.name, None)
            elif found != {ROOM} or self._is_due(place, chunk):
                place.pause()
                is_done = put_in_order(place, chunk)
                count += is_done
                if is_done:
                    self._look_at_room(place, chunk)
        return count

    def _is_due(self, place: Place, chunk: Chunk) -> bool:
        """Also once the clock was set back."""
        held = self._held.get(chunk.name)
        return held is None or not 0 <= place.now_ns() - held.tried_ns < held.wait_ns

    def _look_at_room(self, place: Place, chunk: Chunk) -> None:
        """Wait twice as long as the last time if what was rewritten is as large as before."""
        if ROOM not in undone(place, chunk):
            self._held.pop(chunk.name, None)
            return
        before = self._held.get(chunk.name)
        wait_ns = before.wait_ns * 2 if before else int(self.every_s) * _S_NS
        self._held[chunk.name] = _Held(place.now_ns(), min(wait_ns, _HELD_NS_MAX))
