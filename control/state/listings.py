"""What the venues list: fetched on a timer and on demand, kept on disk, compared with before.

Of the venues that are collected from, and of those that somebody asks about; the others are left
alone.

The copy on disk makes symbols known at a start while a venue is away, and holds the events that led
to it. One venue's trouble is its own: it is tried again with growing delays, and what was known
stays.
"""

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path

import msgspec

from engine.base.backoff import Backoff
from engine.base.clock import monotonic_s, wall_ns
from engine.base.durable import write_whole
from engine.base.errors import EngineError, VenueError
from engine.base.keep_trying import Trouble, keep_trying
from engine.data.instrument import MARKET_FACTS, Instrument, InstrumentState, knows_market
from engine.data.names import is_symbol
from engine.messages.listings import InstrumentEvent, ListingLoaded
from engine.streams.near_names import near_names
from shards.venues.bad_frames import BAD_FRAME, reason_of
from shards.venues.kit import Venue
from shards.venues.listing import Listing, usable

_log = logging.getLogger(__name__)

_EVENTS_KEPT = 1000
"""Of each venue."""
_EVENTS_LOGGED = 20
"""Of each refresh."""
_REFRESH_MIN_S = 10.0
"""Between two refreshes that somebody asked for."""
_RETRY_MAX_S = 60.0
_SHOWN_TEXT = 200
ASKERS_MAX = 16
"""Clients that wait at a time: their connections are not there for others."""

Fetch = Callable[[Venue], Awaitable[list[bytes]]]
Announce = Callable[[ListingLoaded], None]


class TimedEvent(msgspec.Struct, frozen=True):
    """An event and when we noticed."""

    at_ns: int
    event: InstrumentEvent


class VenueListing(msgspec.Struct):
    """The file of one venue. Events are in it because they must not be told twice, or never, when
    the process ends between two files. `unreadable` is what could not be read, and why, by symbol.
    """

    venue: str
    fetched_ns: int
    instruments: list[Instrument]
    events: list[TimedEvent] = []
    unreadable: dict[str, str] = {}


class Listings:
    """All venues' instruments. `fetch` pays for its requests with the venue's budget."""

    def __init__(
        self,
        venues: Mapping[str, Venue],
        directory: Path | None,
        fetch: Fetch,
        announce: Announce,
        refresh_s: float = 900.0,
        waits_for: Callable[[Venue], str] = lambda _: "",
    ) -> None:
        """`waits_for` says what a fetch waits for before it leaves."""
        self._venues = venues
        self._directory = directory
        self._fetch = fetch
        self._announce = announce
        self.refresh_s = refresh_s
        self._waits_for = waits_for
        self._announced: set[str] = set()
        self._wanted = {name: asyncio.Event() for name in venues}
        self._followed: set[str] = set()
        self._follows_more = asyncio.Event()
        self._listings: dict[str, dict[str, Instrument]] = {}
        self._unreadable: dict[str, Mapping[str, str]] = {}
        self._under_way: dict[str, asyncio.Task[list[InstrumentEvent]]] = {}
        self._refreshed_s: dict[str, float] = {}
        self._asker_count = 0
        self.errors: dict[str, str] = {}
        self._events = {name: deque[TimedEvent](maxlen=_EVENTS_KEPT) for name in venues}

    def load_files(self) -> None:
        """Begin with what was known last time. A damaged file is as good as none."""
        for name in self._venues:
            path = self._path(name)
            if path is None or not path.exists():
                continue
            try:
                listing = msgspec.json.decode(path.read_bytes(), type=VenueListing)
            except (OSError, *BAD_FRAME) as error:
                _log.warning(f"instruments of {name}: the copy on disk is of no use: {error}")
                continue
            known = {each.symbol: each for each in listing.instruments if is_symbol(each.symbol)}
            if known:
                self._listings[name] = known
            self._events[name].extend(listing.events)
            self._unreadable[name] = listing.unreadable

    async def run(self) -> None:
        """Keep the listings fresh that are followed, until cancelled."""
        begun: set[str] = set()
        try:
            async with asyncio.TaskGroup() as group:
                while True:
                    self._follows_more.clear()
                    for name in sorted(self._followed - begun):
                        group.create_task(self._keep_fresh(name))
                    begun |= self._followed
                    await self._follows_more.wait()
        finally:
            fetches = list(self._under_way.values())
            for fetch in fetches:
                fetch.cancel()
            await asyncio.gather(*fetches, return_exceptions=True)

    def is_loaded(self, venue: str) -> bool:
        """Whether the venue's symbols are known."""
        return venue in self._listings

    def get(self, venue: str, symbol: str) -> Instrument | None:
        """An instrument, or None."""
        return self._listings.get(venue, {}).get(symbol)

    def unreadable(self, venue: str) -> Mapping[str, str]:
        """Symbols that the venue lists in a way nobody understands, and what is wrong with them."""
        return self._unreadable.get(venue, {})

    def near(self, venue: str, symbol: str) -> list[str]:
        """Symbols that may have been meant."""
        return near_names(symbol, self._listings.get(venue, {}))

    def of(self, venue: str | None = None) -> Iterable[Instrument]:
        """Instruments of one venue or of all, by name."""
        for name in [venue] if venue is not None else sorted(self._listings):
            listing = self._listings.get(name, {})
            yield from (listing[symbol] for symbol in sorted(listing))

    def events(self, venue: str | None = None) -> list[TimedEvent]:
        """What was noticed at one venue or at all, newest first."""
        names = self._events if venue is None else [venue]
        found = [timed for name in names for timed in reversed(self._events[name])]
        return sorted(found, key=lambda timed: timed.at_ns, reverse=True)

    def follow(self, venues: Iterable[str]) -> None:
        """Know what these list, from now on."""
        if more := (self._venues.keys() & venues) - self._followed:
            self._followed |= more
            self._follows_more.set()

    def want(self, venue: str) -> None:
        """Somebody waits for what the venue does not list yet: look now, not when it is due."""
        self.follow([venue])
        self._wanted[venue].set()

    async def learn(self, venues: Collection[str], within_s: float) -> None:
        """Follow venues that somebody asks about, and return when their listings have come in this
        process. Where one does not in time, or too many wait, what was known has to do.
        """
        self.follow(venues)
        new = (self._venues.keys() & venues) - self._announced
        due = [self.refresh(venue) for venue in new if self.wait_s(venue) <= 0]
        if not due:
            return
        with self.asking() as asker_count, contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s if asker_count <= ASKERS_MAX else 0.0):
                await asyncio.gather(*due, return_exceptions=True)

    def missing(self) -> dict[str, str]:
        """Of every venue, why its listing has not come in this process; empty where it has."""
        return {
            name: "" if name in self._announced else self._why_missing(venue)
            for name, venue in self._venues.items()
        }

    def _why_missing(self, venue: Venue) -> str:
        error = self.errors.get(venue.name, "")[:_SHOWN_TEXT]
        state = "the venue was asked" if venue.name in self._followed else "nobody has asked yet"
        return self._waits_for(venue) or error or state

    def wait_s(self, venue: str) -> float:
        """How long somebody who asks for a refresh has to wait before asking."""
        last_s = self._refreshed_s.get(venue)
        if last_s is None or venue in self._under_way:
            return 0.0
        return max(0.0, last_s + _REFRESH_MIN_S - monotonic_s())

    @contextlib.contextmanager
    def asking(self) -> Iterator[int]:
        """While somebody waits for a refresh; yields how many do."""
        self._asker_count += 1
        try:
            yield self._asker_count
        finally:
            self._asker_count -= 1

    async def refresh(self, venue: str) -> list[InstrumentEvent]:
        """Fetch a venue's listing now, or wait for the fetch that is under way: one that stops
        waiting does not stop it. Raises VenueError; then nothing changes.
        """
        fetch = self._under_way.get(venue)
        if fetch is None:
            fetch = asyncio.create_task(self._refresh(venue), name=f"instruments-{venue}")
            self._under_way[venue] = fetch
            fetch.add_done_callback(partial(self._fetched, venue))
        await asyncio.wait({fetch})
        return fetch.result()

    async def _refresh(self, venue: str) -> list[InstrumentEvent]:
        self._refreshed_s[venue] = monotonic_s()
        try:
            found = await self._listing(self._venues[venue])
        except EngineError as error:
            self.errors[venue] = str(error)
            raise
        self.errors.pop(venue, None)
        before = self._listings.get(venue)
        # A row nobody understands is no delisting: what was known of it stays.
        kept = {name: before[name] for name in found.unreadable if before and name in before}
        now = {**found.known, **kept}
        now_ns = wall_ns()
        events = [] if before is None else differences(venue, before, now, now_ns)
        events += _oddities(venue, self.unreadable(venue), found)
        self._listings[venue], self._unreadable[venue] = now, found.unreadable
        self._events[venue].extend(TimedEvent(now_ns, event) for event in events)
        for event in events[:_EVENTS_LOGGED]:
            _log.info(f"{venue}: {event.symbol} {event.event} {event.detail}".rstrip())
        if (more := len(events) - _EVENTS_LOGGED) > 0:
            _log.info(f"{venue}: and {more} more")
        unreadable = dict(found.unreadable)
        self._announce(ListingLoaded(venue, list(now.values()), events, unreadable, found.nameless))
        self._announced.add(venue)
        kept_events = list(self._events[venue])
        self._save(VenueListing(venue, now_ns, list(now.values()), kept_events, unreadable))
        return events

    async def _listing(self, venue: Venue) -> Listing:
        """What the venue lists now. Raises VenueError, also for an answer nobody can use."""
        pages = await self._fetch(venue)
        try:
            return usable(venue.name, venue.listing.read(pages))
        except BAD_FRAME as error:
            reason = reason_of(error)
            raise VenueError(f"{venue.name}: a listing nobody can use ({reason})") from error

    def _fetched(self, venue: str, fetch: asyncio.Task[list[InstrumentEvent]]) -> None:
        del self._under_way[venue]
        if not fetch.cancelled():
            fetch.exception()  # seen, even if everybody has stopped waiting

    async def _keep_fresh(self, venue: str) -> None:
        backoff = Backoff(1.0, _RETRY_MAX_S)
        trouble = Trouble(f"instruments of {venue}", "what was known stays", backoff, _log)
        while True:
            self._wanted[venue].clear()  # who wants it later may want what this fetch cannot know
            await keep_trying(partial(self.refresh, venue), trouble)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self.refresh_s):
                    await self._wanted[venue].wait()

    def _path(self, venue: str) -> Path | None:
        return self._directory / f"{venue}.json" if self._directory else None

    def _save(self, listing: VenueListing) -> None:
        path = self._path(listing.venue)
        if path is None:
            return
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_whole(path, msgspec.json.encode(listing))
        except OSError as error:
            _log.warning(f"instruments of {listing.venue} are not kept: {error.strerror}")


def _oddities(venue: str, before: Mapping[str, str], found: Listing) -> list[InstrumentEvent]:
    """Rows that cannot be read, where that or the reason is new, and those that can be again."""
    events = [
        InstrumentEvent(venue, symbol, "unreadable", why)
        for symbol, why in sorted(found.unreadable.items())
        if before.get(symbol) != why
    ]
    again = sorted(before.keys() & found.known.keys())
    return events + [InstrumentEvent(venue, symbol, "readable") for symbol in again]


def differences(
    venue: str, before: Mapping[str, Instrument], now: Mapping[str, Instrument], now_ns: int
) -> list[InstrumentEvent]:
    """What happened between two listings, by symbol."""
    events = []
    for symbol in sorted(before.keys() | now.keys()):
        old, new = before.get(symbol), now.get(symbol)
        if old is None:
            events.append(InstrumentEvent(venue, symbol, "listed"))
        elif new is None:
            events.append(InstrumentEvent(venue, symbol, "delisted", _end_of(old, now_ns)))
        elif changes := _changes(old, new):
            events.append(InstrumentEvent(venue, symbol, "changed", changes))
    return events


def _changes(old: Instrument, new: Instrument) -> str:
    """What is new of an instrument, in words; empty where nothing is. That a release knows what one
    before it did not is no change of the market: it would be one of every instrument at once.
    """
    names = [
        name for name in Instrument.__struct_fields__ if getattr(old, name) != getattr(new, name)
    ]
    if not knows_market(old):
        names = [name for name in names if name not in MARKET_FACTS]
    return "; ".join(
        f"{name.removesuffix('_ns')}: {_said(old, name)} -> {_said(new, name)}" for name in names
    )


def _end_of(instrument: Instrument, now_ns: int) -> str:
    """In words; empty where nothing was to be expected."""
    if instrument.state is InstrumentState.EXPIRED or 0 < instrument.delivery_ns <= now_ns:
        return f"expired: delivery {_said(instrument, 'delivery_ns')}"
    return ""


def _said(instrument: Instrument, name: str) -> object:
    if not name.endswith("_ns"):
        return getattr(instrument, name)
    time = getattr(instrument, name.replace("_ns", "_at"))
    return f"{time:%Y-%m-%d %H:%M}Z" if time else "none"
