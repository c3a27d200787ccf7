"""Liquidation orders. `side` is the order's, so a sell closed a long; `avg_price` is 0 while
nothing of it has been filled.
"""

import numpy as np

from engine.data.kind import FLAGS, MARK_DECIMALS, TIME, Column, Kind

LIQUIDATION = Kind(
    name="liquidation",
    dtype=np.dtype(
        [
            ("stream", "<u4"), ("flags", "<u2"), ("side", "u1"), ("_pad", "u1"),
            ("ts_event", "<i8"), ("ts_recv", "<i8"), ("price", "<f8"), ("avg_price", "<f8"),
            ("qty", "<f8"), ("filled_qty", "<f8"),
        ]
    ),
    columns=(
        *TIME,
        FLAGS,
        Column("side", "char", "side"),
        Column("price", "int8", "price", "price"),
        Column("avg_price", "int8", "avg_price", "fixed", MARK_DECIMALS, zero_is_absent=True),
        Column("qty", "int8", "qty", "qty"),
        Column("filled_qty", "int8", "filled_qty", "qty"),
    ),
    id_field="ts_event",
    word="liquidations",
    json_row_bytes=154,
    view="liquidations",
    view_values="side, price, average_price, quantity, filled_quantity",
    newest_shown=12,
)  # fmt: skip
