"""Chunks that are over: put in order, emptied of a venue, dropped; and nothing else."""

from itertools import pairwise

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.upkeep.chunks import Chunk, in_pieces
from engine.upkeep.task import Place, PostponedError
from engine.upkeep.tasks.chunk_retention import ChunkRetention
from engine.upkeep.tasks.policies import Policies
from engine.upkeep.tasks.rewriting import Rewriting
from tests.engine.upkeep.hyper_rig import HOUR_NS, NOW_NS, HyperRig
from tests.stores import execute, select
from tests.waiting import wait_for

LOOSE_BYTES = """
    SELECT pg_total_relation_size(format('%I.%I', c.chunk_schema, c.chunk_name)::regclass)
    FROM timescaledb_information.chunks AS c WHERE c.hypertable_name = 'trade'
"""
_COMPRESS = """
    SELECT compress_chunk(c) FROM show_chunks('trade', older_than => timestamptz '{}Z') AS c
"""


def compress(rig: HyperRig, older_than: str) -> None:
    execute(rig.url, _COMPRESS.format(older_than))


def add_streams(rig: HyperRig) -> None:
    """Streams 1 and 2 are of `acme`, 3 and 4 of `other`."""
    execute(
        rig.url,
        "INSERT INTO instrument (instrument_id, venue, symbol, version, base, quote,"
        " price_decimals, qty_decimals, price_unit, qty_unit, status)"
        " SELECT n, CASE WHEN n < 3 THEN 'acme' ELSE 'other' END, 'S' || n, 1, 'S', 'T', 2, 2,"
        " 0.01, 0.01, 'on' FROM generate_series(1, 4) AS n",
        "INSERT INTO stream (stream_id, instrument_id, kind, transport)"
        " SELECT n, n, 'Trades', 'ws' FROM generate_series(1, 4) AS n",
    )


def rows(rig: HyperRig) -> list[tuple[int, int]]:
    """Every trade in order of time, and read so."""
    found = select(rig.url, "SELECT stream_id, trade_id FROM trade ORDER BY time, trade_id")
    assert [each for _, each in found] == sorted(each for _, each in found)
    return found


def copy_late(rig: HyperRig, ids: range, *, direct: bool) -> None:
    """One trade a second from 18:00 on the day before NOW_NS, those of these ids."""
    with psycopg.connect(rig.url) as connection:
        connection.execute(
            "SELECT set_config('timescaledb.enable_direct_compress_copy', %s, true)",
            ("on" if direct else "off",),
        )
        with connection.cursor().copy("COPY trade FROM STDIN") as copy:
            for n in ids:
                time = f"2026-05-28 {18 + n // 3600}:{n // 60 % 60:02}:{n % 60:02}Z"
                copy.write(f"{time}\t0\t0\t{n % 4 + 1}\t0\tB\t1\t1\t0\t{n}\n")


def loose_bytes(hyper: HyperRig) -> list[int]:
    """What each chunk takes beside its columns."""
    return [size for (size,) in select(hyper.url, LOOSE_BYTES)]


def test_late_rows_into_columns_are_stored_and_put_in_order(hyper: HyperRig) -> None:
    hyper.run(Policies().run)
    copy_late(hyper, range(0, 21_600, 2), direct=False)
    compress(hyper, "2026-05-28 22:00")
    assert hyper.states() == {"28 18": "COMPRESSED", "28 22": "", "28 23": ""}, "hours are merged"
    copy_late(hyper, range(1, 21_600, 4), direct=True)
    copy_late(hyper, range(3, 21_600, 4), direct=False)
    undone = "COMPRESSED UNORDERED PARTIAL"
    assert hyper.states() == {"28 18": undone, "28 22": undone, "28 23": undone}
    before = rows(hyper)
    assert len(before) == 21_600
    assert max(loose_bytes(hyper)) > 1 << 18
    assert hyper.run(Rewriting().run) == "1 chunks of trade", "the others are not over"
    assert hyper.pauses == 1
    assert hyper.states() == {"28 18": "COMPRESSED", "28 22": undone, "28 23": undone}
    hyper.now_ns += 2 * 3_600_000_000_000
    assert hyper.run(Rewriting().run).endswith("chunks of trade")
    assert set(hyper.states().values()) == {"COMPRESSED"}
    assert rows(hyper) == before
    # A transaction in another database of the server can hold the room for a while.
    wait_for(lambda: not hyper.run(Rewriting().run), "the room of the loose rows, given back")
    assert max(loose_bytes(hyper)) < 1 << 18


def test_a_chunk_that_somebody_writes_to_waits_for_the_next_time(hyper: HyperRig) -> None:
    hyper.run(Policies().run)
    copy_late(hyper, range(0, 10_000), direct=True)
    with psycopg.connect(hyper.url) as writer:
        writer.execute("DELETE FROM trade WHERE time = '2026-05-28 18:00:05Z'")
        with hyper.place() as place:
            place.session.execute("SET lock_timeout = '200ms'")
            assert Rewriting().run(place) == "2 chunks of trade"
    assert "UNORDERED" in hyper.states()["28 18"]
    assert hyper.run(Rewriting().run) == "1 chunks of trade"
    assert [n for _, n in rows(hyper)] == [n for n in range(10_000) if n != 5]


def test_rows_of_a_venue_go_before_the_others(hyper: HyperRig) -> None:
    add_streams(hyper)
    hyper.run(Policies().run)
    copy_late(hyper, range(21_600), direct=False)
    compress(hyper, "2026-05-28 22:00")
    copy_late(hyper, range(100, 104), direct=False)
    settings = {"keep_by_venue": {"acme": {"trade": "1h"}, "unknown": {"trade": "1h"}}}
    task = ChunkRetention()
    assert hyper.run(task.run, **settings) == "deleted 9,002 rows of acme from trade"
    assert hyper.run(task.run, **settings) == ""
    left = select(hyper.url, "SELECT stream_id, count(*) FROM trade GROUP BY 1 ORDER BY 1")
    assert left == [(1, 900), (2, 900), (3, 5401), (4, 5401)], "the last hour is not over for 1 h"
    assert hyper.states()["28 18"] == "COMPRESSED"


def test_rows_that_come_when_all_was_archived_are_not_dropped(hyper: HyperRig) -> None:
    hyper.run(Policies().run, keep={"trade": "24h"}, archive="parquet")
    hyper.fill(first_h=6, hours=6, count=600)
    compress(hyper, "2026-05-29")
    hyper.now_ns += 48 * HOUR_NS
    late = [range(2)]

    def ask(*_: object) -> str:
        if late:
            copy_late(hyper, late.pop(), direct=False)
        return ""

    settings = {"keep": {"trade": "24h"}, "archive": "parquet"}
    task = ChunkRetention([ask])
    assert hyper.run(task.run, **settings) == "trade kept for now (late rows have come)"
    assert len(select(hyper.url, "SELECT FROM trade")) == 602
    assert hyper.run(task.run, **settings) == "dropped 6 chunks of trade"
    assert select(hyper.url, "SELECT FROM trade") == []


def test_rows_of_a_venue_that_come_when_all_was_archived_are_not_deleted(hyper: HyperRig) -> None:
    add_streams(hyper)
    settings = {"keep_by_venue": {"acme": {"trade": "1h"}}, "archive": "parquet"}
    hyper.run(Policies().run, **settings)
    hyper.fill(first_h=6, hours=6, count=600)
    compress(hyper, "2026-05-29")
    hyper.now_ns += 48 * HOUR_NS
    late = [range(4)]

    def ask(*_: object) -> str:
        if late:
            copy_late(hyper, late.pop(), direct=False)
        return ""

    task = ChunkRetention([ask])
    assert hyper.run(task.run, **settings) == ""
    assert len(select(hyper.url, "SELECT FROM trade")) == 604
    assert hyper.run(task.run, **settings) == "deleted 302 rows of acme from trade"


def test_what_is_archived_goes_by_whole_days_and_only_when_it_may(hyper: HyperRig) -> None:
    archive = {"keep": {"trade": "24h"}, "archive": "parquet"}
    hyper.run(Policies().run, **archive)
    assert not [each for each in hyper.policies() if each[1] == "policy_retention"]
    hyper.fill(65, 65, 650)
    hyper.fill(96, 96, 960, "book")
    compress(hyper, "2026-05-28 00:00")
    assert len(hyper.states()) == 65, "hours are not merged over midnight, nor else"
    asked: list[tuple[str, int, int]] = []
    refused_from_ns = NOW_NS - 48 * HOUR_NS

    def ask(_place: Place, table: str, start_ns: int, end_ns: int) -> str:
        asked.append((table, (NOW_NS - start_ns) // HOUR_NS, (NOW_NS - end_ns) // HOUR_NS))
        return "" if start_ns < refused_from_ns else "not yet"

    task = ChunkRetention([ask])
    assert hyper.run(task.run, **archive) == (
        "dropped 17 chunks of trade; trade kept for now (not yet)"
    )
    assert asked == [("trade", 65, 48), ("trade", 48, 24)]
    assert select(hyper.url, "SELECT count(*), min(trade_id) FROM trade") == [(480, 170)]
    refused_from_ns = NOW_NS
    hyper.now_ns += 20 * HOUR_NS
    assert hyper.run(task.run, **archive) == "dropped 24 chunks of trade"
    assert hyper.run(task.run, **archive) == "", "the next day is not over for 24 h"
    assert select(hyper.url, "SELECT count(*), min(trade_id) FROM trade") == [(240, 410)]
    assert select(hyper.url, "SELECT count(*) FROM book") == [(960,)]


def test_what_becomes_bars_goes_chunk_by_chunk(hyper: HyperRig) -> None:
    hyper.run(Policies().run, bars=True)
    hyper.fill(4, 4, 40)
    asked: list[int] = []

    def ask(_place: Place, _table: str, start_ns: int, end_ns: int) -> str:
        asked.append((NOW_NS - start_ns) // HOUR_NS)
        assert end_ns - start_ns == HOUR_NS
        return ""

    said = hyper.run(ChunkRetention([ask]).run, keep={"trade": "2h"}, bars=True)
    assert (said, asked) == ("dropped 2 chunks of trade", [4, 3])


@given(
    hours=st.lists(st.tuples(st.integers(0, 60), st.integers(1, 30)), max_size=20),
    limit_h=st.integers(0, 90),
)
def test_pieces_of_days_share_no_day_and_are_over(
    hours: list[tuple[int, int]], limit_h: int
) -> None:
    chunks, end_h = list[Chunk](), 0
    for start_h, length_h in sorted(hours):
        if start_h >= end_h and start_h + length_h <= limit_h:
            end_h = start_h + length_h
            chunks.append(
                Chunk("trade", "s", f"c{start_h}", start_h * HOUR_NS, end_h * HOUR_NS, False)
            )
    pieces = in_pieces(chunks, limit_h * HOUR_NS, by_day=True)
    gone = [chunk for piece in pieces for chunk in piece]
    assert gone == chunks[: len(gone)]
    days = [{h // 24 for c in p for h in range(c.start_ns // HOUR_NS, c.end_ns // HOUR_NS)}
            for p in pieces]  # fmt: skip
    for before, after in pairwise(days):
        assert max(before) < min(after)
    left = {c.start_ns // HOUR_NS // 24 for c in chunks[len(gone) :]}
    for day in (day for each in days for day in each):
        assert (day + 1) * 24 <= limit_h
        assert day not in left
    assert in_pieces(chunks, 0, by_day=False) == [[chunk] for chunk in chunks]


def test_where_a_policy_may_it_is_left_to_it(hyper: HyperRig) -> None:
    hyper.fill(72, 72, 720)
    assert hyper.run(ChunkRetention().run, keep={"trade": "24h"}) == ""
    with hyper.place({"timescaledb_licence": "apache"}, keep={"trade": "24h"}) as place:
        assert ChunkRetention().run(place) == "dropped 2 chunks of trade"
    assert select(hyper.url, "SELECT count(*) FROM trade") == [(240,)]


def test_a_drop_waits_for_readers_and_is_tried_again(hyper: HyperRig) -> None:
    hyper.fill(48, 48, 480)
    with psycopg.connect(hyper.url) as reader:
        reader.execute("SELECT count(*) FROM trade")
        with hyper.place(keep={"trade": "24h"}, bars=True) as place:
            place.session.execute("SET lock_timeout = '200ms'")
            with pytest.raises(PostponedError, match="trade"):
                ChunkRetention().run(place)
    assert hyper.run(ChunkRetention().run, keep={"trade": "24h"}, bars=True)
    assert select(hyper.url, "SELECT count(*) FROM trade") == [(240,)]
