"""Trades. `trade_id_hi` is the upper half of ids of 128 bits, and 0 where 64 are enough."""

from typing import Any, Final

import msgspec
import numpy as np

from engine.data.kind import FLAGS, SIDE_NAMES, TIME, Column, Kind, RecordArray

_UINT64: Final = (1 << 64) - 1
_FEW: Final = 8
"""Rows that are read faster one by one than column by column."""


class TradeJson(msgspec.Struct, gc=False):
    """One trade. `id` is a string where the venue's ids are UUIDs; times are ns since 1970."""

    id: int | str
    time: int
    recv: int
    side: str | None
    price: float
    qty: float


def _to_json(rows: RecordArray) -> list[TradeJson]:
    if len(rows) <= _FEW:
        return [
            TradeJson(_wide_id(high, low), time, recv, SIDE_NAMES.get(side), price, qty)
            for _, _, side, _, time, recv, high, low, price, qty in rows.tolist()
        ]
    ids: list[Any] = rows["trade_id"].tolist()
    if rows["trade_id_hi"].any():
        ids = list(map(_wide_id, rows["trade_id_hi"].tolist(), ids))
    return list(
        map(
            TradeJson,
            ids,
            rows["ts_event"].tolist(),
            rows["ts_recv"].tolist(),
            map(SIDE_NAMES.get, rows["side"].tolist()),
            rows["price"].tolist(),
            rows["qty"].tolist(),
        )
    )


def _wide_id(high: int, low: int) -> int | str:
    """A 128-bit id as the UUID it was; ids of 64 bits stay numbers."""
    if high == 0:
        return low
    text = f"{high & _UINT64:016x}{low & _UINT64:016x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


TRADE = Kind(
    name="trade",
    dtype=np.dtype(
        [
            ("stream", "<u4"), ("flags", "<u2"), ("side", "u1"), ("_pad", "u1"),
            ("ts_event", "<i8"), ("ts_recv", "<i8"), ("trade_id_hi", "<i8"), ("trade_id", "<i8"),
            ("price", "<f8"), ("qty", "<f8"),
        ]
    ),
    columns=(
        *TIME,
        FLAGS,
        Column("side", "char", "side"),
        Column("price", "int8", "price", "price"),
        Column("qty", "int8", "qty", "qty"),
        Column("trade_id_hi", "int8", "trade_id_hi"),
        Column("trade_id", "int8", "trade_id"),
    ),
    id_field="trade_id",
    wide_id_field="trade_id_hi",
    ring_records=1 << 20,
    is_fast=True,
    word="trades",
    to_json=_to_json,
    json_row_bytes=147,
    newest_shown=0,
)  # fmt: skip
