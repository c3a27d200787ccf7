"""Live rows as events: each under the stream it is of, whatever rows came beside it."""

import numpy as np
import pytest

from engine.data.flags import Flag, Side
from engine.data.kind import Kind
from engine.data.kinds import BOOK, KINDS
from engine.writer.rows.events import by_stream, encode, events_by_stream

STREAMS = 5
ROW_BY_ROW = [kind for kind in KINDS.values() if kind.word and kind is not BOOK]


@pytest.mark.parametrize("kind", ROW_BY_ROW, ids=lambda kind: kind.name)
def test_rows_that_come_together_say_what_they_say_alone(kind: Kind) -> None:
    random = np.random.default_rng(7)
    rows = np.zeros(60, kind.dtype)
    rows["stream"] = random.integers(0, STREAMS, len(rows))
    for name in kind.dtype.names or ():
        if kind.dtype[name] in (np.dtype("f8"), np.dtype("i8")):
            rows[name] = 1 + random.integers(0, 1000, len(rows))
    if "side" in (kind.dtype.names or ()):
        rows["side"] = Side.SELL
    rows["flags"] = np.where(random.random(len(rows)) < 0.5, int(Flag.FIRST_IN_EVENT), 0)
    found = dict(events_by_stream(kind, rows))
    assert sorted(found) == list(range(STREAMS))
    for slot, said in found.items():
        assert encode(said) == encode(kind.events(rows[rows["stream"] == slot]))


def test_rows_are_sorted_by_stream_and_keep_their_order() -> None:
    rows = np.zeros(60, BOOK.dtype)
    rows["stream"] = np.random.default_rng(7).integers(0, STREAMS, len(rows))
    rows["seq"] = np.arange(len(rows))
    found = dict(by_stream(rows))
    assert sorted(found) == list(range(STREAMS))
    for slot, alone in found.items():
        assert np.array_equal(alone, rows[rows["stream"] == slot])
