"""How far each ring is stored: rows of table `ingest_cursor`, by one session.

The row lock of a cursor orders two writers, and the comparison lets only one of them go on: a
successor that started while its predecessor's COMMIT was under way is fenced and reads it again.
"""

from collections.abc import Collection, Mapping, Sequence

import psycopg

from engine.base.errors import FencedError
from engine.data.flags import GapReason, GapState
from engine.data.layout import SourceKey
from engine.database.session import AsyncSession
from engine.writer.rows.slice import Batch, Loss, Part
from engine.writer.rows.withheld import WithheldSpan
from engine.writer.sinks.postgres.notes import Note
from engine.writer.sinks.postgres.stream_ids import StreamIds
from engine.writer.sinks.sink import Cursor

_MOVE_CURSORS = """
    UPDATE ingest_cursor AS c
    SET sequence = m.new_seq, last_recv = coalesce(m.last_recv, c.last_recv),
        backend_pid = pg_backend_pid(), updated_at = now()
    FROM unnest(%s::text[], %s::bigint[], %s::bigint[], %s::bigint[], %s::bigint[])
        AS m (ring, epoch, old_seq, new_seq, last_recv)
    WHERE c.ring = m.ring AND c.epoch = m.epoch AND c.sequence = m.old_seq
"""
_CLAIM_CURSOR = """
    INSERT INTO ingest_cursor (ring, epoch, sequence, backend_pid)
    VALUES (%s, %s, %s, pg_backend_pid())
    ON CONFLICT (ring, epoch) DO UPDATE SET backend_pid = pg_backend_pid(), updated_at = now()
    RETURNING sequence, last_recv
"""
_INTRODUCE = """
    INSERT INTO ingest_cursor (ring, epoch, sequence, backend_pid)
    SELECT d.ring, d.epoch, d.end_seq, pg_backend_pid()
    FROM unnest(%s::text[], %s::bigint[], %s::bigint[]) AS d (ring, epoch, end_seq)
    WHERE NOT EXISTS (SELECT FROM ingest_cursor AS c WHERE starts_with(c.ring, %s))
    ON CONFLICT DO NOTHING
"""
_LACKING = """
    SELECT d.ring, d.epoch
    FROM unnest(%s::text[], %s::bigint[], %s::bigint[]) AS d (ring, epoch, end_seq)
    LEFT JOIN ingest_cursor AS c ON c.ring = d.ring AND c.epoch = d.epoch
    WHERE coalesce(c.sequence, 0) < d.end_seq
"""
_FORGET_CURSORS = """
    DELETE FROM ingest_cursor AS c USING unnest(%s::text[], %s::bigint[]) AS k (ring, epoch)
    WHERE c.ring = k.ring AND c.epoch < k.epoch AND c.updated_at < now() - interval '30 days'
"""
_DECLARE_LOSS = """
    INSERT INTO ring_loss AS l (ring, epoch, from_sequence, to_sequence) VALUES (%s, %s, %s, %s)
    ON CONFLICT (ring, epoch, from_sequence) DO UPDATE
    SET to_sequence = greatest(l.to_sequence, excluded.to_sequence), detected = now()
"""
_TOUCH_CURSOR = "UPDATE ingest_cursor SET updated_at = now() WHERE ring = %s AND epoch = %s"
_END_HOLDER = """
    SELECT pg_terminate_backend(a.pid)
    FROM ingest_cursor c JOIN pg_stat_activity a ON a.pid = c.backend_pid
    WHERE c.ring = %s AND c.epoch = %s AND a.pid <> pg_backend_pid()
      AND a.application_name = current_setting('application_name')
"""

_DECLARE_HELD_BACK = """
    WITH held AS (
        SELECT *, timestamptz 'epoch' + detected / 1000 * interval '1 microsecond' AS time
        FROM unnest(%(stream_id)s::int[], %(detected)s::bigint[], %(from_ts)s::bigint[],
                    %(to_ts)s::bigint[], %(missing)s::bigint[])
            AS h (stream_id, detected, from_ts, to_ts, missing)
    ), grown AS (
        UPDATE gap AS g
        SET from_ts = least(g.from_ts, held.from_ts), to_ts = greatest(g.to_ts, held.to_ts),
            missing = g.missing + held.missing
        FROM held
        WHERE g.time = held.time AND g.stream_id = held.stream_id
            AND g.reason = %(reason)s
        RETURNING g.stream_id
    )
    INSERT INTO gap (time, time_sub_us, ts_recv, stream_id, reason, state,
                     from_seq, to_seq, from_ts, to_ts, missing)
    SELECT time, detected %% 1000, detected, stream_id, %(reason)s, %(state)s, 0, 0,
           from_ts, to_ts, missing
    FROM held WHERE stream_id NOT IN (SELECT stream_id FROM grown)
"""

Connection = AsyncSession


class Cursors:
    """Those that one sink has claimed. Not for two tasks at a time."""

    def __init__(self, instance: str) -> None:
        self._instance = instance
        self._any: SourceKey | None = None
        self._drained: Mapping[SourceKey, int] = {}

    async def introduce(
        self, connection: Connection, drained: Mapping[SourceKey, int]
    ) -> Collection[SourceKey]:
        """Tell a database that has never had rows of the instance how far sources went of which
        nothing is left; returned are those that it lacks rows of.
        """
        self._drained = drained
        columns = _columns(drained)
        await connection.execute(_INTRODUCE, (*columns, f"{self._instance}/"))
        found = await connection.execute(_LACKING, columns)
        return [SourceKey(*each) for each in await found.fetchall()]

    async def claim(
        self, connection: Connection, starts: Mapping[SourceKey, int]
    ) -> Mapping[SourceKey, Cursor]:
        """Claim each row, and forget those of long ago."""
        found = {key: await self._claim(connection, key, at) for key, at in starts.items()}
        oldest: dict[str, int] = {}
        for ring, epoch in [*self._drained, *starts]:
            oldest[ring] = min(epoch, oldest.get(ring, epoch))
        await connection.execute(_FORGET_CURSORS, (list(oldest), list(oldest.values())))
        return found

    async def _claim(self, connection: Connection, key: SourceKey, start_seq: int) -> Cursor:
        """The row's lock is taken, so it waits for a predecessor's COMMIT that is still under way.
        A predecessor that hangs on to the lock is ended after the lock timeout.
        """
        try:
            cursor = await _claim(connection, key, start_seq)
        except psycopg.errors.LockNotAvailable:
            await connection.execute(_END_HOLDER, key)
            cursor = await _claim(connection, key, start_seq)
        self._any = key
        return cursor

    async def move(self, connection: Connection, batch: Batch, notes: Sequence[Note]) -> None:
        """Compare-and-set, before anything else: whoever is not at the cursor stops here. Notes of
        the rows go with it, in one statement: small flushes feel each. Raises FencedError.
        """
        moves: dict[SourceKey, tuple[int, int, int | None]] = {}
        for part in batch.parts:
            start_seq, end_seq, recv_ns = moves.get(
                part.source, (part.start_seq, part.start_seq, None)
            )
            assert part.start_seq == end_seq, "parts of a source are contiguous"
            moves[part.source] = (start_seq, part.end_seq, _last_recv_ns(part) or recv_ns)
        if not moves:
            if self._any is not None:  # a COMMIT without WAL of its own flushes nothing
                await connection.execute(_TOUCH_CURSOR, self._any)
            return
        values = (
            *map(list, zip(*moves, strict=True)),
            *map(list, zip(*moves.values(), strict=True)),
        )
        noted = ", ".join(f"note_{n} AS ({note.query})" for n, note in enumerate(notes))
        query = f"WITH {noted} {_MOVE_CURSORS}" if noted else _MOVE_CURSORS
        taken = [value for note in notes for value in note.values]
        moved = await connection.execute(query.encode(), (*taken, *values))
        if moved.rowcount != len(moves):
            rings = ", ".join(f"{ring}/{epoch}" for ring, epoch in moves)
            raise FencedError(f"the cursor of one of {rings} is not where this writer left it")
        for loss in batch.losses:
            lost = (*loss.source, loss.start_seq, loss.end_seq)
            await connection.execute(_DECLARE_LOSS, lost)


async def _claim(connection: Connection, key: SourceKey, start_seq: int) -> Cursor:
    found = await connection.execute(_CLAIM_CURSOR, (*key, start_seq))
    row = await found.fetchone()
    assert row is not None, "an upsert returns its row"
    return Cursor(row[0], row[1] or 0)


def _last_recv_ns(part: Part) -> int | None:
    return None if isinstance(part, Loss) else part.last_recv_ns


def _columns(drained: Mapping[SourceKey, int]) -> tuple[list[str], list[int], list[int]]:
    """Rings, epochs and their ends."""
    return [ring for ring, _ in drained], [epoch for _, epoch in drained], list(drained.values())


async def declare_withheld(
    connection: Connection, spans: Sequence[WithheldSpan], streams: StreamIds
) -> None:
    """Let the gap of each stream whose rows a cursor passes, because a knob withholds them, begin
    or grow.
    """
    if spans:
        values = {
            "reason": int(GapReason.NOT_STORED),
            "state": int(GapState.UNRECOVERABLE),
            "stream_id": [streams.stream_id(span.slot) for span in spans],
            "detected": [span.detected_ns for span in spans],
            "from_ts": [span.from_ts for span in spans],
            "to_ts": [span.to_ts for span in spans],
            "missing": [span.count for span in spans],
        }
        await connection.execute(_DECLARE_HELD_BACK, values)
