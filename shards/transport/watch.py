"""Whether a stream is heard, and what to do where it is not: one judge for sockets and polls.

A subscription that is acknowledged proves nothing, nor does an answer that does not name a stream:
each stream must deliver. A silent one is asked for again, and after as long a silence once more
elsewhere. Whether an instrument is quiet or its socket deaf is not guessed: who brings the next row
keeps the stream. If that is its present socket it was a false alarm, and the stream may be silent
for twice as long before the next.
"""

import enum
import logging
import math
from collections.abc import Sequence
from typing import Final

from engine.messages.streams import StreamState
from shards.feeds.feed import Feed

_log = logging.getLogger(__name__)

_FALSE_ALARMS_MAX: Final = 3
"""After so many a stream's silence grows suspicious no later."""


_NAMED_MAX: Final = 5
"""Streams that the log names when many fall silent at once."""


class Remedy(enum.Enum):
    """What to do about a stream's silence."""

    NONE = enum.auto()
    """Nothing (more), and nothing is proven."""
    HEARD = enum.auto()
    """Nothing: it delivers."""
    RESUBSCRIBE = enum.auto()
    """It has fallen silent just now."""
    ASK_ELSEWHERE = enum.auto()
    """It was asked for again, in vain."""


def judge(feed: Feed, limit_s: float, false_alarms: int, now_s: float) -> Remedy:
    """What to do about a stream at `now_s` (monotonic) that may be silent for `limit_s` seconds,
    and whose silence has meant nothing `false_alarms` times. Silence of a stream that is not
    subscribed, or may be silent for ever, says nothing.
    """
    silent_s = feed.silent_s(now_s)
    if silent_s <= limit_s:
        return Remedy.HEARD if limit_s < math.inf else Remedy.NONE
    if feed.state in (StreamState.LIVE, StreamState.SYNCING):
        return Remedy.RESUBSCRIBE
    patience = 2 ** (1 + min(false_alarms, _FALSE_ALARMS_MAX))
    if feed.state is StreamState.STALE and silent_s > limit_s * patience:
        return Remedy.ASK_ELSEWHERE
    return Remedy.NONE


def say_silent(streams: Sequence[Feed]) -> None:
    """A venue that falls silent does so for hundreds at once: a few are named."""
    for stream in streams[:_NAMED_MAX]:
        _log.warning("%s: %s", stream.key, stream.reason)
    if (more := len(streams) - _NAMED_MAX) > 0:
        _log.warning("%s: and %d more streams fell silent", streams[0].key.venue, more)
