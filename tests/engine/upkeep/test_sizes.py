"""Sizes of real tables: by the statistics, on both layouts, with the disk they are on."""

import datetime as dt
import os
from pathlib import Path

import pytest

from engine.base.clock import DAY_NS
from engine.database.condition.extent import disk_free_bytes
from engine.database.condition.facts import read_facts
from engine.database.condition.sizes import TablePieces, read_pieces
from engine.database.session import DOCTOR, session
from engine.messages.upkeep import TableSize
from engine.servers.postgres import PrivatePostgres
from engine.upkeep.task import Place
from engine.upkeep.tasks.sizes import Sizes
from tests.conftest import Databases
from tests.engine.upkeep.database_rig import NOON_NS, TODAY, make_days, place_in, put_trades
from tests.stores import execute, select


def sizes_in(place: Place, task: Sizes | None = None) -> dict[str, TableSize]:
    assert (task or Sizes()).run(place) == ""
    return {each.table: each for each in place.report.tables}


class TestPartitions:
    """Plain PostgreSQL."""

    @pytest.fixture(autouse=True)
    def plain(self, postgres: PrivatePostgres) -> None:
        """Its layout."""

    def test_each_table_by_its_days(self, database_url: str) -> None:
        with place_in(database_url, keep={"trade": "30d"}) as place:
            make_days(place, "trade", TODAY - 3, *range(TODAY - 2, TODAY + 2))
            for day, count in ((TODAY - 2, 1000), (TODAY - 1, 4000), (TODAY, 500)):
                put_trades(place.session, day, count)
            place.session.execute("ANALYZE trade")
            trade = sizes_in(place)["trade"]
            ((on_disk, yesterday),) = select(
                database_url,
                "SELECT sum(pg_total_relation_size(relid)), sum(pg_total_relation_size(relid))"
                " FILTER (WHERE relid = 'trade_p20241003'::regclass)"
                " FROM pg_partition_tree('trade') WHERE isleaf",
            )
        assert trade.row_count == 5500
        assert (trade.size_bytes, trade.bytes_a_day) == (on_disk, yesterday)
        assert trade.rows_a_day == 4000
        assert trade.bytes_a_row is not None
        assert 80 < trade.bytes_a_row < 150
        assert trade.oldest_ns == (TODAY - 2) * DAY_NS
        assert (trade.kept_for, trade.compressed_bytes) == ("30d", None)

    def test_tables_in_one_piece_and_empty_ones(self, database_url: str) -> None:
        with place_in(database_url) as place:
            sizes = sizes_in(place)
            assert set(sizes) >= {"trade", "book", "gap"}
            assert sizes["gap"].size_bytes > 0
            assert {each.oldest_ns for each in sizes.values()} == {None}
            assert {each.bytes_a_day for each in sizes.values()} == {None}
            assert place.report.days_until_full is None

    def test_a_month_of_somebodys_own_counts_with_what_is_in_it(self, database_url: str) -> None:
        execute(
            database_url,
            "CREATE TABLE may PARTITION OF trade FOR VALUES FROM ('2024-09-01') TO ('2024-10-04')"
            " PARTITION BY RANGE (stream_id)",
            "CREATE TABLE may_few PARTITION OF may FOR VALUES FROM (0) TO (9)",
        )
        with place_in(database_url) as place:
            put_trades(place.session, TODAY - 0.5, 1000)
            place.session.execute("ANALYZE may_few")
            trade = sizes_in(place)["trade"]
        assert trade.row_count == 1000
        assert trade.bytes_a_row is not None
        assert trade.oldest_ns == round((TODAY - 0.5) * DAY_NS)

    def test_an_old_day_is_looked_into_once(self, database_url: str) -> None:
        task = Sizes()
        with place_in(database_url) as place:
            make_days(place, "trade", TODAY - 1, TODAY)
            put_trades(place.session, TODAY, 10)
            assert sizes_in(place, task)["trade"].oldest_ns == TODAY * DAY_NS
            put_trades(place.session, TODAY - 0.5, 10)
            assert sizes_in(place, task)["trade"].oldest_ns == round((TODAY - 0.5) * DAY_NS)
            place.session.execute("DELETE FROM trade_p20241003")
            assert sizes_in(place, task)["trade"].oldest_ns == round((TODAY - 0.5) * DAY_NS)
            assert sizes_in(place)["trade"].oldest_ns == TODAY * DAY_NS
            place.session.execute("DROP TABLE trade_p20241003")
            assert sizes_in(place, task)["trade"].oldest_ns == TODAY * DAY_NS

    def test_the_disk_of_a_server_of_our_own_is_known(
        self, database_url: str, postgres: PrivatePostgres
    ) -> None:
        ((data,),) = select(database_url, "SHOW data_directory")
        with place_in(database_url) as place:
            make_days(place, "trade", TODAY - 1)
            put_trades(place.session, TODAY - 1, 1000)
            trade = sizes_in(place)["trade"]
            free_bytes = place.report.disk_free_bytes
            assert free_bytes is not None
            usage = os.statvfs(data)
            assert abs(free_bytes - usage.f_bavail * usage.f_frsize) < 2**30
            assert trade.bytes_a_day is not None
            assert place.report.days_until_full == 3650
        assert postgres.pid == int(Path(data, "postmaster.pid").read_text().split()[0])

    def test_the_disk_of_anybody_else_is_not(
        self, database_url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Another server's files at the same place, as those of a container would be."""
        monkeypatch.setattr("engine.database.condition.extent._postmaster", lambda _: 1)
        with place_in(database_url) as place:
            assert disk_free_bytes(place.session) is None

    def test_doctor_says_the_same(self, database_url: str) -> None:
        with place_in(database_url, keep={"trade": "2w"}) as place:
            make_days(place, "trade", TODAY - 1)
            put_trades(place.session, TODAY - 1, 1000)
            place.session.execute("ANALYZE trade")
            sizes_in(place)
            with session(database_url, DOCTOR) as connection:
                facts = read_facts(connection, place.settings.keep)
            assert facts.tables == place.report.tables
            assert facts.days_until_full == place.report.days_until_full


def test_chunks_with_columns(timescale: Databases | None, request: pytest.FixtureRequest) -> None:
    if timescale is None:
        pytest.skip("FTS_TEST_TIMESCALE_DSN is not set: no hypertable was measured")
    url: str = request.getfixturevalue("database_url")
    execute(
        url,
        "ALTER TABLE trade SET (timescaledb.enable_columnstore,"
        " timescaledb.segmentby = 'stream_id', timescaledb.orderby = 'time, trade_id')",
    )
    with place_in(url) as place:
        for day in (TODAY - 2, TODAY - 1, TODAY):
            put_trades(place.session, day + 0.1, 20_000)
        place.session.execute("ANALYZE trade")
        before = sizes_in(place)["trade"]
        assert (before.row_count, before.bytes_a_day) == (60_000, None)
        assert (before.compressed_bytes, before.before_compression_bytes) == (0, 0)
        _compress(place, "trade")
        task = Sizes()
        trade = sizes_in(place, task)["trade"]
        assert (trade.row_count, trade.rows_a_day) == (60_000, 20_000)
        assert trade.compressed_bytes is not None
        assert trade.compression_ratio is not None
        assert trade.compression_ratio > 4
        assert trade.size_bytes < before.size_bytes / 2
        assert trade.bytes_a_day is not None
        assert trade.bytes_a_row == pytest.approx(trade.bytes_a_day / 20_000, rel=0.5)
        assert trade.oldest_ns == _ns(TODAY - 2 + 0.1)
        assert sizes_in(place, task)["trade"] == trade
        pieces = next(each for each in _pieces(place) if each.table == "trade")
        assert sum(each.size_bytes for each in pieces.pieces) == trade.size_bytes
        with session(url, DOCTOR) as connection:
            facts = read_facts(connection)
        assert facts.tables[0].compression_ratio == trade.compression_ratio
        assert facts.days_kept == 3


def _pieces(place: Place) -> list[TablePieces]:
    return read_pieces(place.session, place.seen)


def _compress(place: Place, table: str) -> None:
    """All that is over, as the policy would."""
    found = place.session.execute(
        "SELECT format('%%I.%%I', chunk_schema, chunk_name) FROM timescaledb_information.chunks"
        " WHERE hypertable_name = %s AND range_end <= %s",
        (table, dt.datetime.fromtimestamp(NOON_NS / 1e9, dt.UTC)),
    )
    for (name,) in found.fetchall():
        place.session.execute(f"CALL convert_to_columnstore('{name}')".encode())


def _ns(day: float) -> int:
    return round(day * DAY_NS / 1000) * 1000
