"""Positions: the last row of each stream, for any process, after any death."""

from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from engine.data.kinds import BOOK, TRADE
from engine.data.positions import Position, Positions, read_position
from tests.engine.full_disk import full_at


@given(
    batches=st.lists(
        st.lists(st.tuples(st.integers(0, 2500), st.integers(1, 2**62)), max_size=30), max_size=8
    )
)
@settings(deadline=None, max_examples=50)
def test_last_row_of_each_stream_is_kept(
    tmp_path_factory: pytest.TempPathFactory, batches: list[list[tuple[int, int]]]
) -> None:
    directory = tmp_path_factory.mktemp("positions")
    positions = Positions(directory, TRADE)
    model: dict[int, int] = {}
    for batch in batches:
        rows = np.zeros(len(batch), TRADE.dtype)
        for row, (slot, trade_id) in zip(rows, batch, strict=True):
            row["stream"], row["trade_id"], row["ts_recv"] = slot, trade_id, 7
            model[slot] = trade_id
        positions.advance(rows)
        for slot, trade_id in model.items():
            expected = Position(0, trade_id, 0, 7)
            assert read_position(directory, TRADE.name, slot) == expected
    positions.close()


def test_position_survives_its_writer(tmp_path: Path) -> None:
    rows = np.zeros(1, BOOK.dtype)
    rows["stream"], rows["seq"], rows["ts_event"], rows["ts_recv"] = 9, 77, 5, 6
    first = Positions(tmp_path, BOOK)
    first.advance(rows)
    first.close()
    again = Positions(tmp_path, BOOK)
    again.close()
    assert read_position(tmp_path, BOOK.name, 9) == Position(0, 77, 5, 6)


def test_stream_without_rows_has_no_position(tmp_path: Path) -> None:
    assert read_position(tmp_path, TRADE.name, 0) is None
    Positions(tmp_path, TRADE).close()
    assert read_position(tmp_path, TRADE.name, 0) is None
    assert read_position(tmp_path, TRADE.name, 10**6) is None


def test_catching_up_never_goes_back(tmp_path: Path) -> None:
    rows = np.zeros(5, TRADE.dtype)
    rows["stream"] = [1, 2, 1, 2, 3]
    rows["trade_id"] = [10, 20, 11, 21, 30]
    rows["ts_recv"] = [100, 100, 200, 200, 50]
    positions = Positions(tmp_path, TRADE)
    positions.advance(rows)
    late = rows.copy()
    late["trade_id"] += 100
    late["ts_recv"] = [120, 190, 130, 300, 50]
    positions.catch_up(late)
    positions.catch_up(rows[:0])
    positions.close()
    found = [read_position(tmp_path, TRADE.name, slot) for slot in (1, 2, 3)]
    assert [position.id for position in found if position] == [11, 121, 30]


@pytest.mark.fault("D01")
def test_a_full_disk_stops_no_rows(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = np.zeros(2, TRADE.dtype)
    rows["stream"], rows["ts_recv"], rows["trade_id"] = [0, 1023], 7, 8
    positions = Positions(tmp_path, TRADE)
    positions.advance(rows)
    rows["stream"], rows["trade_id"] = [1, 5000], 9
    with full_at((tmp_path / "trade.positions").stat().st_size):
        positions.advance(rows)
        Positions(tmp_path, BOOK).close()  # fits
        unwritten = Positions(tmp_path / "new", TRADE)
        unwritten.advance(rows)
        unwritten.close()
    assert "kept in memory only" in caplog.text
    positions.close()
    again = Positions(tmp_path, TRADE)
    again.advance(rows)
    again.close()
    found = [read_position(tmp_path, TRADE.name, slot) for slot in (0, 1, 1023, 5000)]
    assert [position.id for position in found if position] == [8, 9, 8, 9]
