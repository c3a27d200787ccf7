"""What a shard knows of one venue's instruments: an unknown symbol must never be subscribed.

The venue is asked when a stream begins, unless its last answer is young; one call serves all who
wait. While it does not answer (it may have banned us from asking for days) nobody else is held up:
`ask` gives up after a while for those who can begin with what the engine knew before.
"""

import asyncio
import contextlib
import logging
import math
from collections.abc import Iterable
from typing import Final

from engine.base.backoff import Backoff
from engine.base.clock import monotonic_s
from engine.base.errors import VenueError
from engine.base.keep_trying import Trouble
from engine.data.slots import UNKNOWN_SYMBOL, Instrument
from engine.messages.streams import StreamSpec
from engine.streams.near_names import near_names
from shards.transport.rest import VenueRest
from shards.transport.sockets import Spawn
from shards.venues.bad_frames import BAD_FRAME
from shards.venues.kit import Venue
from shards.venues.listing import Listing, usable

_log = logging.getLogger(__name__)

_SHOWN_TEXT: Final = 200
_PATIENCE_S: Final = 5.0
"""The answer usually takes a fraction of a second."""
_LOOK_S: Final = 0.1
_MISSING_AGE_S = 30.0
"""A symbol nobody knows, or of which the engine knows something else, is looked for again, but the
venue is not asked more often than this.
"""
_AGE_S_MAX = 900.0
"""Facts change (a tick size): who begins later than this after the last answer asks again."""


class InstrumentSource:
    """The venue's listing."""

    def __init__(self, venue: Venue, rest: VenueRest, spawn: Spawn) -> None:
        self._venue = venue
        self._rest = rest
        self._spawn = spawn
        self._listing = Listing({})
        self._listed_s = float("-inf")
        self._asked_s = float("-inf")
        self._is_asking = False
        self._tried = asyncio.Event()
        self._answered = asyncio.Event()
        self._trouble = Trouble(
            f"{venue.name}: instruments", "streams that begin wait for them", Backoff(), _log
        )

    def get(self, symbol: str) -> Instrument | None:
        """The instrument as the venue described it last, or None."""
        return self._listing.known.get(symbol)

    def is_unreadable(self, symbol: str) -> bool:
        """Whether the venue lists it in a way nobody understands."""
        return symbol in self._listing.unreadable

    @property
    def listed_s(self) -> float:
        """When the venue answered last; 0.0 before, and while it is asked again: then what the
        engine knew counts.
        """
        return 0.0 if self._is_asking else max(self._listed_s, 0.0)

    @property
    def is_asking(self) -> bool:
        """Whether the venue has been asked and has not answered yet."""
        return self._is_asking

    @property
    def trouble(self) -> str:
        """Why streams wait for an answer; empty while nobody does."""
        if not self._is_asking:
            return ""
        call = self._venue.listing.first
        reason = (
            self._rest.waits_for(call.pool)
            or self._trouble.text[:_SHOWN_TEXT]
            or "the venue was asked"
        )
        return f"instruments: {reason}"

    async def ask(self, wanted: Iterable[StreamSpec], *, patient: bool = True) -> bool:
        """Return once the venue has said what it lists; False where it did not answer in time, or
        not at the first try, and the asker is not patient. Where the engine knows something else of
        a symbol, the venue is asked again: at once when the engine has listened later than we did.
        """
        if monotonic_s() - self._listed_s <= min(map(self._trusted_s, wanted), default=_AGE_S_MAX):
            return True
        if not self._is_asking:
            self._is_asking = True
            self._asked_s = monotonic_s()
            self._tried.clear()
            self._answered.clear()
            self._spawn(self._fetch())
        if patient:
            await self._answered.wait()
        elif not self._tried.is_set():
            await self._first_try()
        return self._answered.is_set()

    async def _first_try(self) -> None:
        """Return when the venue has been tried; not much later than it was asked, and at once where
        nobody may ask it. (`asyncio.wait_for` would swallow a cancellation that comes with the
        answer, and the task it was meant for would wait for ever.)
        """
        until_s = self._asked_s + _PATIENCE_S
        pool = self._venue.listing.first.pool
        while not self._rest.is_blocked(pool) and (left_s := until_s - monotonic_s()) > 0:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(left_s, _LOOK_S)):
                    await self._tried.wait()
                return

    def _trusted_s(self, spec: StreamSpec) -> float:
        """For how long our last answer is good enough for a stream."""
        known = self._listing.known.get(spec.key.symbol)
        if spec.listed_s > self._listed_s and spec.instrument != known:
            return -math.inf
        agreed = known is not None and spec.instrument in (None, known)
        return _AGE_S_MAX if agreed else _MISSING_AGE_S

    def why_unknown(self, symbol: str) -> str:
        """What to say of a symbol that the venue does not list, or not so that it can be read."""
        name = self._venue.name
        if why := self._listing.unreadable.get(symbol):
            return f"{name} lists {symbol!r}, but its row cannot be read: {why}"
        near = near_names(symbol, self._listing.known)
        hint = f"; did you mean {' or '.join(near)}?" if near else ""
        if count := self._listing.nameless:
            hint += f" ({count} rows of its listing have no name that can be read)"
        return f"{UNKNOWN_SYMBOL}: {name} lists no {symbol!r}{hint}"

    async def _fetch(self) -> None:
        while self._is_asking:
            try:
                pages = await self._rest.listing()
                listing = usable(self._venue.name, self._venue.listing.read(pages))
            except (VenueError, *BAD_FRAME) as error:
                delay_s = self._trouble.met(error)
                self._tried.set()
                await asyncio.sleep(delay_s)
            else:
                self._listing, self._listed_s = listing, monotonic_s()
                self._is_asking = False
                self._trouble.over()
        self._tried.set()
        self._answered.set()
