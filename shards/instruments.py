"""What a shard knows of one venue's instruments: an unknown symbol must never be subscribed."""

import asyncio
import difflib
import logging
from collections.abc import Callable, Mapping

from engine.catalog import Instrument
from engine.clock import monotonic_s
from engine.errors import VenueError
from shards.backoff import Backoff
from shards.rest import VenueRest
from shards.unusable import UNUSABLE_FRAME
from shards.venues.spec import Venue

log = logging.getLogger(__name__)

_INSTRUMENTS_AGE_S = 30.0
"""A symbol nobody knows is looked for again, but the venue is not asked more often than this."""


class InstrumentSource:
    """The venue's listing. `on_trouble` is told why it has not come yet."""

    def __init__(self, venue: Venue, rest: VenueRest, on_trouble: Callable[[str], None]) -> None:
        self._venue = venue
        self._rest = rest
        self._on_trouble = on_trouble
        self._listed: Mapping[str, Instrument] = {}
        self._listed_s = float("-inf")
        self._turn = asyncio.Lock()

    async def of(self, symbols: set[str]) -> Mapping[str, Instrument]:
        """All instruments, fetched anew when they lack one of `symbols`."""
        async with self._turn:
            age_s = monotonic_s() - self._listed_s
            if not symbols <= self._listed.keys() and age_s > _INSTRUMENTS_AGE_S:
                self._listed = await self._fetch()
                self._listed_s = monotonic_s()
            return self._listed

    def why_unknown(self, symbol: str) -> str:
        """What to say of a symbol the venue does not list."""
        near = difflib.get_close_matches(symbol.upper(), list(self._listed), n=3, cutoff=0.6)
        hint = f"; did you mean {' or '.join(near)}?" if near else ""
        return f"{self._venue.name} lists no {symbol!r}{hint}"

    async def _fetch(self) -> Mapping[str, Instrument]:
        backoff = Backoff()
        while True:
            try:
                body = await self._rest.fetch(self._venue.instruments)
                return self._venue.parse_instruments(body)
            except (VenueError, *UNUSABLE_FRAME) as error:
                delay_s = backoff.next_s()
                log.warning("instruments: %s; again in %.1f s", error, delay_s)
                self._on_trouble(f"instruments: {error}")
                await asyncio.sleep(delay_s)
