"""Table `coverage`: one row for each interval in which a stream was listened to.

The rows say up to when everything is stored or declared, so a coverage record comes only once all
that was received before it has (`engine.writer.coverage_gate`).

An interval that nobody has ended reaches as far as its carrier (a socket or a poller) was heard:
table `coverage_carrier`, one small row that moves about once a second. That is where the interval
ended if the process has died, and the next one that begins for the stream writes it down.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import Any

import numpy as np
import numpy.typing as npt

from engine.data.flags import CoverageEnd, CoverageMark
from engine.data.kind import RecordArray
from engine.data.kinds import COVERAGE
from engine.data.layout import SourceKey
from engine.database.session import AsyncSession
from engine.writer.rows.slice import Part, Slice

_HEARD = """
    INSERT INTO coverage_carrier AS k (ring, epoch, carrier, heard)
    SELECT %s, %s, * FROM unnest(%s::bigint[], %s::bigint[])
    ON CONFLICT (ring, epoch, carrier) DO UPDATE SET heard = excluded.heard
"""
_CRASHED = """
    UPDATE coverage AS c
    SET "end" = %(crash)s, ended = greatest(c.started, (
        SELECT k.heard FROM coverage_carrier AS k
        WHERE k.ring = c.ring AND k.epoch = c.epoch AND k.carrier = c.carrier))
    WHERE c."end" IS NULL AND starts_with(c.ring, %(instance)s)
"""
_OF_SLOTS = " AND c.slot = ANY(%(slots)s)"
_OF_RING = " AND c.ring = %(ring)s AND c.epoch = %(epoch)s"
_OF_NO_RING = (
    " AND (c.ring, c.epoch) NOT IN (SELECT * FROM unnest(%(rings)s::text[], %(epochs)s::bigint[]))"
)
_BEGIN = """
    INSERT INTO coverage (stream_id, slot, ring, epoch, carrier, started, since)
    SELECT stream_id, slot, %s, %s, carrier, at, nullif(since, 0)
    FROM unnest(%s::int[], %s::bigint[], %s::bigint[], %s::bigint[], %s::bigint[])
        AS b (stream_id, slot, carrier, at, since)
"""
_END = """
    UPDATE coverage AS c SET "end" = e.how, ended = greatest(c.started, e.at)
    FROM unnest(%s::bigint[], %s::bigint[], %s::bigint[], %s::smallint[])
        AS e (slot, carrier, at, how)
    WHERE c.ring = %s AND c.epoch = %s AND c.slot = e.slot AND c.carrier = e.carrier
      AND c.started = (SELECT max(n.started) FROM coverage AS n
                       WHERE n.ring = c.ring AND n.epoch = c.epoch AND n.slot = c.slot
                         AND n.carrier = c.carrier)
"""
_FORGET_CARRIERS = """
    DELETE FROM coverage_carrier AS k WHERE starts_with(k.ring, %s) AND NOT EXISTS (
        SELECT FROM coverage AS c WHERE c."end" IS NULL AND c.ring = k.ring
            AND c.epoch = k.epoch AND c.carrier = k.carrier)
      AND (k.ring, k.epoch) NOT IN (SELECT * FROM unnest(%s::text[], %s::bigint[]))
"""

Connection = AsyncSession


async def store_coverage(
    connection: Connection, parts: Sequence[Part], stream_ids: npt.NDArray[np.int32]
) -> None:
    """Bring the tables up to date with the coverage records among `parts`, in the transaction
    that moves the cursors past them. Every slot that they name must be resolved, if it is known."""
    for part in parts:
        ring = _Ring(connection, part.source)
        if isinstance(part, Slice):
            if part.spec.name == COVERAGE.name:
                if part.left:
                    await ring.crashed(_OF_SLOTS, {"slots": list(part.left)})
                await ring.store(part.records, stream_ids)
        elif part.kind == COVERAGE.name:  # an end may be among what is lost
            await ring.crashed(_OF_RING, {})


async def close_coverage(
    connection: Connection, instance: str, sources: Iterable[SourceKey]
) -> None:
    """End what rings that are none of these have left open, and forget their carriers."""
    known = [source for source in sources if source.ring.endswith(f".{COVERAGE.name}")]
    rings, epochs = [ring for ring, _ in known], [epoch for _, epoch in known]
    values = {
        "crash": CoverageEnd.CRASH,
        "instance": f"{instance}/",
        "rings": rings,
        "epochs": epochs,
    }
    await connection.execute(_CRASHED + _OF_NO_RING, values)
    await connection.execute(_FORGET_CARRIERS, (f"{instance}/", rings, epochs))


def named_slots(part: Part) -> npt.NDArray[np.uint32]:
    """Slots of a part's rows. How far a carrier was heard is of no stream in particular: the one it
    names may be another database's.
    """
    slots: npt.NDArray[np.uint32] = part.records["stream"]
    if part.spec.name != COVERAGE.name:
        return slots
    named: npt.NDArray[np.uint32] = slots[part.records["mark"] != CoverageMark.ALIVE]
    return named


class _Ring:
    """The intervals of one (ring, epoch)."""

    def __init__(self, connection: Connection, source: SourceKey) -> None:
        self._connection = connection
        self._ring, self._epoch = source
        self._instance = source.ring.rpartition("/")[0] + "/"

    async def store(self, records: RecordArray, stream_ids: npt.NDArray[np.int32]) -> None:
        known = (records["stream"] < len(stream_ids)) & (records["mark"] != CoverageMark.ALIVE)
        alive = records[records["mark"] == CoverageMark.ALIVE]
        if len(alive):  # first: what has died was heard before what follows it began
            await self._heard(
                dict(zip(alive["carrier"].tolist(), alive["at"].tolist(), strict=True))
            )
        marks = records[known]
        marks = marks[stream_ids[marks["stream"]] >= 0]
        for has_begun, run in _runs(marks):
            await (self._begin(run, stream_ids) if has_begun else self._end(run))

    async def crashed(self, which: str, values: dict[str, Any]) -> None:
        """End what is open as far as it was heard."""
        own = {"crash": CoverageEnd.CRASH, "instance": self._instance}
        own |= {"ring": self._ring, "epoch": self._epoch}
        await self._connection.execute(_CRASHED + which, own | values)

    async def _heard(self, heard: dict[int, int]) -> None:
        values = (self._ring, self._epoch, list(heard), list(heard.values()))
        await self._connection.execute(_HEARD, values)

    async def _begin(self, run: RecordArray, stream_ids: npt.NDArray[np.int32]) -> None:
        slots = run["stream"].tolist()
        await self.crashed(_OF_SLOTS, {"slots": slots})
        values = (
            self._ring, self._epoch, stream_ids[run["stream"]].tolist(), slots,
            *(run[name].tolist() for name in ("carrier", "at", "since")),
        )  # fmt: skip
        await self._connection.execute(_BEGIN, values)

    async def _end(self, run: RecordArray) -> None:
        values = (*(run[name].tolist() for name in ("stream", "carrier", "at", "end")),
                  self._ring, self._epoch)  # fmt: skip
        await self._connection.execute(_END, values)


def _runs(marks: RecordArray) -> Iterator[tuple[bool, RecordArray]]:
    """Split into runs that one statement can do: all begin or all end, and no stream twice."""
    place, seen, number = {}, set[tuple[int, bool]](), 0
    before: bool | None = None
    for index, (slot, mark) in enumerate(
        zip(marks["stream"].tolist(), marks["mark"].tolist(), strict=True)
    ):
        begins = mark == CoverageMark.BEGAN
        if begins is not before or (slot, begins) in seen:
            number, before, seen = number + 1, begins, set()
        seen.add((slot, begins))
        place[index] = (number, begins)
    for (_, begins), indices in groupby(place, key=place.__getitem__):
        yield begins, marks[list(indices)]
