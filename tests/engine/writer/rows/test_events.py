"""Live rows as events: each under the stream it is of, whatever rows came beside it."""

import numpy as np
import pytest

from engine.data.flags import Flag, Side
from engine.data.kind import Kind
from engine.data.kinds import BOOK, KINDS
from engine.writer.rows.events import encode, events_by_stream

STREAMS = 5
WORDED = [kind for kind in KINDS.values() if kind.word]


@pytest.mark.parametrize("kind", WORDED, ids=lambda kind: kind.name)
def test_rows_that_come_together_say_what_they_say_alone(kind: Kind) -> None:
    random = np.random.default_rng(7)
    rows = np.zeros(60, kind.dtype)
    rows["stream"] = random.integers(0, STREAMS, len(rows))
    for name in kind.dtype.names or ():
        if kind.dtype[name] in (np.dtype("f8"), np.dtype("i8")):
            rows[name] = 1 + random.integers(0, 1000, len(rows))
    if "side" in (kind.dtype.names or ()):
        rows["side"] = Side.BID if kind is BOOK else Side.SELL
    rows["flags"] = np.where(random.random(len(rows)) < 0.5, int(Flag.FIRST_IN_EVENT), 0)
    found = {slot: (alone, said) for slot, alone, said in events_by_stream(kind, rows)}
    assert sorted(found) == list(range(STREAMS))
    for slot, (alone, said) in found.items():
        own = rows[rows["stream"] == slot]
        assert np.array_equal(alone, own)
        assert encode(said) == encode(kind.events(own))
