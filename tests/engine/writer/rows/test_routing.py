"""Rows keep the database under whose rules they came, whatever the rules become."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.base.errors import ConfigError, EngineError
from engine.data.kind import RecordArray
from engine.data.kinds import TRADE
from engine.data.layout import Layout, SourceKey
from engine.data.names import StreamKey, StreamKind
from engine.data.routes import Route
from engine.data.slots import Slots
from engine.writer.rows.routing import Eras, Rest, Share, check_none_is_gone

KEY = SourceKey("here/shard-0.trade", 7)
LATER = SourceKey("here/shard-0.trade", 9)
A, B = "databases.a", "databases.b"
TO_A = [Route(A, symbol="S1")]
TO_B = [Route(B, symbol="S1"), Route(A, symbol="S2")]


def rows(count: int) -> RecordArray:
    """Of slots 0 to 3 in turn, which are S0 to S3."""
    found = np.zeros(count, TRADE.dtype)
    found["stream"] = np.arange(count) % 4
    return found


def chosen(share: Share, source: SourceKey, start_seq: int, records: RecordArray) -> list[int]:
    mask = share.chosen(source, start_seq, records)
    places = np.arange(len(records)) if mask is None else np.flatnonzero(mask)
    return [start_seq + int(place) for place in places]


def test_a_row_is_of_the_rules_under_which_it_came(layout: Layout, slots: Slots) -> None:
    eras = Eras(layout.routes)
    eras.begin(TO_A, {KEY: 8})
    eras.begin(TO_B, {KEY: 16})
    for known in (eras, Eras(layout.routes)):  # now, and after a restart
        default, a, b = (Share(name, known, slots) for name in ("database", A, B))
        assert chosen(default, KEY, 0, rows(24)) == [
            *range(8), 8, 10, 11, 12, 14, 15, 16, 19, 20, 23
        ]  # fmt: skip
        assert chosen(a, KEY, 0, rows(24)) == [9, 13, 18, 22]
        assert chosen(b, KEY, 0, rows(24)) == [17, 21]
        assert chosen(b, LATER, 0, rows(8)) == [1, 5], "a ring that was made since"
        assert [share.start(KEY) for share in (default, a, b)] == [0, 8, 16]
        assert b.start(LATER) == 0


@given(st.lists(st.integers(0, 20), min_size=1, max_size=4), st.integers(0, 60), st.integers(0, 30))
def test_pieces_are_those_of_a_look_at_each_row(
    steps: list[int], start_seq: int, count: int
) -> None:
    eras = Eras(Path("/nowhere"))
    begins = [0]
    eras._begins = [{}]
    for step in steps:
        begins.append(begins[-1] + step)
        eras._begins.append({KEY: begins[-1]})
    wanted = [max(n for n, at in enumerate(begins) if at <= seq)
              for seq in range(start_seq, start_seq + count)]  # fmt: skip
    found: list[int] = []
    for number, end_seq in eras.pieces(KEY, start_seq, start_seq + count):
        found += [number] * (end_seq - start_seq - len(found))
    assert found == wanted


def test_the_same_rules_begin_no_era_and_old_ones_are_forgotten(layout: Layout) -> None:
    eras = Eras(layout.routes)
    eras.begin([], {KEY: 3})
    assert not layout.routes.exists(), "an engine with one database needs no such file"
    eras.begin(TO_A, {KEY: 8})
    eras.begin(TO_A, {KEY: 12})
    assert len(eras) == 2
    again = Eras(layout.routes)
    again.forget([LATER, KEY])
    assert len(again) == 2
    again.forget([LATER])  # what was before is drained and gone
    assert len(again) == 1
    again.begin(TO_B, {LATER: 3})
    assert len(Eras(layout.routes)) == 2


def test_a_slot_that_nobody_knows_is_the_defaults_until_it_is_known(
    layout: Layout, slots: Slots
) -> None:
    eras = Eras(layout.routes)
    eras.begin([Route(A, symbol="NEW")], {})
    default, a = Share("database", eras, Slots(layout.slots)), Share(A, eras, Slots(layout.slots))
    new = rows(1)
    new["stream"] = len(slots)
    assert (chosen(default, KEY, 0, new), chosen(a, KEY, 0, new)) == ([0], [])
    assert slots.assign(StreamKey("acme", "NEW", StreamKind.TRADES)).slot == len(slots) - 1
    assert (chosen(default, KEY, 1, new), chosen(a, KEY, 1, new)) == ([], [1])
    new["stream"] = 2**32 - 1
    assert chosen(default, KEY, 2, new) == [2]


def test_rows_of_a_database_that_is_gone_are_not_given_away(layout: Layout, slots: Slots) -> None:
    eras = Eras(layout.routes)
    eras.begin(TO_A, {KEY: 8})
    eras.begin([], {KEY: 16})
    streams = np.arange(4, dtype=np.uint32)
    for start_seq, end_seq in ((0, 8), (16, 20), (4, 4)):
        rest = [Rest(KEY, start_seq, end_seq, streams)]
        check_none_is_gone(eras, slots, ["database"], rest)
    check_none_is_gone(eras, slots, ["database"], [Rest(KEY, 8, 16, streams[2:])])
    left = [Rest(KEY, 0, 20, streams)]
    check_none_is_gone(eras, slots, ["database", A], left)
    with pytest.raises(ConfigError, match=r"databases\.a is not configured.*acme/S1/Trades/Ws"):
        check_none_is_gone(eras, slots, ["database"], left)


def test_a_stream_that_is_given_away_by_name_goes_there_whatever_the_rules(
    layout: Layout, slots: Slots
) -> None:
    eras = Eras(layout.routes)
    eras.begin(TO_A, {})
    default, a, b = (Share(name, eras, slots) for name in ("database", A, B))
    assert chosen(a, KEY, 0, rows(4)) == [1]
    eras.begin(TO_A, {KEY: 8}, {0: A, 1: "database", 2: B})  # the shares hear of it
    assert chosen(default, KEY, 6, rows(6)) == [6, 9, 11]
    assert chosen(a, KEY, 6, rows(6)) == [7, 10]
    assert chosen(b, KEY, 6, rows(6)) == [8]
    assert b.start(KEY) == 8
    for name, left in (("database", (0, 2)), (A, (1,)), (B, ())):
        for share in (Share(name, eras, slots), Share(name, Eras(layout.routes), slots)):
            assert share.left(KEY, 2, 8) == left
            assert share.left(KEY, 2, 9) == (), "it was beyond that before"


def test_a_file_that_cannot_be_read_is_named(layout: Layout) -> None:
    layout.routes.write_text("[{")
    with pytest.raises(EngineError, match=r"routes\.json"):
        Eras(layout.routes)
