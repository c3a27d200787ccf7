"""Field types of venue messages: what no market can mean is refused inside the JSON decoder.

msgspec checks the bounds in C while it decodes (5 ns a number, measured), so no Python looks at a
price again. A NaN or an infinity fails the comparison, a string that is no plain number is refused.
"""

from datetime import UTC, datetime
from typing import Annotated, Final

from msgspec import Meta, ValidationError

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
"""A time as RFC 3339 writes it, with its zone, as exact as µs; `ns_of` reads it. Where nobody does
before anything is delivered, the message calls `check_moment` in its `__post_init__`.
"""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_FIRST_DAY: Final = (datetime(2000, 1, 1, tzinfo=UTC) - _EPOCH).days
_LAST_DAY: Final = (datetime(2099, 12, 31, tzinfo=UTC) - _EPOCH).days
_DAY_S: Final = 86_400


def check_moment(moment: datetime | None) -> None:
    """Raises ValueError for a time of another century than this."""
    try:
        if moment is not None:
            ns_of(moment)
    except ValidationError as error:
        raise ValueError(str(error)) from None


def ns_of(moment: datetime) -> int:
    """Since 1970, in ns. Raises ValidationError, as a decoder does for what no market can mean, for
    a time of another century than this.
    """
    since = moment - _EPOCH
    days = since.days
    if not _FIRST_DAY <= days <= _LAST_DAY:
        raise ValidationError("Expected a time of this century")
    return ((days * _DAY_S + since.seconds) * 1_000_000 + since.microseconds) * NS_PER_US
