"""What lies beside the rows of a day, for whoever has only the lake: when each stream was listened
to, and what is known of each instrument.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec
import pyarrow as pa

from engine.database.session import DatabaseSession
from engine.upkeep.lake.streams import STREAMS_KEY, LakeStream

_WORD: Final = pa.dictionary(pa.int32(), pa.string())
_TIME: Final = pa.timestamp("ns", tz="UTC")

COVERAGE_SCHEMA: Final = pa.schema(
    [
        pa.field("symbol", _WORD, nullable=False),
        pa.field("kind_of_stream", _WORD, nullable=False),
        pa.field("transport", _WORD, nullable=False),
        pa.field("started", _TIME, nullable=False),
        pa.field("ended", _TIME, nullable=False),
        pa.field("how_ended", _WORD, nullable=False),
        pa.field("known_since", _TIME, nullable=False),
        pa.field("ring", _WORD, nullable=False),
        pa.field("epoch", pa.int64(), nullable=False),
        pa.field("slot", pa.int64(), nullable=False),
        pa.field("connection", pa.int64(), nullable=False),
        pa.field("stream_id", pa.int32(), nullable=False),
    ]
)
"""Of `kind=coverage`: intervals of the venue's time that touch the day, whole; an interval of
several days is in the files of all of them. One that nobody has ended is `listening`, up to when
its connection was last heard."""
INSTRUMENT_SCHEMA: Final = pa.schema(
    [
        pa.field("symbol", pa.string(), nullable=False),
        pa.field("version", pa.int32(), nullable=False),
        pa.field("base", pa.string(), nullable=False),
        pa.field("quote", pa.string(), nullable=False),
        pa.field("price_decimals", pa.int16(), nullable=False),
        pa.field("qty_decimals", pa.int16(), nullable=False),
        pa.field("tick_size", pa.string()),
        pa.field("lot_size", pa.string()),
        pa.field("contract_size", pa.string()),
        pa.field("status", pa.string(), nullable=False),
        pa.field("valid_from", pa.timestamp("us", tz="UTC"), nullable=False),
        pa.field("instrument_kind", pa.string(), nullable=False),
        pa.field("venue_kind", pa.string(), nullable=False),
        pa.field("state", pa.string(), nullable=False),
        pa.field("settle", pa.string(), nullable=False),
        pa.field("contract_unit", pa.string(), nullable=False),
        pa.field("listed_at", pa.timestamp("us", tz="UTC")),
        pa.field("delivery_at", pa.timestamp("us", tz="UTC")),
    ]
)
"""Of `kind=instrument`: every version that was known. Sizes are exact decimal text."""

_COVERAGE: Final = """
    SELECT i.symbol, s.kind, s.transport, c.started,
        coalesce(c.ended, greatest(c.started, k.heard)), coalesce(e.name, 'listening'),
        least(c.started, c.since), c.ring, c.epoch, c.slot, c.carrier, c.stream_id
    FROM coverage AS c
    LEFT JOIN coverage_carrier AS k USING (ring, epoch, carrier)
    LEFT JOIN coverage_end AS e USING ("end")
    JOIN stream AS s USING (stream_id)
    JOIN instrument AS i USING (instrument_id)
    WHERE i.venue = %(venue)s AND c.stream_id = ANY (%(streams)s) AND c.started < %(end_ns)s
        AND coalesce(c.ended, greatest(c.started, k.heard)) >= %(start_ns)s
    ORDER BY i.symbol, s.kind, s.transport, c.started
"""
_INSTRUMENTS: Final = """
    SELECT symbol, version, base, quote, price_decimals, qty_decimals, tick_size::text,
        lot_size::text, contract_size::text, status, valid_from, instrument_kind, venue_kind,
        instrument_state, settle, contract_unit, listed_at, delivery_at
    FROM instrument WHERE venue = %s AND symbol = ANY (%s) ORDER BY symbol, version
"""
_ADD: Final = """
    WITH n AS (
        SELECT * FROM unnest(%s::int[], %s::bigint[], %s::text[], %s::bigint[], %s::bigint[],
            %s::bigint[], %s::bigint[], %s::bigint[], %s::text[])
            AS n (stream_id, slot, ring, epoch, carrier, started, since, ended, how)
    ), ended AS (
        UPDATE coverage AS c SET ended = n.ended, "end" = e."end"
        FROM n JOIN coverage_end AS e ON e.name = n.how
        WHERE c."end" IS NULL AND (c.stream_id, c.slot, c.ring, c.epoch, c.carrier, c.started)
            = (n.stream_id, n.slot, n.ring, n.epoch, n.carrier, n.started)
    ), heard AS (
        INSERT INTO coverage_carrier AS k (ring, epoch, carrier, heard)
        SELECT ring, epoch, carrier, max(ended) FROM n WHERE how = 'listening' GROUP BY 1, 2, 3
        ON CONFLICT (ring, epoch, carrier)
        DO UPDATE SET heard = greatest(k.heard, excluded.heard)
    )
    INSERT INTO coverage (stream_id, slot, ring, epoch, carrier, started, since, ended, "end")
    SELECT n.stream_id, n.slot, n.ring, n.epoch, n.carrier, n.started, n.since,
        CASE WHEN e."end" IS NOT NULL THEN n.ended END, e."end"
    FROM n LEFT JOIN coverage_end AS e ON e.name = n.how
    WHERE NOT EXISTS (
        SELECT FROM coverage AS c
        WHERE (c.stream_id, c.slot, c.ring, c.epoch, c.carrier, c.started)
            = (n.stream_id, n.slot, n.ring, n.epoch, n.carrier, n.started))
"""


def coverage(
    session: DatabaseSession, venue: str, streams: Iterable[LakeStream], bounds_ns: tuple[int, int]
) -> Any:
    """The `pyarrow.Table` of a venue's intervals between two times. It carries their streams."""
    known = [each for each in streams if each.venue == venue]
    values = {
        "venue": venue, "streams": [each.stream_id for each in known],
        "start_ns": bounds_ns[0], "end_ns": bounds_ns[1],
    }  # fmt: skip
    rows = session.execute(_COVERAGE.encode(), values).fetchall()
    seen = {row[-1] for row in rows}
    said = msgspec.json.encode([each for each in known if each.stream_id in seen])
    return _table(rows, COVERAGE_SCHEMA.with_metadata({STREAMS_KEY: said}))


def instruments(session: DatabaseSession, venue: str, symbols: Iterable[str]) -> Any:
    """The `pyarrow.Table` of a venue's instruments, each version a row."""
    values = (venue, sorted(set(symbols)))
    rows = session.execute(_INSTRUMENTS.encode(), values).fetchall()
    return _table(rows, INSTRUMENT_SCHEMA)


def add_coverage(session: DatabaseSession, table: Any, ids: Mapping[int, int]) -> int:
    """Store the intervals that a database does not have, and the ends of those that are open there;
    how many came new. `ids`: its stream ids, by those of the file.
    """
    known = {
        name: table.column(name).to_pylist() for name in ("ring", "how_ended", "slot", "epoch")
    }
    started, ended, since = (
        table.column(name).cast(pa.int64()).to_pylist()
        for name in ("started", "ended", "known_since")
    )
    values = (
        [ids[each] for each in table.column("stream_id").to_pylist()],
        known["slot"], known["ring"], known["epoch"], table.column("connection").to_pylist(),
        started, [s if s < at else None for s, at in zip(since, started, strict=True)], ended,
        known["how_ended"],
    )  # fmt: skip
    return session.execute(_ADD.encode(), values).rowcount


def _table(rows: list[tuple[Any, ...]], schema: Any) -> Any:
    columns = zip(*rows, strict=True) if rows else ([] for _ in schema)
    arrays = [
        _array(list(values), field.type) for values, field in zip(columns, schema, strict=True)
    ]
    return pa.Table.from_arrays(arrays, schema=schema)


def _array(values: list[Any], to: Any) -> Any:
    if pa.types.is_dictionary(to):
        return pa.array(values, to.value_type).dictionary_encode()
    return pa.array(values, pa.int64()).cast(to) if to == _TIME else pa.array(values, to)
