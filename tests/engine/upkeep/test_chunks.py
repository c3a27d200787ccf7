"""Chunks that are over: put in order, emptied of a venue, dropped; and nothing else."""

import psycopg
import pytest

from engine.upkeep.task import Place, PostponedError
from engine.upkeep.tasks.chunk_retention import ChunkRetention
from engine.upkeep.tasks.policies import Policies
from engine.upkeep.tasks.rewriting import Rewriting
from tests.engine.upkeep.hyper_rig import HyperRig
from tests.stores import execute, select

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
    assert hyper.run(Rewriting().run) == "1 chunks of trade", "the others are not over"
    assert hyper.pauses == 1
    assert hyper.states() == {"28 18": "COMPRESSED", "28 22": undone, "28 23": undone}
    hyper.now_ns += 2 * 3_600_000_000_000
    assert hyper.run(Rewriting().run) == "2 chunks of trade"
    assert set(hyper.states().values()) == {"COMPRESSED"}
    assert rows(hyper) == before
    assert hyper.run(Rewriting().run) == ""


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


def test_chunks_are_dropped_by_us_where_no_policy_may(hyper: HyperRig) -> None:
    hyper.run(Policies().run)
    hyper.fill(72, 72, 720)
    hyper.fill(96, 96, 960, "book")
    asked: list[tuple[str, int]] = []
    today = 20_602  # 2026-05-29, as days since 1970
    refused_from = today - 2

    def ask(_place: Place, table: str, day: int) -> bool:
        asked.append((table, day))
        return day < refused_from

    task, archive = ChunkRetention([ask]), {"keep": {"trade": "24h"}, "archive": "parquet"}
    assert hyper.run(task.run, **archive) == "dropped 24 chunks of trade"
    assert asked == [("trade", today - 3)] * 24 + [("trade", today - 2)]
    assert select(hyper.url, "SELECT count(*), min(trade_id) FROM trade") == [(480, 240)]
    refused_from = today
    assert hyper.run(task.run, **archive) == "dropped 24 chunks of trade"
    assert select(hyper.url, "SELECT count(*), min(trade_id) FROM trade") == [(240, 480)]
    assert select(hyper.url, "SELECT count(*) FROM book") == [(960,)]


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
