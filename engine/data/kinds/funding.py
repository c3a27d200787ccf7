"""Funding rates with mark and index price.

`index` is the venue's index or oracle price; `next_ts` and `interval_s` are 0 where its message
does not tell them, and a contract that pays no funding has `rate` 0 and the flag NO_RATE. What was
paid has the flag SETTLED; its `mark` is the price at which it was.
"""

import msgspec
import numpy as np

from engine.data.flags import Flag
from engine.data.kind import (
    FLAGS,
    MARK_DECIMALS,
    RATE_DECIMALS,
    TIME,
    Column,
    Kind,
    RecordArray,
    flagged,
    lists,
)


class FundingJson(msgspec.Struct, gc=False, omit_defaults=True):
    """A funding rate with mark and index price; null where the venue does not tell. `inexact` is
    there, and true, where the venue wrote more digits than these, and `settled` where this was
    paid.
    """

    time: int
    recv: int
    rate: float | None
    mark: float | None
    index: float | None
    next_time: int | None
    interval_s: int | None
    inexact: bool = False
    settled: bool = False


def _to_json(rows: RecordArray) -> list[FundingJson]:
    no_rate = flagged(rows, Flag.NO_RATE)
    rates = [None if no else rate for no, rate in zip(no_rate, rows["rate"].tolist(), strict=True)]
    others = (
        [value or None for value in values]
        for values in lists(rows, "mark", "index", "next_ts", "interval_s")
    )
    times, inexact = lists(rows, "ts_event", "ts_recv"), flagged(rows, Flag.INEXACT)
    return list(map(FundingJson, *times, rates, *others, inexact, flagged(rows, Flag.SETTLED)))


FUNDING = Kind(
    name="funding",
    dtype=np.dtype(
        [
            ("stream", "<u4"), ("flags", "<u2"), ("_pad", "<u2"), ("ts_event", "<i8"),
            ("ts_recv", "<i8"), ("rate", "<f8"), ("mark", "<f8"), ("index", "<f8"),
            ("next_ts", "<i8"), ("interval_s", "<u4"), ("_tail", "<u4"),
        ]
    ),
    columns=(
        *TIME,
        FLAGS,
        Column("rate", "int8", "rate", "fixed", RATE_DECIMALS),
        Column("mark", "int8", "mark", "fixed", MARK_DECIMALS, zero_is_absent=True),
        Column("index", "int8", "index", "fixed", MARK_DECIMALS, zero_is_absent=True),
        Column("next_ts", "int8", "next_ts", zero_is_absent=True),
        Column("interval_s", "int4", "interval_s", zero_is_absent=True),
    ),
    id_field="ts_event",
    word="funding",
    to_json=_to_json,
    json_row_bytes=174,
    view="funding_rates",
    view_values="rate, mark_price, index_price, next_funding_time",
)  # fmt: skip
