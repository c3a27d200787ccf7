"""What is declared missing when neither ring nor journal holds rows the database does not have.

The loss is a range of the ring's sequence; whose rows were in it nobody can tell any more. So every
stream that may have had one gets a gap: from its last row before the loss to its first one after.
Where these are not at hand the rest of the ring gives the edges, because a ring is in the order of
receipt.
"""

from typing import Final

import numpy as np

from engine.data.flags import Flag, GapReason, GapState
from engine.data.kind import RecordArray
from engine.data.kinds import BOOK, GAP, TRADE
from engine.writer.sources.source import Source

_HELD_BACK_NS: Final = 300_000_000_000
"""How much older than its neighbours in the ring a row may be: book changes wait for a snapshot,
and a venue replays what was missed while a connection was down."""
_LOOK_AHEAD_ROWS: Final = 100_000

_Rows = dict[int, np.void]


def declare(
    source: Source, from_seq: int, to_seq: int, now_ns: int, stored_recv_ns: int
) -> RecordArray:
    """Return the gaps of the loss of [`from_seq`, `to_seq`). `stored_recv_ns` is `ts_recv` of the
    last row that was stored before, 0 where unknown."""
    before, after = source.journal.rows_before(from_seq), _rows_after(source, to_seq)
    last, first = _by_slot(before[::-1]), _by_slot(after)
    from_ts = _earliest(source, before, stored_recv_ns)
    to_ts = max(int(after["ts_event"][0]), int(after["ts_recv"][0])) if len(after) else now_ns
    kind = source.spec.name
    gaps = []
    for slot in sorted({*source.streams_since(from_seq), *first}):
        left, right = last.get(slot), first.get(slot)
        if left is not None and right is not None and _follows(kind, left, right):
            continue
        begin = from_ts if left is None or kind == GAP.name else int(left["ts_event"])
        end = to_ts if right is None else int(right["ts_event"])
        gaps.append(
            (slot, 0, GapReason.JOURNAL_LOSS, GapState.UNPROVABLE, now_ns, now_ns,
             0, 0, min(begin, end), max(begin, end), -1)
        )  # fmt: skip
    return np.array(gaps, GAP.dtype)


def _rows_after(source: Source, seq: int) -> RecordArray:
    """A good many rows from `seq` on, up to the next loss."""
    found = [np.empty(0, source.spec.dtype)]
    end_seq = seq + _LOOK_AHEAD_ROWS
    while seq < end_seq:
        first_seq, rows = source.read(seq, end_seq - seq)
        if first_seq > seq or not len(rows):
            break
        found.append(rows)
        seq += len(rows)
    return np.concatenate(found)


def _earliest(source: Source, before: RecordArray, stored_recv_ns: int) -> int:
    """The venue time at which the loss begins for a stream of which nothing nearer is known."""
    if source.spec.name == GAP.name:
        return 0  # a lost gap may have begun at any time
    if len(before):
        newest = before[-1]
        return min(int(newest["ts_event"]), int(newest["ts_recv"])) - _HELD_BACK_NS
    return (stored_recv_ns or source.epoch) - _HELD_BACK_NS


def _follows(kind: str, left: np.void, right: np.void) -> bool:
    """Whether the ids prove that no row was between the two."""
    match kind:
        case TRADE.name:
            same_half = bool(left["trade_id_hi"] == right["trade_id_hi"])
            return same_half and int(right["trade_id"]) == int(left["trade_id"]) + 1
        case BOOK.name:
            ends = left["flags"] & int(Flag.LAST_IN_EVENT)
            begins = right["flags"] & int(Flag.FIRST_IN_EVENT)
            linked = right["prev_seq"] != 0 and right["prev_seq"] == left["seq"]
            return bool(ends and begins and linked)
        case _:
            return False


def _by_slot(rows: RecordArray) -> _Rows:
    """The first row of each stream."""
    slots, places = np.unique(rows["stream"], return_index=True)
    return {int(slot): rows[place] for slot, place in zip(slots, places, strict=True)}
