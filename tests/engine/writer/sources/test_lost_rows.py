"""Rows that ring and journal lost are declared: sent = stored exactly once + declared as gap."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psycopg
import pytest

from engine.data.flags import GapReason, GapState
from engine.data.kind import RecordArray
from engine.data.kinds import TRADE
from engine.data.layout import Layout
from engine.data.positions import read_position
from engine.data.slots import Slots
from engine.writer.sources.journal_format import BLOCK_HEADER, SEGMENT_HEADER
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
"""About a dozen segments."""
_BODY = SEGMENT_HEADER.size + BLOCK_HEADER.size

Damage = Callable[[list[Path]], None]


def flip_in_the_first(segments: list[Path]) -> None:
    _flip(segments[0], _BODY + 40)


def flip_in_the_middle(segments: list[Path]) -> None:
    middle = segments[len(segments) // 2]
    _flip(middle, middle.stat().st_size // 2)


def flip_in_the_last(segments: list[Path]) -> None:
    _flip(segments[-1], _BODY + 40)


def flip_in_two(segments: list[Path]) -> None:
    flip_in_the_first(segments)
    flip_in_the_middle(segments)


def cut_the_middle_short(segments: list[Path]) -> None:
    _cut(segments[len(segments) // 2], _BODY + 100)


def cut_the_last_short(segments: list[Path]) -> None:
    _cut(segments[-1], _BODY + 100)


def empty_the_middle(segments: list[Path]) -> None:
    _cut(segments[len(segments) // 2], 0)


def empty_the_last(segments: list[Path]) -> None:
    _cut(segments[-1], 0)


def delete_the_first(segments: list[Path]) -> None:
    segments[0].unlink()


def delete_the_middle(segments: list[Path]) -> None:
    for path in segments[3:-3]:
        path.unlink()


def delete_the_last(segments: list[Path]) -> None:
    segments[-1].unlink()


def delete_all(segments: list[Path]) -> None:
    for path in segments:
        path.unlink()


def spoil_all(segments: list[Path]) -> None:
    for path in segments:
        path.write_bytes(b"no segment of ours" * 20)


def _flip(path: Path, offset: int) -> None:
    content = bytearray(path.read_bytes())
    content[offset] ^= 0x10
    path.write_bytes(content)


def _cut(path: Path, size: int) -> None:
    path.write_bytes(path.read_bytes()[:size])


DAMAGES = [
    flip_in_the_first,
    flip_in_the_middle,
    flip_in_the_last,
    flip_in_two,
    cut_the_middle_short,
    cut_the_last_short,
    empty_the_middle,
    empty_the_last,
    delete_the_first,
    delete_the_middle,
    delete_the_last,
    delete_all,
    spoil_all,
]


def assert_equation(url: str, rows: RecordArray, lost_count: int | None = None) -> None:
    """Every row is stored once, or its place in the ring is declared lost, once, and a gap of its
    stream covers its time.
    """
    with psycopg.connect(url) as connection:
        ids = [row[0] for row in connection.execute("SELECT trade_id FROM trade")]
        ranges = connection.execute("SELECT from_sequence, to_sequence FROM ring_loss").fetchall()
        gaps = connection.execute(
            "SELECT symbol, from_ts, to_ts, reason, state FROM gap JOIN stream USING (stream_id) "
            "JOIN instrument USING (instrument_id)"
        ).fetchall()
    declared = [seq for begin, end in ranges for seq in range(begin, end)]
    assert sorted(ids + declared) == list(range(len(rows)))
    if lost_count is not None:
        assert len(declared) == lost_count
    for seq in declared:
        symbol, at = f"S{rows['stream'][seq]}", int(rows["ts_event"][seq])
        assert any(gap[0] == symbol and gap[1] <= at <= gap[2] for gap in gaps), seq
    assert {gap[3:] for gap in gaps} <= {(GapReason.JOURNAL_LOSS, GapState.UNPROVABLE)}
    assert len(gaps) <= len(ranges) * STREAM_COUNT, "one gap for each loss and stream"


@pytest.mark.fault("D02")
@pytest.mark.parametrize("damage", DAMAGES)
def test_what_a_damaged_journal_lost_is_declared(
    layout: Layout, slots: Slots, database_url: str, trades: MakeTrades, damage: Damage
) -> None:
    rows = fresh(trades(ROWS))
    epoch = receive(layout, rows, ring_stays=False)
    damage(journal_segments(layout, epoch))
    delivery = deliver(layout, database_url)
    assert delivery.missed_rows.total() > 0
    assert_equation(database_url, rows, delivery.missed_rows.total())
    assert deliver(layout, database_url).missed_rows.total() == 0, (
        "nothing is left to be declared again"
    )


@pytest.mark.fault("D02")
@pytest.mark.parametrize(
    "damage", [flip_in_two, cut_the_last_short, delete_the_middle, delete_all, spoil_all]
)
def test_what_the_ring_still_holds_is_not_lost_with_the_journal(
    layout: Layout, slots: Slots, database_url: str, trades: MakeTrades, damage: Damage
) -> None:
    rows = fresh(trades(ROWS))
    epoch = receive(layout, rows, ring_stays=True)
    damage(journal_segments(layout, epoch))
    delivery = deliver(layout, database_url)
    assert_equation(database_url, rows, delivery.missed_rows.total())
    with psycopg.connect(database_url) as connection:
        newest = connection.execute("SELECT max(trade_id) FROM trade").fetchone()
    assert newest == (ROWS - 1,)


def test_edges_are_the_neighbours_of_the_loss(
    layout: Layout, slots: Slots, database_url: str, trades: MakeTrades
) -> None:
    """Between the last stored and the first stored row of a stream, where both are at hand."""
    rows = fresh(trades(ROWS))
    epoch = receive(layout, rows, ring_stays=False)
    delete_the_middle(journal_segments(layout, epoch))
    seen: list[RecordArray] = []
    deliver(layout, database_url, on_loss=seen.append)
    with psycopg.connect(database_url) as connection:
        ((begin, end),) = connection.execute("SELECT from_sequence, to_sequence FROM ring_loss")
        query = "SELECT trade_id FROM trades WHERE after_gap ORDER BY trade_id"
        marked = [int(row[0]) for row in connection.execute(query)]
    assert marked == list(range(end, end + STREAM_COUNT)), "the first row of each says so"
    (gaps,) = seen
    assert gaps["stream"].tolist() == list(range(STREAM_COUNT))
    for gap in gaps:
        mine = np.flatnonzero(rows["stream"] == gap["stream"])
        assert gap["from_ts"] == rows["ts_event"][mine[mine < begin][-1]]
        assert gap["to_ts"] == rows["ts_event"][mine[mine >= end][0]]
    assert set(gaps["missing"].tolist()) == {-1}


def test_a_stream_that_provably_lost_nothing_is_left_alone(
    layout: Layout, slots: Slots, database_url: str, trades: MakeTrades
) -> None:
    """By its ids, when they go on across the loss; by its last row, when that is older."""
    rows = fresh(trades(ROWS))
    rows["stream"] = 0
    rows["stream"][:40] = 2
    rows["stream"][[110, 380]], rows["trade_id"][[110, 380]] = 1, [1000, 1001]
    rows["stream"][[111, 381]], rows["trade_id"][[111, 381]] = 3, [2000, 2002]
    epoch = receive(layout, rows, ring_stays=True)
    delete_the_middle(journal_segments(layout, epoch))
    deliver(layout, database_url)
    with psycopg.connect(database_url) as connection:
        ((begin, end),) = connection.execute("SELECT from_sequence, to_sequence FROM ring_loss")
        symbols = connection.execute(
            "SELECT symbol FROM gaps WHERE reason = 'journal_loss' ORDER BY 1"
        ).fetchall()
    assert 111 < begin < end < 380
    assert symbols == [("S0",), ("S3",)]


def losses_told(url: str) -> int:
    with psycopg.connect(url) as connection:
        found = connection.execute("SELECT count(*) FROM ring_loss").fetchone()
    assert found
    return int(found[0])


@pytest.mark.fault("W01")
def test_a_writer_killed_while_it_declares_declares_once(
    layout: Layout, slots: Slots, database_url: str, trades: MakeTrades
) -> None:
    rows = fresh(trades(3_000))
    epoch = receive(layout, rows, ring_stays=True)
    for path in journal_segments(layout, epoch)[2:-2:4]:
        path.unlink()
    command = [
        sys.executable, "-m", "tests.engine.writer.loss_rig",
        str(layout.state_dir), str(layout.shm_dir.parent), database_url, "20",
    ]  # fmt: skip
    kills = 0
    for _ in range(4):
        told = losses_told(database_url)
        process = subprocess.Popen(command)
        while losses_told(database_url) < told + 3 and process.poll() is None:
            pass
        kills += process.poll() is None
        process.kill()
        process.wait()
    assert kills > 0
    deliver(layout, database_url)
    assert_equation(database_url, rows)


def had_by_another_database(layout: Layout, upto_seq: int) -> None:
    """Let the journal forget what a database, not the one of the test, has taken for good."""
    sources = Sources(layout, SEGMENT_BYTES, DATABASE)
    sources.open([])
    for source in sources:
        source.advance("database", upto_seq, durable=True)
        source.close()


@pytest.mark.fault("P08")
def test_what_a_database_set_back_has_lost_is_declared(
    layout: Layout, slots: Slots, database_url: str, trades: MakeTrades
) -> None:
    """Restored from a backup: the cursor is older than anything that ring and journal hold."""
    rows = fresh(trades(ROWS))
    epoch = receive(layout, rows, ring_stays=True)
    had_by_another_database(layout, 300)
    with psycopg.connect(database_url) as connection:
        connection.execute(
            "INSERT INTO ingest_cursor (ring, epoch, sequence, backend_pid, last_recv) "
            "VALUES (%s, %s, 80, 0, %s)",
            (f"{layout.instance}/{RING}", epoch, int(rows["ts_recv"][79])),
        )
    seen: list[RecordArray] = []
    lost = deliver(layout, database_url, on_loss=seen.append).missed_rows.total()
    assert 150 < lost <= 220
    with psycopg.connect(database_url) as connection:
        found = connection.execute("SELECT from_sequence, to_sequence FROM ring_loss").fetchall()
        stored = connection.execute("SELECT min(trade_id), count(*) FROM trade").fetchone()
    assert found == [(80, 80 + lost)]
    assert stored == (80 + lost, ROWS - 80 - lost)
    (gaps,) = seen
    assert gaps["stream"].tolist() == list(range(STREAM_COUNT))
    for gap in gaps:
        mine = np.flatnonzero(rows["stream"] == gap["stream"])
        assert gap["from_ts"] < rows["ts_recv"][79]
        assert gap["from_ts"] > rows["ts_recv"][79] - 600 * 1_000_000_000
        assert gap["to_ts"] == rows["ts_event"][mine[mine >= 80 + lost][0]]


@pytest.mark.fault("P08")
def test_a_database_that_never_had_the_ring_is_told_what_it_lacks(
    layout: Layout, slots: Slots, database_url: str, trades: MakeTrades
) -> None:
    rows = fresh(trades(ROWS))
    receive(layout, rows, ring_stays=True)
    had_by_another_database(layout, 300)
    assert deliver(layout, database_url).missed_rows.total() > 200
    assert_equation(database_url, rows)


@pytest.mark.fault("P08")
def test_rows_are_not_removed_for_a_database_that_was_set_back(
    layout: Layout, trades: MakeTrades
) -> None:
    receive(layout, fresh(trades(ROWS)), ring_stays=True)
    sources = Sources(layout, SEGMENT_BYTES, DATABASE)
    sources.open([])
    (source,) = sources
    source.advance("database", ROWS, durable=True)
    assert source.is_delivered
    source.advance("database", ROWS - 10, durable=False)
    assert not source.is_delivered
    assert sources.remove_all() == 10


@pytest.mark.fault("D02")
def test_foreign_files_among_the_journals_are_left_alone(
    layout: Layout, trades: MakeTrades
) -> None:
    (layout.journal_dir / "lost+found" / "notes").mkdir(parents=True)
    (layout.journal_dir / "shard-0.orderbook" / "1795377067243745195").mkdir(parents=True)
    (layout.journal_dir / RING / "1795377067243745195.bak").mkdir(parents=True)
    (layout.journal_dir / RING / "notes").touch()
    epoch = receive(layout, fresh(trades(50)), ring_stays=False)
    (segment, *_) = journal_segments(layout, epoch)
    (segment.parent / "copy.seg").write_bytes(segment.read_bytes())
    sources = Sources(layout, SEGMENT_BYTES, DATABASE)
    sources.open([])
    assert [source.backlog_rows for source in sources] == [50]
    sources.remove_all()


@pytest.mark.fault("D03")
def test_a_clean_stop_syncs_the_journal_before_the_ring_goes(
    layout: Layout, trades: MakeTrades, monkeypatch: pytest.MonkeyPatch
) -> None:
    ring_was_there: list[bool] = []

    def fdatasync(fd: int) -> None:
        del fd
        ring_was_there.append(layout.ring_path(RING).exists())

    monkeypatch.setattr(os, "fdatasync", fdatasync)
    receive(layout, fresh(trades(ROWS)), ring_stays=False)
    assert ring_was_there
    assert all(ring_was_there)
    assert not layout.ring_path(RING).exists()


@pytest.mark.fault("D03")
@pytest.mark.parametrize("age", ["gone", "old"])
def test_positions_that_a_power_cut_set_back_follow_the_journal(
    layout: Layout, trades: MakeTrades, age: str
) -> None:
    """A shard going on from old positions would store what the venue repeats a second time."""
    rows = fresh(trades(ROWS))
    receive(layout, rows[:200], ring_stays=True)
    file = layout.positions_dir / "trade.positions"
    old = file.read_bytes()
    receive(layout, rows[200:], ring_stays=True)
    layout.ring_path(RING).unlink()  # shared memory ends with the machine
    if age == "old":
        file.write_bytes(old)
    else:
        file.unlink()
    sources = Sources(layout, SEGMENT_BYTES, DATABASE)
    sources.open([])
    for slot in range(STREAM_COUNT):
        position = read_position(layout.positions_dir, TRADE.name, slot)
        assert position is not None
        assert position.id == ROWS - STREAM_COUNT + slot
    sources.remove_all()


@pytest.mark.fault("D02")
def test_a_stream_whose_entry_is_damaged_may_have_lost_rows(
    layout: Layout, slots: Slots, database_url: str, trades: MakeTrades
) -> None:
    rows = fresh(trades(ROWS))
    epoch = receive(layout, rows, ring_stays=False)
    entries = np.memmap(layout.journal_dir / RING / str(epoch) / "members", "<u8", "r+")
    entries[1] = 2**63
    entries.flush()
    delete_all(journal_segments(layout, epoch))
    assert deliver(layout, database_url).missed_rows.total() == ROWS
    assert_equation(database_url, rows, ROWS)
