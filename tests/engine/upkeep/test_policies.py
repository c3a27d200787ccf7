"""Policies of TimescaleDB follow the configuration, and nothing of somebody else's is touched."""

from collections.abc import Callable

import psycopg
import pytest

from engine.start.migrations import migrate
from engine.upkeep.task import PostponedError
from engine.upkeep.tasks.policies import Policies
from tests.conftest import Databases
from tests.engine.upkeep.hyper_rig import HyperRig, needs_timescale
from tests.stores import execute, select

OURS = "fintickstreams"


def test_all_is_set_once_and_follows_the_configuration(hyper: HyperRig) -> None:
    task = Policies()
    hyper.fill(72, 72, 300)
    before = hyper.states()
    assert "columnstore of trade" in hyper.run(task.run)
    assert hyper.states() == before, "no chunk that exists is changed"
    assert hyper.policies() == [
        (table, "policy_compression", "02:00:00" if table in fast else "24:00:00", OURS)
        for fast in (("trade", "book", "quote"),)
        for table in ("book", "funding", "liquidation", "open_interest", "quote", "trade")
    ]
    hyper.fill(-24, 3, 300)
    added = hyper.states().keys() - before.keys()
    assert added == {"30 00", "30 01", "30 02"}, "new chunks are of an hour"
    assert hyper.run(task.run) == ""
    assert hyper.run(Policies().run) == ""
    said = hyper.run(task.run, keep={"book": "14d", "trade": "36h"})
    assert said == "book kept for 14 days; trade kept for 36 hours"
    hyper.run(task.run, keep={"book": "15d"})
    kept = [each for each in hyper.policies() if each[1] == "policy_retention"]
    assert kept == [("book", "policy_retention", "360:00:00", OURS)]
    hyper.run(task.run, keep={"book": "15d"}, bars=True)
    assert len(hyper.policies()) == 6, "what must be done before a drop, no policy does"


def test_settings_of_the_columnstore_are_those_that_were_measured(hyper: HyperRig) -> None:
    hyper.run(Policies().run)
    found = select(
        hyper.url,
        "SELECT hypertable::text, segmentby, replace(orderby, '\"', ''), compress_interval_length"
        " FROM timescaledb_information.hypertable_columnstore_settings ORDER BY 1",
    )
    by = "stream_id"
    assert found == [
        ("book", by, "time,seq", "1 day"), ("funding", by, "time", None),
        ("liquidation", by, "time", None), ("open_interest", by, "time", None),
        ("quote", by, "time,seq", "1 day"), ("trade", by, "time,trade_id", "1 day"),
    ]  # fmt: skip


def test_what_somebody_chose_is_left_and_told_once(hyper: HyperRig) -> None:
    execute(
        hyper.url,
        "SELECT add_retention_policy('trade', drop_after => interval '3 days')",
        "SELECT set_chunk_time_interval('book', interval '6 hours')",
        "ALTER TABLE funding SET (timescaledb.enable_columnstore, timescaledb.orderby = 'time')",
    )
    task = Policies()
    said = hyper.run(task.run, keep={"trade": "14d"})
    for words in (
        "retention policy of trade is somebody else's (after 3 days)",
        "chunks of book are of 6 hours",
        "columnstore of funding is by nothing, ordered by time",
    ):
        assert words in said.replace('"', "")
    assert hyper.run(task.run, keep={"trade": "14d"}) == ""
    assert ("trade", "policy_retention", "3 days", None) in hyper.policies()
    hyper.run(task.run)
    assert ("trade", "policy_retention", "3 days", None) in hyper.policies()


@pytest.mark.parametrize(
    ("seen", "told"),
    [
        ({"timescaledb_licence": "apache"}, "'apache'"),
        ({"timescaledb": "2.17.2"}, "2.17.2 is older than"),
    ],
)
def test_without_the_version_or_licence_nothing_is_tried_and_it_says_so(
    hyper: HyperRig, seen: dict[str, str], told: str
) -> None:
    task = Policies()
    with hyper.place(seen, keep={"trade": "14d"}) as place:
        assert told in task.run(place)
        assert task.run(place) == ""
    assert hyper.policies() == []


def test_it_waits_for_whoever_reads_no_longer_than_copy_may(hyper: HyperRig) -> None:
    task = Policies()
    with psycopg.connect(hyper.url) as reader:
        reader.execute("SELECT count(*) FROM trade")
        with pytest.raises(PostponedError, match="trade"):
            hyper.run(task.run)
    assert "columnstore of trade" in hyper.run(task.run)


def test_the_extension_and_our_tables_may_be_in_any_schema(
    make_database: Callable[[str], str], timescale: Databases | None
) -> None:
    needs_timescale(timescale)
    url = make_database("")
    execute(
        url, 'CREATE SCHEMA "the ext"', 'CREATE SCHEMA "Tick s"',
        'CREATE EXTENSION timescaledb SCHEMA "the ext"',
    )  # fmt: skip
    home = f"{url}&options=-csearch_path%3D%22Tick%5C%20s%22"
    migrate(home)
    rig = HyperRig(home)
    assert "columnstore of trade" in rig.run(Policies().run, keep={"trade": "2d"})
    assert len(rig.policies()) == 7
    assert rig.run(Policies().run, keep={"trade": "2d"}) == ""
