"""What is remembered of rings that a database had all of, for one that was set back since."""

import numpy as np
import psycopg
import pytest

from engine.catalog import Catalog
from engine.layout import Layout
from engine.records import RecordArray
from engine.writer.postgres import PostgresSink
from tests.engine.writer.conftest import STREAM_COUNT, MakeTrades
from tests.engine.writer.loss_rig import RING, deliver, fresh, journal_segments, receive

ROWS = 400


def cursors(url: str) -> list[tuple[str, int, int]]:
    with psycopg.connect(url) as connection:
        return connection.execute(
            "SELECT ring, epoch, sequence FROM ingest_cursor ORDER BY 2"
        ).fetchall()


def test_cursors_of_drained_rings_go_and_no_other(
    layout: Layout, catalog: Catalog, database_url: str, trades: MakeTrades
) -> None:
    ring, other = f"{layout.instance}/{RING}", f"{layout.instance}/shard-1.trade"
    drained = []
    for _ in range(3):
        drained.append(receive(layout, fresh(trades(50)), ring_stays=False))
        deliver(layout, database_url)
    _, second, third = drained
    with psycopg.connect(database_url) as connection:
        for name in ("other/shard-0.trade", other):
            connection.execute("INSERT INTO ingest_cursor VALUES (%s, 1, 7, 0)", (name,))
        connection.execute(
            "UPDATE ingest_cursor SET updated_at = now() - interval '31 days' WHERE epoch <> %s",
            (second,),
        )
    waiting = receive(layout, fresh(trades(50)), ring_stays=False)
    living = receive(layout, fresh(trades(50)), ring_stays=True)
    deliver(layout, database_url)
    assert sorted(cursors(database_url)) == sorted(
        [
            ("other/shard-0.trade", 1, 7),
            (other, 1, 7),
            (ring, second, 50),  # too young
            (ring, third, 50),  # remembered as drained last
            (ring, waiting, 50),
            (ring, living, 50),
        ]
    )
    with psycopg.connect(database_url) as connection:
        connection.execute("UPDATE ingest_cursor SET updated_at = now() - interval '31 days'")
    newest = receive(layout, fresh(trades(50)), ring_stays=True)
    deliver(layout, database_url)
    left = [epoch for name, epoch, _ in cursors(database_url) if name == ring]
    assert left == [living, newest]


@pytest.mark.fault("P08")
def test_a_backup_older_than_the_last_start_is_noticed(
    layout: Layout, catalog: Catalog, database_url: str, trades: MakeTrades
) -> None:
    """Ring and journal of what it lacks were drained, and are gone with all their rows."""
    rows = fresh(trades(ROWS))
    epoch = receive(layout, rows, ring_stays=False)
    deliver(layout, database_url)
    assert journal_segments(layout, epoch) == []
    with psycopg.connect(database_url) as connection:
        connection.execute("DELETE FROM trade WHERE trade_id >= 100")
        connection.execute(
            "UPDATE ingest_cursor SET sequence = 100, last_recv = %s", (int(rows["ts_recv"][99]),)
        )
    receive(layout, fresh(trades(50, first_id=ROWS)), ring_stays=True)
    seen: list[RecordArray] = []
    assert deliver(layout, database_url, on_loss=seen.append).lost_rows == ROWS - 100
    with psycopg.connect(database_url) as connection:
        found = connection.execute("SELECT from_sequence, to_sequence FROM ring_loss").fetchall()
        stored = connection.execute("SELECT count(*) FROM trade").fetchone()
    assert found == [(100, ROWS)]
    assert stored == (150,)
    (gaps,) = seen
    assert gaps["stream"].tolist() == list(range(STREAM_COUNT))
    assert (gaps["from_ts"] < rows["ts_event"][100]).all()
    assert (gaps["to_ts"] > rows["ts_event"][-1]).all()
    assert deliver(layout, database_url).lost_rows == 0


def test_a_new_database_need_not_know_what_an_old_one_has(
    layout: Layout, catalog: Catalog, database_url: str, trades: MakeTrades
) -> None:
    receive(layout, fresh(trades(ROWS)), ring_stays=False)
    deliver(layout, database_url)
    with psycopg.connect(database_url) as connection:
        connection.execute("TRUNCATE ingest_cursor, trade")
    receive(layout, fresh(trades(50)), ring_stays=False)
    assert deliver(layout, database_url).lost_rows == 0
    with psycopg.connect(database_url) as connection:
        assert connection.execute("SELECT count(*) FROM trade").fetchone() == (50,)


@pytest.mark.fault("D02")
@pytest.mark.parametrize("junk", [2**40, 2**62, 2**64 - 1])
@pytest.mark.parametrize("is_drained", [False, True])
def test_a_damaged_entry_of_a_ring_that_is_gone_stops_nothing_and_loses_nothing(
    layout: Layout,
    catalog: Catalog,
    database_url: str,
    trades: MakeTrades,
    junk: int,
    is_drained: bool,
) -> None:
    rows = fresh(trades(ROWS))
    epoch = receive(layout, rows, ring_stays=False)
    if is_drained:
        deliver(layout, database_url)
    name = "drained" if is_drained else "members"
    entries = np.memmap(layout.journal_dir / RING / str(epoch) / name, "<u8", "r+")
    entries[900] = junk
    entries.flush()
    receive(layout, fresh(trades(50, first_id=ROWS)), ring_stays=True)
    assert deliver(layout, database_url).lost_rows == 0
    with psycopg.connect(database_url) as connection:
        assert connection.execute("SELECT count(*) FROM trade").fetchone() == (ROWS + 50,)


def test_a_new_database_whose_link_breaks_between_two_cursors_is_still_new(
    layout: Layout,
    catalog: Catalog,
    database_url: str,
    trades: MakeTrades,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for ring in ("shard-0.trade", "shard-1.trade"):
        receive(layout, fresh(trades(100)), ring_stays=False, ring=ring)
    deliver(layout, database_url)
    with psycopg.connect(database_url) as connection:
        connection.execute("TRUNCATE ingest_cursor, trade")
    receive(layout, fresh(trades(10)), ring_stays=False)
    claim, claims = PostgresSink.cursor, 0

    async def breaks_once(sink: PostgresSink, ring: str, epoch: int, first_seq: int) -> int:
        nonlocal claims
        claims += 1
        if claims == 2:
            await sink.close()
        return await claim(sink, ring, epoch, first_seq)

    monkeypatch.setattr(PostgresSink, "cursor", breaks_once)
    assert deliver(layout, database_url).lost_rows == 0
    assert claims > 2
