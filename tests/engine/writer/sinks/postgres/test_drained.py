"""What is remembered of rings that a database had all of, for one that was set back since."""

import numpy as np
import psycopg
import pytest

from engine.base.clock import wall_ns
from engine.data.kind import RecordArray
from engine.data.kinds import TRADE
from engine.data.layout import Layout, SourceKey
from engine.data.positions import Positions
from engine.data.slots import Slots
from engine.database.session import AsyncSession
from engine.messages.account import Moves, RingMoves
from engine.writer.main import ring_status
from engine.writer.sinks.postgres.cursors import Cursors
from engine.writer.sinks.sink import Cursor
from engine.writer.sources.sources import Sources
from tests.engine.writer.conftest import DATABASE, STREAM_COUNT, MakeTrades
from tests.engine.writer.loss_rig import (
    RING,
    SEGMENT_BYTES,
    deliver,
    fresh,
    journal_segments,
    receive,
)

ROWS = 400


def cursors(url: str) -> list[tuple[str, int, int]]:
    with psycopg.connect(url) as connection:
        return connection.execute(
            "SELECT ring, epoch, sequence FROM ingest_cursor ORDER BY 2"
        ).fetchall()


def test_cursors_of_drained_rings_go_and_no_other(
    layout: Layout,
    slots: Slots,
    database_url: str,
    trades: MakeTrades,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("engine.writer.sources.sources._REMEMBERED_EPOCHS", 1)
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
    layout: Layout, slots: Slots, database_url: str, trades: MakeTrades
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
    assert deliver(layout, database_url, on_loss=seen.append).missed_rows.total() == ROWS - 100
    with psycopg.connect(database_url) as connection:
        found = connection.execute("SELECT from_sequence, to_sequence FROM ring_loss").fetchall()
        stored = connection.execute("SELECT count(*) FROM trade").fetchone()
    assert found == [(100, ROWS)]
    assert stored == (150,)
    (gaps,) = seen
    assert gaps["stream"].tolist() == list(range(STREAM_COUNT))
    assert (gaps["from_ts"] < rows["ts_event"][100]).all()
    assert (gaps["to_ts"] > rows["ts_event"][-1]).all()
    assert deliver(layout, database_url).missed_rows.total() == 0


def test_a_new_database_need_not_know_what_an_old_one_has(
    layout: Layout, slots: Slots, database_url: str, trades: MakeTrades
) -> None:
    receive(layout, fresh(trades(ROWS)), ring_stays=False)
    deliver(layout, database_url)
    with psycopg.connect(database_url) as connection:
        connection.execute("TRUNCATE ingest_cursor, trade")
    receive(layout, fresh(trades(50)), ring_stays=False)
    assert deliver(layout, database_url).missed_rows.total() == 0
    with psycopg.connect(database_url) as connection:
        assert connection.execute("SELECT count(*) FROM trade").fetchone() == (50,)


@pytest.mark.fault("D02")
@pytest.mark.parametrize("junk", [2**40, 2**62, 2**64 - 1])
@pytest.mark.parametrize("is_drained", [False, True])
def test_a_damaged_entry_of_a_ring_that_is_gone_stops_nothing_and_loses_nothing(
    layout: Layout,
    slots: Slots,
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
    assert deliver(layout, database_url).missed_rows.total() == 0
    with psycopg.connect(database_url) as connection:
        assert connection.execute("SELECT count(*) FROM trade").fetchone() == (ROWS + 50,)


def test_a_new_database_whose_link_breaks_between_two_cursors_is_still_new(
    layout: Layout,
    slots: Slots,
    database_url: str,
    trades: MakeTrades,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rings = ("shard-0.trade", "shard-1.trade")
    for ring in rings:
        receive(layout, fresh(trades(100)), ring_stays=False, ring=ring)
    deliver(layout, database_url)
    with psycopg.connect(database_url) as connection:
        connection.execute("TRUNCATE ingest_cursor, trade")
    for ring in rings:
        receive(layout, fresh(trades(10)), ring_stays=False, ring=ring)
    claim, claims = Cursors._claim, 0

    async def breaks_once(
        cursors: Cursors, connection: AsyncSession, key: SourceKey, start_seq: int
    ) -> Cursor:
        nonlocal claims
        claims += 1
        if claims == 2:
            await connection.close()
        return await claim(cursors, connection, key, start_seq)

    monkeypatch.setattr(Cursors, "_claim", breaks_once)
    assert deliver(layout, database_url).missed_rows.total() == 0
    assert claims > 2


@pytest.mark.fault("P08")
def test_a_backup_of_several_starts_ago_is_noticed(
    layout: Layout, slots: Slots, database_url: str, trades: MakeTrades
) -> None:
    """What it had of the first ring is known from its cursor, and of the next ones it has none."""
    epochs = []
    for start in range(3):
        epochs.append(receive(layout, fresh(trades(100, 100 * start)), ring_stays=False))
        deliver(layout, database_url)
    with psycopg.connect(database_url) as connection:
        connection.execute("DELETE FROM trade WHERE trade_id >= 50")
        connection.execute("DELETE FROM ingest_cursor WHERE epoch <> %s", (epochs[0],))
        connection.execute("UPDATE ingest_cursor SET sequence = 50")
    receive(layout, fresh(trades(10, 300)), ring_stays=False)
    assert deliver(layout, database_url).missed_rows.total() == 250
    with psycopg.connect(database_url) as connection:
        found = connection.execute(
            "SELECT epoch, from_sequence, to_sequence FROM ring_loss ORDER BY epoch"
        ).fetchall()
        assert connection.execute("SELECT count(*) FROM gap").fetchone() == (3 * STREAM_COUNT,)
    assert found == [(epochs[0], 50, 100), (epochs[1], 0, 100), (epochs[2], 0, 100)]
    assert deliver(layout, database_url).missed_rows.total() == 0, "once"


@pytest.mark.fault("P08")
def test_what_was_drained_since_the_start_can_be_recalled(
    layout: Layout, trades: MakeTrades
) -> None:
    """The database may be set back under a running writer."""
    receive(layout, fresh(trades(100)), ring_stays=False)
    sources = Sources(layout, SEGMENT_BYTES, DATABASE)
    sources.open([])
    (source,) = sources
    source.advance("database", 100, durable=True)
    sources.remove_delivered()
    assert not list(sources)
    sources.recall(sources.drained)
    (recalled,) = sources
    assert (recalled.head_seq, recalled.backlog_rows) == (100, 0)
    recalled.advance("database", 60, durable=False)
    assert recalled.streams_since(60) == list(range(STREAM_COUNT))
    assert sources.remove_all() == 40


def test_what_was_drained_is_forgotten_in_the_end(
    layout: Layout, trades: MakeTrades, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.writer.sources.sources._REMEMBERED_EPOCHS", 3)
    epochs = []
    for _ in range(5):
        epochs.append(receive(layout, fresh(trades(10)), ring_stays=False))
        had_by_a_database(layout)
    receive(layout, trades(0), ring_stays=False)
    assert remembered(layout) == epochs[2:], "a ring without rows is none to remember"
    days_30 = 30 * 86_400 * 1_000_000_000
    venues_say(layout, epochs[4] + days_30 + 1)
    monkeypatch.setattr("engine.writer.sources.sources.wall_ns", lambda: epochs[4] + days_30)
    assert remembered(layout) == epochs[3:], "the last but one ended when the last began"
    monkeypatch.setattr("engine.writer.sources.sources.wall_ns", lambda: epochs[4] + days_30 + 1)
    assert remembered(layout) == epochs[4:]
    assert [path.name for path in (layout.journal_dir / RING).iterdir()] == [str(epochs[4])]


@pytest.mark.fault("N01")
def test_a_clock_that_is_a_year_ahead_for_a_while_makes_us_forget_nothing(
    layout: Layout, trades: MakeTrades, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a database that is restored a week later would lack rows, and nobody would notice."""
    epochs = []
    for _ in range(3):
        epochs.append(receive(layout, fresh(trades(10)), ring_stays=False))
        had_by_a_database(layout)
    year_ns = 365 * 86_400 * 1_000_000_000
    for offset_ns in (year_ns, -year_ns, 0):
        monkeypatch.setattr(
            "engine.writer.sources.sources.wall_ns",
            lambda offset_ns=offset_ns: wall_ns() + offset_ns,
        )
        assert remembered(layout) == epochs


def venues_say(layout: Layout, now_ns: int) -> None:
    """A row of that time was received."""
    positions = Positions(layout.positions_dir, TRADE)
    row = np.zeros(1, TRADE.dtype)
    row["ts_event"] = row["ts_recv"] = now_ns
    positions.advance(row)
    positions.close()


def had_by_a_database(layout: Layout) -> None:
    sources = Sources(layout, SEGMENT_BYTES, DATABASE)
    sources.open([])
    for source in sources:
        source.advance("database", source.head_seq, durable=True)
    assert sources.remove_all() == 0


def remembered(layout: Layout) -> list[int]:
    sources = Sources(layout, SEGMENT_BYTES, DATABASE)
    sources.open([])
    epochs = [epoch for _, epoch in sources.drained]
    sources.remove_all()
    return sorted(epochs)


@pytest.mark.fault("N29")
def test_rows_that_the_database_had_before_are_not_counted_again(
    layout: Layout, trades: MakeTrades
) -> None:
    """The machine went down: there is no ring, and the journal has what was stored as well. What is
    left of it may be delivered before the supervisor has heard where the cursor was.
    """
    receive(layout, fresh(trades(100)), ring_stays=False)
    sources, moves = Sources(layout, SEGMENT_BYTES, DATABASE), RingMoves()

    def tell() -> dict[str, Moves]:
        return moves.update(ring_status(source) for source in sources)

    sources.on_delivered = tell
    sources.open([])
    assert tell() == {"trade": Moves(waiting=100)}, "as far as the journal knows"
    (source,) = sources
    source.advance("database", 60, durable=False)
    source.progress("database").seq = 100
    source.advance("database", 100, durable=True)
    sources.remove_delivered()
    assert tell() == {"trade": Moves(moved=40)}


@pytest.mark.fault("N29")
@pytest.mark.parametrize("was_told", [False, True])
def test_rows_that_a_database_set_back_lost_were_left_to_it(
    layout: Layout, trades: MakeTrades, was_told: bool
) -> None:
    """They are counted as lost, so they have to come from somewhere: also where this engine itself
    had brought them there before.
    """
    receive(layout, fresh(trades(100)), ring_stays=False)
    sources, moves = Sources(layout, SEGMENT_BYTES, DATABASE), RingMoves()

    def tell() -> dict[str, Moves]:
        return moves.update(ring_status(source) for source in sources)

    if was_told:
        sources.on_delivered = tell
    sources.open([])
    (source,) = sources
    source.advance("database", 0, durable=False)
    source.progress("database").seq = 100
    source.advance("database", 100, durable=True)
    sources.remove_delivered()
    before = 100 if was_told else 0
    assert tell() == ({"trade": Moves(moved=100)} if was_told else {})
    sources.recall(sources.drained)
    (recalled,) = sources
    recalled.advance("database", 60, durable=False)
    assert tell() == {"trade": Moves(moved=before, waiting=40)}
    recalled.progress("database").seq = 100
    recalled.advance("database", 100, durable=True)
    sources.remove_delivered()
    assert tell() == {"trade": Moves(moved=before + 40)}
