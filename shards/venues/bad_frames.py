"""What a venue sent and nobody can use: counted by reason, said once in a while, and skipped."""

import logging
from collections import Counter

import msgspec

from shards.feeds.feed import MalformedFrameError

_log = logging.getLogger(__name__)

BAD_FRAME = (
    msgspec.MsgspecError,
    UnicodeDecodeError,
    RecursionError,
    OverflowError,
    ValueError,
)
"""What a hostile frame can raise while it is decoded: measured."""

_SHOWN_PAYLOAD_BYTES = 120


class BadFrames:
    """The count of one connection or poller."""

    def __init__(self, venue: str) -> None:
        self._venue = venue
        self.by_reason: Counter[str] = Counter()

    def add(self, error: Exception, payload: bytes) -> None:
        """Count one; log the 1st, 2nd, 4th, 8th, … so that a flood does not fill the log."""
        reason = reason_of(error)
        self.by_reason[reason] += 1
        seen = self.by_reason[reason]
        if seen & (seen - 1) == 0:
            _log.warning(
                "%s: unusable frame (%s, %d so far), skipped: %s: %r",
                self._venue, reason, seen, str(error)[:200], payload[:_SHOWN_PAYLOAD_BYTES],
            )  # fmt: skip


def reason_of(error: Exception) -> str:
    """A label from a closed set, for counters."""
    match error:
        case MalformedFrameError():
            return error.reason
        case msgspec.ValidationError():
            return "schema"
        case msgspec.DecodeError():
            return "json"
        case UnicodeDecodeError():
            return "utf8"
        case RecursionError():
            return "depth"
        case _:
            return "value"
