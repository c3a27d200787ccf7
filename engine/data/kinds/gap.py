"""Gaps: what is missing, between which ids and which times, and why."""

from typing import Final

import msgspec
import numpy as np

from engine.data.flags import GapReason, GapState
from engine.data.kind import TIME, Column, Kind, RecordArray

_REASON_NAMES: Final = {int(reason): reason.name.lower() for reason in GapReason}
_STATE_NAMES: Final = {int(state): state.name.lower() for state in GapState}


class GapJson(msgspec.Struct):
    """One gap of the ledger."""

    venue: str
    symbol: str
    kind: str
    time: int
    reason: str
    state: str
    from_seq: int
    to_seq: int
    from_time: int
    to_time: int
    missing: int


def gap_events(rows: RecordArray, venue: str, symbol: str, kind: str) -> list[GapJson]:
    """One event a row, of one stream."""
    return [
        GapJson(
            venue=venue,
            symbol=symbol,
            kind=kind,
            time=int(row["ts_event"]),
            reason=_REASON_NAMES.get(int(row["reason"]), str(row["reason"])),
            state=_STATE_NAMES.get(int(row["state"]), str(row["state"])),
            from_seq=int(row["from_seq"]),
            to_seq=int(row["to_seq"]),
            from_time=int(row["from_ts"]),
            to_time=int(row["to_ts"]),
            missing=int(row["missing"]),
        )
        for row in rows
    ]


GAP = Kind(
    name="gap",
    dtype=np.dtype(
        [
            ("stream", "<u4"), ("flags", "<u2"), ("reason", "u1"), ("state", "u1"),
            ("ts_event", "<i8"), ("ts_recv", "<i8"), ("from_seq", "<i8"), ("to_seq", "<i8"),
            ("from_ts", "<i8"), ("to_ts", "<i8"), ("missing", "<i8"),
        ]
    ),
    columns=(
        *TIME,
        Column("reason", "int2", "reason"),
        Column("state", "int2", "state"),
        Column("from_seq", "int8", "from_seq"),
        Column("to_seq", "int8", "to_seq"),
        Column("from_ts", "int8", "from_ts"),
        Column("to_ts", "int8", "to_ts"),
        Column("missing", "int8", "missing"),
    ),
    id_field="to_seq",
    ring_records=1 << 12,
    json_row_bytes=300,
    newest_shown=0,
)  # fmt: skip
