"""How long a venue that refuses wants to be left alone, in whichever form it says so.

`Retry-After` is seconds, or the date at which it ends. Some also say when a ban ends in words, and
for some of their refusals only there: `banned until 1795661085790` (ms since 1970), or
`"retryAfter":1795661085790` beside `"serverTime"` in answers to socket requests. A moment is of the
venue's clock, so it is compared with what that clock says now: the `Date` of the same answer, or
its `serverTime`. Our own clock is asked last, for it may be wrong by years. `"wait":2` is seconds.
"""

import email.utils
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from engine.base.clock import wall_ns
from engine.limits.budget import BLOCK_S_MAX

BANNED: Final = 418
"""Under whatever status a venue speaks of a ban, this is meant."""
TOO_OFTEN: Final = 429
"""Likewise where it says in its own way (`Venue.too_often`) that it is asked too often."""

_UNTIL: Final = re.compile(rb'banned until:? {0,4}(\d{10,19})|"retryAfter" {0,4}: {0,4}(\d{10,19})')
_NOW: Final = re.compile(rb'"serverTime" {0,4}: {0,4}(\d{10,19})')
_SECONDS: Final = re.compile(rb'"wait" {0,4}: {0,4}(\d{1,6})')
_LOOKED_AT_BYTES: Final = 4096


def speaks_of_ban(body: bytes) -> bool:
    """Whether a short answer is about a ban of this address."""
    return len(body) <= _LOOKED_AT_BYTES and b"banned until" in body


def refusal_in(body: bytes, too_often: Iterable[bytes]) -> int:
    """The status of `REFUSALS` that a short answer means by what it says; 0 where it is none."""
    if len(body) > _LOOKED_AT_BYTES:
        return 0
    if speaks_of_ban(body):
        return BANNED
    return TOO_OFTEN if any(words in body for words in too_often) else 0


def told_wait_s(headers: Mapping[str, str], body: bytes = b"") -> float | None:
    """Seconds for which the venue wants nobody to ask: the longest of what it says, at least one
    and at most what a venue may mean; None where it does not say.
    """
    head = body[:_LOOKED_AT_BYTES]
    clocks = (_date_s(headers.get("Date")), _moment_s(_NOW.search(head)), wall_ns() / 1e9)
    moments = [_moment_s(found) for found in _UNTIL.finditer(head)]
    waits = [_header_wait_s(headers.get("Retry-After"), clocks)]
    waits += [_wait_until(moment, clocks) for moment in moments]
    waits += [float(found[1]) for found in _SECONDS.finditer(head)]
    longest_s = max(waits)
    return min(max(longest_s, 1.0), BLOCK_S_MAX) if longest_s > 0 else None


def _wait_until(moment_s: float, clocks: Sequence[float]) -> float:
    """By the first clock that makes sense of it; by the first of all where none does."""
    waits = [moment_s - now_s for now_s in clocks if now_s]
    return next((wait_s for wait_s in waits if 0 < wait_s <= BLOCK_S_MAX), waits[0])


def _header_wait_s(text: str | None, clocks: Sequence[float]) -> float:
    """0 where it is missing or nonsense: that is no reason to go on at once."""
    if not text:
        return 0.0
    try:
        wait_s = float(text)
    except ValueError:
        until_s = _date_s(text)
        return _wait_until(until_s, clocks) if until_s else 0.0
    return 0.0 if math.isnan(wait_s) else max(wait_s, 1.0)


def _date_s(text: str | None) -> float:
    """An HTTP date in seconds since 1970; 0 where there is none."""
    try:
        return email.utils.parsedate_to_datetime(text).timestamp() if text else 0.0
    except (ValueError, OverflowError):
        return 0.0


def _moment_s(found: "re.Match[bytes] | None") -> float:
    """Seconds since 1970 of a number in s, ms, µs or ns, by its size; 0 where there is none."""
    if found is None:
        return 0.0
    number = float(next(filter(None, found.groups())))
    while number >= 1e11:
        number /= 1e3
    return number
