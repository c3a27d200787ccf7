"""Field types of venue messages: what no market can mean is refused inside the JSON decoder.

msgspec checks the bounds in C while it decodes (5 ns a number, measured), so no Python looks at a
price again. A NaN or an infinity fails the comparison, a string that is no plain number is refused.
"""

from datetime import datetime
from typing import Annotated, Final

from msgspec import Meta

Price = Annotated[float, Meta(gt=0, le=1e15)]
"""Positive and finite."""

Quantity = Annotated[float, Meta(ge=0, le=1e15)]
"""Of a book level: zero removes it."""

TradeQuantity = Annotated[float, Meta(gt=0, le=1e15)]
"""A trade of nothing is not a trade."""

PriceOrNone = Annotated[float, Meta(ge=0, le=1e15)]
"""Zero where there is none: a computed price of a halted market, an empty side of a book."""

Rate = Annotated[float, Meta(ge=-1e3, le=1e3)]
"""A fraction an interval."""

Id = Annotated[int, Meta(ge=0, le=2**63 - 1)]
"""A trade or update id that fits the database's bigint."""

TIME_MS_MAX = 4_102_444_800_000

Millis = Annotated[int, Meta(ge=0, le=TIME_MS_MAX)]
"""Milliseconds since 1970, up to the year 2100, so that nanoseconds fit 64 bits."""

Date = Annotated[int, Meta(ge=0, le=9_000_000_000_000)]
"""A date of an instrument, in ms, some far ahead (perpetuals are delivered in 2100); as ns it is
below 2 ** 63.
"""
Word = Annotated[str, Meta(max_length=64, pattern=r"^[^\x00-\x1f\x7f-\x9f]*$")]
"""A name that people and the database can read: no NUL, nothing that drives a terminal."""

NS_PER_MS = 1_000_000
NS_PER_US = 1_000

Moment = Annotated[datetime, Meta(tz=True)]
"""A time as RFC 3339 writes it, with its zone, as exact as µs. A message that has one calls
`check_moment` in its `__post_init__`; `ns_of` reads it.
"""

_CENTURY: Final = 20


def check_moment(moment: datetime | None) -> None:
    """Raises ValueError for a time of another century than this."""
    if moment is not None and moment.year // 100 != _CENTURY:
        raise ValueError("Expected a time of this century")


def ns_of(moment: datetime) -> int:
    """Since 1970, in ns; a double tells µs until 2242."""
    return int(moment.timestamp() * 1e6 + 0.5) * NS_PER_US
