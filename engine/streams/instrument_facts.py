"""What is known of the streams' instruments: on disk before a stream begins, and kept true.

Control fetches what the venues list and hands it on. What an earlier run has left in the stream
table is as good until then: a venue that refuses REST requests for days, or a control process that
is away, holds up no stream whose instrument is known. A disk that is full holds up the streams
that are to be described and nobody else: what waits is written once there is room.

A listing counts for every stream of its symbols: one that runs for months must not go by the tick
of its first day.
"""

import logging
from collections.abc import Iterable, Mapping

import msgspec

from engine.data.instrument import Instrument
from engine.data.names import UNKNOWN_SYMBOL, StreamKey
from engine.data.slots import Slot, Slots
from engine.messages.listings import ListingLoaded
from engine.messages.streams import StreamSpec
from engine.streams.near_names import near_names

_log = logging.getLogger(__name__)


class InstrumentFacts:
    """Between what control hears of the venues and the stream table."""

    def __init__(self, slots: Slots) -> None:
        self._slots = slots
        self._listings: dict[str, ListingLoaded] = {}
        self._known: dict[str, dict[str, Instrument]] = {}
        """By venue and symbol, as listed last."""
        self._unwritten: set[str] = set()
        """Venues whose listing may say what the stream table does not."""
        self._trouble: Mapping[str, str] | None = None
        """By venue: why its listing has not come. None while control has said nothing."""
        self._control = "control is starting"
        self.problem = ""
        """Why nothing can be written; empty while it can."""

    def estate(self) -> list[ListingLoaded]:
        """What `listed` was told last of each venue."""
        return list(self._listings.values())

    def listed(self, message: ListingLoaded) -> None:
        """What a venue lists now."""
        self._listings[message.venue] = message
        self._known[message.venue] = {each.symbol: each for each in message.instruments}
        self._unwritten.add(message.venue)

    def heard(self, trouble: Mapping[str, str]) -> None:
        """Control says why the listing of each of its venues has not come; empty where it has."""
        self._trouble = trouble

    def control_ended(self, reason: str) -> None:
        """Nobody fetches, for a moment."""
        self._trouble, self._control = None, f"control {reason}; it starts again"

    def is_listed(self, venue: str) -> bool:
        """Whether a listing of the venue has come in this run."""
        return venue in self._listings

    def get(self, key: StreamKey) -> Instrument | None:
        """A stream's instrument as listed last, or else as described last; None for a symbol that
        the last listing does not have.
        """
        listing = self._listings.get(key.venue)
        if listing is not None:
            if (facts := self._known[key.venue].get(key.symbol)) is not None:
                return facts
            if key.symbol not in listing.unreadable:
                return None
        return self._slots.instrument(key.venue, key.symbol)

    def store(self, beginning: Iterable[StreamSpec] = ()) -> None:
        """Write down what is new of the streams that are described, and what is known of those that
        are `beginning`, as far as the disk takes it.
        """
        news = {spec.slot: facts for spec in beginning if (facts := self.get(spec.key))}
        if not news and not self._unwritten:
            self.problem = ""
            return
        if self._unwritten:
            news |= {slot.slot: facts for slot in self._slots if (facts := self._newer(slot))}
        try:
            self._slots.describe_all(
                {each: self._not_coarser(facts, each) for each, facts in news.items()}
            )
        except OSError as error:
            problem = f"the stream table cannot be written: {error.strerror}"
            if problem != self.problem:
                _log.error(f"{problem}: streams that begin wait for it")
            self.problem = problem
            return
        self.problem = ""
        self._unwritten.clear()

    def on_disk(self, slot: int) -> Instrument | None:
        """What the stream table says of a slot."""
        entry = self._slots.get(slot)
        return entry.instrument if entry is not None else None

    def may_begin(self, spec: StreamSpec) -> bool:
        """Whether a stream can run: its instrument is on disk, and its venue still lists it. One of
        a venue that this version does not know is for its shard to refuse.
        """
        if self._is_strange(spec.key.venue):
            return True
        return self.on_disk(spec.slot) is not None and self.get(spec.key) is not None

    def why_impossible(self, key: StreamKey) -> str:
        """Why an instrument of its kind has no such stream; empty where that is not known yet."""
        instrument = self.get(key)
        return instrument.lacks(key.kind) if instrument is not None else ""

    def is_unknown(self, key: StreamKey) -> bool:
        """Whether the venue lists no such symbol, or says nothing of it that can be read."""
        return self.is_listed(key.venue) and self.get(key) is None

    def why_waiting(self, key: StreamKey) -> str:
        """What to say of a stream that may not begin yet."""
        if self.get(key) is not None:
            return self.problem
        if self._trouble is None:
            return f"instruments: {self._control}"
        return f"instruments: {self._trouble.get(key.venue) or 'the venue was asked'}"

    def why_unknown(self, key: StreamKey) -> str:
        """What to say of a symbol that `is_unknown`. Near names of 20,000 take their time."""
        listing = self._listings[key.venue]
        if why := listing.unreadable.get(key.symbol):
            return f"{key.venue} lists {key.symbol!r}, but its row cannot be read: {why}"
        near = near_names(key.symbol, self._known[key.venue])
        hint = f"; did you mean {' or '.join(near)}?" if near else ""
        if listing.nameless:
            hint += f" ({listing.nameless} rows of its listing have no name that can be read)"
        return f"{UNKNOWN_SYMBOL}: {key.venue} lists no {key.symbol!r}{hint}"

    def _is_strange(self, venue: str) -> bool:
        is_listed = self.is_listed(venue)
        return self._trouble is not None and not is_listed and venue not in self._trouble

    def _newer(self, slot: Slot) -> Instrument | None:
        """What a listing says of a slot that is described already."""
        if slot.instrument is None or slot.key.venue not in self._unwritten:
            return None
        return self._known[slot.key.venue].get(slot.key.symbol)

    def _not_coarser(self, facts: Instrument, slot: int) -> Instrument:
        """Decimals only grow: levels of a book may be older than its coarser tick."""
        if (before := self.on_disk(slot)) is None:
            return facts
        return msgspec.structs.replace(
            facts,
            price_decimals=max(facts.price_decimals, before.price_decimals),
            qty_decimals=max(facts.qty_decimals, before.qty_decimals),
        )
