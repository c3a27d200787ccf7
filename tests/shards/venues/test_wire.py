"""Times that venues write as texts."""

from datetime import UTC, datetime, timedelta

import hypothesis.strategies as st
import msgspec
import pytest
from hypothesis import given

from shards.venues.bad_frames import BAD_FRAME
from shards.venues.wire import Moment, check_moment, ns_of

FIRST = datetime(2000, 1, 1, tzinfo=UTC)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
SECONDS = 3_155_759_999
"""Of a century."""


def read(text: str) -> int:
    moment = msgspec.json.decode(msgspec.json.encode(text), type=Moment, strict=False)
    check_moment(moment)
    return ns_of(moment)


@given(st.integers(0, SECONDS), st.integers(0, 999_999), st.integers(0, 6))
def test_a_moment_is_read_to_the_microsecond(seconds: int, us: int, digits: int) -> None:
    at = FIRST + timedelta(seconds=seconds)
    fraction = f"{us:06d}"[:digits]
    text = f"{at:%Y-%m-%dT%H:%M:%S}{'.' if digits else ''}{fraction}Z"
    whole_s = (at - EPOCH) // timedelta(seconds=1)
    assert read(text) == whole_s * 10**9 + int(fraction.ljust(6, "0")) * 1000


def test_zones_are_heeded() -> None:
    assert read("2026-11-22T12:30:00+02:30") == read("2026-11-22T10:00:00Z")


@pytest.mark.parametrize(
    "text",
    [
        "2026-11-22T10:00:00", "2026-11-22T10:00:00.Z", "2026-02-30T10:00:00Z", "yesterday", "",
        "1970-01-01T00:00:00.000Z", "2100-01-01T00:00:00Z", "9999-12-31T00:00:00Z", "-1", "1e30",
        "2026-11-22T10:00:00.1_2Z", "2026-11-22T10:00:00.\u0663Z", "2026-11-22T25:00:00.000Z",
    ],
)  # fmt: skip
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(BAD_FRAME):
        read(text)
