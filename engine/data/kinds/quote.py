"""Best bid and offer. A side without an order has price and quantity 0."""

import msgspec
import numpy as np

from engine.data.kind import FLAGS, TIME, Column, Kind, RecordArray, lists


class QuoteJson(msgspec.Struct, gc=False):
    """Best bid and offer; null where that side of the book is empty."""

    seq: int
    time: int
    recv: int
    bid: float | None
    bid_qty: float | None
    ask: float | None
    ask_qty: float | None


def _to_json(rows: RecordArray) -> list[QuoteJson]:
    sides: list[list[float | None]] = []
    for side in ("bid", "ask"):
        present = (rows[side] != 0).tolist()
        sides += [
            [value if there else None for value, there in zip(values, present, strict=True)]
            for values in lists(rows, side, f"{side}_qty")
        ]
    return list(map(QuoteJson, *lists(rows, "seq", "ts_event", "ts_recv"), *sides))


QUOTE = Kind(
    name="quote",
    dtype=np.dtype(
        [
            ("stream", "<u4"), ("flags", "<u2"), ("_pad", "<u2"), ("ts_event", "<i8"),
            ("ts_recv", "<i8"), ("seq", "<i8"), ("bid", "<f8"), ("bid_qty", "<f8"),
            ("ask", "<f8"), ("ask_qty", "<f8"),
        ]
    ),
    columns=(
        *TIME,
        FLAGS,
        Column("seq", "int8", "seq"),
        Column("bid", "int8", "bid", "price", zero_is_absent=True),
        Column("bid_qty", "int8", "bid_qty", "qty", zero_is_absent=True),
        Column("ask", "int8", "ask", "price", zero_is_absent=True),
        Column("ask_qty", "int8", "ask_qty", "qty", zero_is_absent=True),
    ),
    id_field="seq",
    ring_records=1 << 18,
    is_fast=True,
    word="quotes",
    to_json=_to_json,
    json_row_bytes=155,
    view="quotes",
    view_values="seq, bid, bid_quantity, ask, ask_quantity",
)  # fmt: skip
