"""What the database says of the rows in quarantine: table `quarantined_row`, and their gaps.

A gap's state follows from its rows: open while one waits, unrecoverable when those that are not
stored were dropped, repaired when all are stored. `missing` counts what is still missing, and what
was missing last once nothing is.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from engine.data.flags import GapReason, GapState
from engine.data.kind import RecordArray
from engine.database.locks import QUARANTINE
from engine.database.session import AsyncSession
from engine.writer.rows.quarantine import RowKey
from engine.writer.rows.refused import RefusedRow

_DECLARE = """
    INSERT INTO gap (time, time_sub_us, ts_recv, stream_id, reason, state,
                     from_seq, to_seq, from_ts, to_ts, missing)
    SELECT timestamptz 'epoch' + detected / 1000 * interval '1 microsecond', detected %% 1000,
           detected, stream_id, %s, %s, from_seq, to_seq, from_ts, to_ts, missing
    FROM unnest(%s::int[], %s::bigint[], %s::bigint[], %s::bigint[], %s::bigint[], %s::bigint[],
                %s::bigint[])
        AS g (stream_id, detected, from_seq, to_seq, from_ts, to_ts, missing)
"""
_NOTE = """
    INSERT INTO quarantined_row AS q (ring, epoch, sequence, kind, stream_id, gap_detected)
    SELECT * FROM unnest(%s::text[], %s::bigint[], %s::bigint[], %s::text[], %s::int[],
                         %s::bigint[])
    ON CONFLICT (ring, epoch, sequence, kind) DO UPDATE
    SET stream_id = excluded.stream_id, gap_detected = excluded.gap_detected, state = 1
"""
_COUNT = """
    SELECT kind, count(*) FROM quarantined_row
    WHERE state = 1 AND starts_with(ring, %s) GROUP BY kind
"""
_STATES = """
    SELECT ring, epoch, sequence, kind, state FROM quarantined_row WHERE starts_with(ring, %s)
"""
_CLAIM = """
    SELECT q.ring, q.epoch, q.sequence, q.kind
    FROM quarantined_row AS q
    JOIN unnest(%s::text[], %s::bigint[], %s::bigint[], %s::text[]) AS k (ring, epoch, seq, kind)
        ON q.ring = k.ring AND q.epoch = k.epoch AND q.sequence = k.seq AND q.kind = k.kind
    WHERE q.state = 1
    ORDER BY q.ring, q.epoch, q.sequence, q.kind
    FOR UPDATE OF q
"""
_SETTLE = """
    UPDATE quarantined_row AS q SET state = %s
    FROM unnest(%s::text[], %s::bigint[], %s::bigint[], %s::text[]) AS k (ring, epoch, seq, kind)
    WHERE q.ring = k.ring AND q.epoch = k.epoch AND q.sequence = k.seq AND q.kind = k.kind
    RETURNING q.stream_id, q.gap_detected
"""
_JUDGE_GAPS = """
    WITH touched AS (
        SELECT DISTINCT * FROM unnest(%(streams)s::int[], %(detected)s::bigint[])
            AS t (stream_id, gap_detected)
    ), counted AS (
        SELECT t.stream_id, t.gap_detected,
               count(*) FILTER (WHERE q.state = %(open)s) AS waiting,
               count(*) FILTER (WHERE q.state = %(dropped)s) AS dropped,
               bool_and(q.kind = 'gap') AS of_gaps
        FROM touched t JOIN quarantined_row q USING (stream_id, gap_detected)
        GROUP BY t.stream_id, t.gap_detected
    )
    UPDATE gap AS g
    SET state = CASE WHEN waiting > 0 THEN %(open)s WHEN dropped > 0 THEN %(dropped)s
                     ELSE %(stored)s END,
        missing = CASE WHEN of_gaps OR waiting + dropped = 0 THEN g.missing
                       ELSE waiting + dropped END
    FROM counted c
    WHERE g.stream_id = c.stream_id AND g.ts_recv = c.gap_detected AND g.reason = %(reason)s
        AND g.time = timestamptz 'epoch' + c.gap_detected / 1000 * interval '1 microsecond'
"""

Connection = AsyncSession


async def declare(
    connection: Connection, gaps: RecordArray, stream_ids: Sequence[int], rows: Iterable[RefusedRow]
) -> None:
    """Write the gaps of rows that go into quarantine, and note the rows. `stream_ids` are the
    gaps', 0 where nobody knows the stream: whose row it is then only the state directory may tell.
    """
    columns = [gaps[name].tolist() for name in ("from_seq", "to_seq", "from_ts", "to_ts")]
    detected = gaps["ts_recv"].tolist()
    states = int(GapReason.QUARANTINED), int(GapState.OPEN)
    missing = gaps["missing"].tolist()
    await connection.execute(_DECLARE, (*states, list(stream_ids), detected, *columns, missing))
    stream_of = dict(zip(detected, stream_ids, strict=True))
    noted = [
        (row.ring, row.epoch, row.seq, row.table, stream_of[row.detected_ns], row.detected_ns)
        for row in rows
    ]
    await connection.execute(_NOTE, [list(column) for column in zip(*noted, strict=True)])


async def count(connection: Connection, instance: str) -> dict[str, int]:
    """How many rows of an instance are in quarantine, by table."""
    found = await connection.execute(_COUNT, (f"{instance}/",))
    return dict(await found.fetchall())


async def states(connection: Connection, instance: str) -> dict[RowKey, GapState]:
    """Every row that ever was in quarantine, and what became of it."""
    found = await connection.execute(_STATES, (f"{instance}/",))
    return {
        (ring, epoch, seq, kind): GapState(state)
        for ring, epoch, seq, kind, state in await found.fetchall()
    }


async def lock(connection: Connection) -> None:
    """Be the only one to take rows out, or in from old files, until the transaction ends."""
    await connection.execute("SELECT pg_advisory_xact_lock(%s)", (QUARANTINE,))


async def claim(connection: Connection, keys: Iterable[RowKey]) -> set[RowKey]:
    """Those of these rows that are still in quarantine, locked until the transaction ends. One
    transaction at a time: what it says of a gap follows from all rows of the gap.
    """
    await lock(connection)
    found = await connection.execute(_CLAIM, _columns(keys))
    return {(ring, epoch, seq, kind) for ring, epoch, seq, kind in await found.fetchall()}


async def settle(connection: Connection, keys: Iterable[RowKey], state: GapState) -> None:
    """These rows, which were claimed, are stored (repaired) or dropped (unrecoverable); their gaps
    say so."""
    found = await connection.execute(_SETTLE, (int(state), *_columns(keys)))
    touched = await found.fetchall()
    await connection.execute(
        _JUDGE_GAPS,
        {
            "streams": [stream for stream, _ in touched],
            "detected": [detected for _, detected in touched],
            "open": int(GapState.OPEN),
            "dropped": int(GapState.UNRECOVERABLE),
            "stored": int(GapState.REPAIRED),
            "reason": int(GapReason.QUARANTINED),
        },
    )


def _columns(keys: Iterable[RowKey]) -> list[list[Any]]:
    rows = list(keys)
    return [[row[place] for row in rows] for place in range(4)]
