"""Whose clock is wrong when rows seem to come from the future: ours, or a venue's.

Rows wait while it is ours, and those that were received meanwhile have their time of receipt put
right by as much as the clock was.
"""

import logging
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Final

import numpy as np

from engine.base.backoff import Backoff
from engine.base.clock import monotonic_s, wall_ns
from engine.base.keep_trying import Trouble
from engine.data.kind import RecordArray
from engine.data.kinds import GAP
from engine.writer.rows.screen import FUTURE_NS

_log = logging.getLogger(__name__)

_RETRY_S: Final = 1.0
_FIRST_WITNESS_S: Final = 2.0
"""So long after the start rows wait that have our time for want of another: until somebody says
whether it is right."""
_WITNESS_S: Final = 60.0
_AGREEMENT_NS: Final = 300_000_000_000
_STEP_NS: Final = 60_000_000_000
_MARGIN_NS: Final = 10_000_000_000
"""So long before the first row that told of it our clock was wrong already."""
_LATEST_NS: Final = 4_102_444_800_000_000_000
"""2100-01-01 UTC. No clock is that far behind: such a row is refused for what it is."""
_ONE_VENUE_S: Final = 3600.0
"""For so long a venue that nobody contradicts is believed. Then its rows are refused, declared and
kept: were they right after all, `fts quarantine retry` stores them."""


@dataclass(slots=True)
class _Wrong:
    """While our clock is wrong: what it said from when to when, and how far that is from the
    monotonic one."""

    from_ns: int
    to_ns: int
    offset_ns: int


@dataclass(frozen=True, slots=True)
class _Step:
    """Our clock said these times, and was put right by so much."""

    from_ns: int
    to_ns: int
    by_ns: int


class ClockDoubt:
    """Judges whose clock is wrong when a venue's rows seem to come from the future.

    Where a live row of any stream agrees with our clock (within five minutes, in the last minute,
    without a step of our clock since), the others are wrong, and are refused for it. Where none
    does, our clock is behind: a machine without a battery starts in the past, and is put right a
    moment later. Such rows wait until then, in ring and journal; nothing else bounds it, unless
    there is only one venue, which may be wrong itself.
    """

    def __init__(
        self,
        venue_of: Callable[[int], str],
        clock_s: Callable[[], float] = monotonic_s,
    ) -> None:
        self._venue_of = venue_of
        self._clock_s = clock_s
        self._born_s = clock_s()
        self._next_s: dict[object, float] = {}
        """When to look again at each source whose rows are ahead of our clock."""
        self._followers_s: dict[object, float] = {}
        """The same for those whose rows have our time, as long as the others wait."""
        self._wrong: _Wrong | None = None
        self._steps: list[_Step] = []
        self._venues: set[str] = set()
        self._since_s = 0.0
        self._witness: tuple[float, int] | None = None
        """When a row agreed with our clock, and how far that was from the monotonic one (ns)."""
        self._trouble = Trouble(
            "clock", "rows wait in the journal until it is right", Backoff(), _log, clock_s
        )

    @property
    def text(self) -> str:
        """By how much our clock is wrong; empty while nothing waits for it."""
        return self._trouble.text if self._next_s else ""

    def waits(self, source: object) -> bool:
        """Whether the source's next rows were in doubt a moment ago."""
        next_s = max(self._next_s.get(source, 0.0), self._followers_s.get(source, 0.0))
        return self._clock_s() < next_s

    def only(self, sources: Collection[object]) -> None:
        """These are all sources with rows that wait: others need not wait any more."""
        for source in [source for source in self._next_s if source not in sources]:
            self._settled(source)

    def doubts(self, source: object, kind: str, records: RecordArray) -> bool:
        """Whether the next rows of a source shall wait for our clock. Gaps never do: they are worth
        more than their time.
        """
        if kind == GAP.name or not len(records):
            return False
        now_ns = wall_ns()
        times = records["ts_event"]
        if times.max() <= now_ns + FUTURE_NS:
            self._hear(records[-1:], now_ns)
            self._settled(source)
            return self._follows(source, records)
        ahead = (times > now_ns + FUTURE_NS) & (times < _LATEST_NS)
        self._hear(records[~ahead], now_ns)
        if not ahead.any() or self._is_witnessed(now_ns):
            self._settled(source)
            return False
        return self._suspect(source, records[ahead], now_ns)

    def put_right(self, records: RecordArray) -> RecordArray:
        """The rows, with the time at which they were received. Which ones have a wrong one is
        beyond doubt where the venue's time is a day later; rows with our time only go with them.
        """
        for step in self._steps:
            recv = records["ts_recv"]
            own = records["ts_event"] == recv
            wrong = own | (records["ts_event"] - recv > FUTURE_NS)
            wrong &= (recv >= step.from_ns) & (recv <= step.to_ns)
            if wrong.any():
                records = records.copy()
                records["ts_recv"][wrong] += step.by_ns
                records["ts_event"][wrong & own] += step.by_ns
        return records

    def _hear(self, records: RecordArray, now_ns: int) -> None:
        """Note a live row that agrees with our clock. What a venue gives no time for has ours."""
        times = records["ts_event"]
        near = np.abs(times - now_ns) < _AGREEMENT_NS
        if (near & (times != records["ts_recv"])).any():
            self._witness = self._clock_s(), self._offset_ns(now_ns)

    def _is_witnessed(self, now_ns: int) -> bool:
        if self._witness is None:
            return False
        heard_s, offset_ns = self._witness
        stepped_ns = abs(self._offset_ns(now_ns) - offset_ns)
        return self._clock_s() - heard_s <= _WITNESS_S and stepped_ns < _STEP_NS

    def _offset_ns(self, now_ns: int) -> int:
        """Wall clock less monotonic one: changes only when somebody sets the former."""
        return now_ns - int(self._clock_s() * 1e9)

    def _follows(self, source: object, records: RecordArray) -> bool:
        """Whether rows with our own time wait for what becomes of it."""
        now_s = self._clock_s()
        in_doubt = bool(self._next_s) or (
            self._witness is None and now_s - self._born_s < _FIRST_WITNESS_S
        )
        if in_doubt and records["ts_event"][-1] == records["ts_recv"][-1]:
            self._followers_s[source] = now_s + _RETRY_S
            return True
        self._followers_s.pop(source, None)
        return False

    def _suspect(self, source: object, ahead: RecordArray, now_ns: int) -> bool:
        now_s = self._clock_s()
        if not self._next_s and not self._venues:
            self._since_s = now_s
        self._venues |= {self._venue_of(int(slot)) for slot in np.unique(ahead["stream"])}
        if len(self._venues) == 1 and now_s - self._since_s >= _ONE_VENUE_S:
            self._next_s.clear()
            return False
        span = _in_words(int(np.median(ahead["ts_event"])) - now_ns)
        self._trouble.met(f"this machine's clock is {span} behind the venues'")
        self._next_s[source] = now_s + _RETRY_S
        self._note_wrong(int(ahead["ts_recv"].min()), now_ns)
        return True

    def _note_wrong(self, recv_ns: int, now_ns: int) -> None:
        """Our clock said `recv_ns`, and says `now_ns`; neither is true."""
        offset_ns, wrong = self._offset_ns(now_ns), self._wrong
        if wrong is None or abs(offset_ns - wrong.offset_ns) >= _STEP_NS:
            self._wrong = _Wrong(min(recv_ns, now_ns), now_ns, offset_ns)
            return
        wrong.from_ns, wrong.to_ns = min(wrong.from_ns, recv_ns), max(wrong.to_ns, now_ns)

    def _settled(self, source: object) -> None:
        """These rows need not wait, whosever clock was wrong."""
        if self._next_s.pop(source, None) is None:
            return
        if (wrong := self._wrong) is not None:
            by_ns = self._offset_ns(wall_ns()) - wrong.offset_ns
            if abs(by_ns) >= _STEP_NS:
                from_ns = wrong.from_ns - _MARGIN_NS
                to_ns = wrong.to_ns + int(2 * _RETRY_S * 1e9)
                self._steps = [*self._steps[-3:], _Step(from_ns, to_ns, by_ns)]
                self._wrong = None
        if not self._next_s:
            self._venues.clear()
            self._wrong = None
            self._trouble.over()


def _in_words(span_ns: int) -> str:
    days, hours = divmod(round(span_ns / 3_600_000_000_000), 24)
    if days < 2:
        return f"{24 * days + hours} h"
    return f"{days} days {hours} h" if hours else f"{days} days"
