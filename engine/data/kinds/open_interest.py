"""Open interest, in the venue's unit."""

import numpy as np

from engine.data.kind import FLAGS, TIME, Column, Kind

OPEN_INTEREST = Kind(
    name="open_interest",
    dtype=np.dtype(
        [
            ("stream", "<u4"), ("flags", "<u2"), ("_pad", "<u2"), ("ts_event", "<i8"),
            ("ts_recv", "<i8"), ("qty", "<f8"),
        ]
    ),
    columns=(*TIME, FLAGS, Column("qty", "int8", "qty", "qty")),
    id_field="ts_event",
    word="open_interest",
    json_row_bytes=83,
    view="open_interest_points",
    view_values="quantity",
)  # fmt: skip
