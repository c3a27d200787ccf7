"""How often contracts pay funding, for streams whose rows do not say it.

The venue is asked when the first such stream begins and again every minute or so; each row gets
what was said last. An answer that is too old is worth nothing: the interval is then unknown, and
unknown is stored as NULL rather than guessed.
"""

import asyncio
import logging
from typing import Final

from engine.base.backoff import Backoff
from engine.base.clock import monotonic_s
from engine.base.errors import VenueError
from engine.base.keep_trying import Trouble, keep_trying
from shards.feeds.contracts import FundingRates
from shards.transport.rest import VenueRest
from shards.venues.bad_frames import BAD_FRAME
from shards.venues.kit import FundingIntervals
from shards.venues.listing import Readings

_log = logging.getLogger(__name__)

_PATIENCE_S: Final = 5.0
"""So long the first rows wait for the first answer; it usually takes a fraction of a second."""
_TRUSTED_REFRESHES: Final = 10
"""An answer counts for so many refreshes that failed."""


class IntervalSource:
    """The intervals of one venue's contracts. Let `run` run and `tick` be called."""

    def __init__(self, rest: VenueRest, intervals: FundingIntervals) -> None:
        self._rest = rest
        self._intervals = intervals
        self._streams: dict[int, FundingRates] = {}
        self._known: Readings[int] | None = None
        self._answered_s = 0.0
        self._tried = asyncio.Event()

    def add(self, stream: FundingRates) -> None:
        """Keep this stream's interval up to date."""
        self._streams[stream.slot] = stream
        self._tell(stream)

    def remove(self, slot: int) -> None:
        """Its stream is wanted no more."""
        self._streams.pop(slot, None)

    async def first_try(self) -> None:
        """Return once the venue has answered or has failed to; after a while in any case."""
        try:
            async with asyncio.timeout(_PATIENCE_S):
                await self._tried.wait()
        except TimeoutError:
            _log.warning("%s: no answer yet; intervals stay unknown", self._intervals.call.path)

    async def run(self) -> None:
        """Ask until cancelled."""
        path, refresh_s = self._intervals.call.path, self._intervals.refresh_s
        trouble = Trouble(path, "intervals go unknown in a while", Backoff(1.0, refresh_s), _log)
        odd = Trouble(path, "their intervals are unknown", Backoff(), _log)
        while True:
            self._known = await keep_trying(self._ask, trouble, (VenueError, *BAD_FRAME))
            self._answered_s = monotonic_s()
            if why := _oddities(self._known):
                odd.met(why)
            else:
                odd.over()
            for stream in self._streams.values():
                self._tell(stream)
            await asyncio.sleep(refresh_s)

    async def _ask(self) -> Readings[int]:
        try:
            return self._intervals.parse(await self._rest.fetch(self._intervals.call))
        finally:
            self._tried.set()

    def tick(self) -> None:
        """Forget an answer that is too old."""
        age_s = monotonic_s() - self._answered_s
        if self._known is not None and age_s > _TRUSTED_REFRESHES * self._intervals.refresh_s:
            path = self._intervals.call.path
            _log.warning("%s: unanswered for %.0f s; intervals are unknown", path, age_s)
            self._known = None
            for stream in self._streams.values():
                self._tell(stream)

    def _tell(self, stream: FundingRates) -> None:
        stream.interval_s = self._interval_s(stream.key.symbol)

    def _interval_s(self, symbol: str) -> int:
        """What is known of it, 0 where that is nothing. A symbol that is not named pays as usual,
        but one whose row cannot be read does not; a row without a name may be anybody's.
        """
        found = self._known
        if found is None:
            return 0
        is_unsure = symbol in found.unreadable or found.nameless > 0
        return found.known.get(symbol, 0 if is_unsure else self._intervals.usual_s)


def _oddities(found: Readings[int]) -> str:
    """The rows that cannot be read, in words; empty where there are none."""
    count = len(found.unreadable) + found.nameless
    if not count:
        return ""
    example = next((f", e.g. {name}: {why}" for name, why in found.unreadable.items()), "")
    return f"{count} rows cannot be read{example}"
