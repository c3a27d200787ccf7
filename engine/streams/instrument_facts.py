"""What is known of the streams' instruments: on disk before a stream subscribes, and kept true.

A shard is handed what is known already, so that a venue that refuses REST requests for days holds
up no stream that can do without. It names the instruments of its new streams and waits until the
stream table has them. A disk that is full holds up those streams and nobody else: what waits is
written once there is room.

Control and the shards read the venues' listings each at times of their own. What was read last
counts, whoever read it, and counts for every stream of the symbol: one that runs for months must
not go by the tick of its first day.
"""

import logging
from collections.abc import Callable, Iterable
from typing import NamedTuple

import msgspec

from engine.base.clock import monotonic_s
from engine.data.instrument import Instrument
from engine.data.slots import Slot, Slots
from engine.messages.listings import ListingLoaded
from engine.messages.streams import InstrumentsResolved, StreamSpec

_log = logging.getLogger(__name__)

Name = tuple[str, str]
"""Venue and symbol."""


class _Known(NamedTuple):
    facts: Instrument
    listed_s: float


class InstrumentFacts:
    """Between the shards and the stream table. `on_stored` gets a shard and its slots that are on
    disk now.
    """

    def __init__(self, slots: Slots, on_stored: Callable[[int, list[int]], None]) -> None:
        self._slots = slots
        self._on_stored = on_stored
        self._known: dict[Name, _Known] = {}
        self._unwritten: set[Name] = set()
        self._waiting: dict[int, set[int]] = {}
        """Slots by shard."""
        self._listed: dict[str, tuple[float, set[str]]] = {}
        """By venue: when its listing came, and the symbols in it."""
        self.problem = ""
        """Why nothing can be written; empty while it can."""

    def listed(self, message: ListingLoaded) -> None:
        """What a venue lists now."""
        now_s = monotonic_s()
        self._listed[message.venue] = now_s, {each.symbol for each in message.instruments}
        self._learn(message.instruments, now_s)
        self.store()

    def brief(self, specs: Iterable[StreamSpec]) -> list[StreamSpec]:
        """The same streams with their instruments: as listed last, or else as described last. A
        symbol that is not listed any more is for the shard to judge.
        """
        return [self._brief(each) for each in specs]

    def resolved(self, shard: int, message: InstrumentsResolved) -> None:
        """A shard has learned the instruments of these slots."""
        self._learn(message.instruments.values(), message.listed_s)
        self._waiting.setdefault(shard, set()).update(message.instruments)
        self.store()

    def shard_ended(self, shard: int) -> None:
        """Nobody waits for these any more."""
        self._waiting.pop(shard, None)

    def store(self) -> None:
        """Write down what waits, as far as the disk takes it."""
        if not self._unwritten:
            return
        try:
            self._slots.describe_all(self._news())
        except OSError as error:
            problem = f"the stream table cannot be written: {error.strerror}"
            if problem != self.problem:
                _log.error(f"{problem}: streams that begin wait for it")
            self.problem = problem
            return
        self.problem = ""
        self._unwritten.clear()
        waiting, self._waiting = self._waiting, {}
        for shard, slots in waiting.items():
            # Also for streams that were removed meanwhile: the shard waits for the answer.
            self._on_stored(shard, sorted(slots))

    def _learn(self, instruments: Iterable[Instrument], listed_s: float) -> None:
        for facts in instruments:
            name = (facts.venue, facts.symbol)
            known = self._known.get(name)
            if known is None or known.listed_s <= listed_s:
                self._known[name] = _Known(facts, listed_s)
            self._unwritten.add(name)

    def _news(self) -> dict[int, Instrument]:
        """What is to be written of the slots a shard asked about, and of those described before:
        whether a stream can begin at all is for its shard to say.
        """
        asked = set[int]().union(*self._waiting.values())
        return {
            entry.slot: _not_coarser(self._known[name].facts, entry)
            for entry in self._slots
            if (name := (entry.key.venue, entry.key.symbol)) in self._unwritten
            and (entry.instrument is not None or entry.slot in asked)
        }

    def _brief(self, spec: StreamSpec) -> StreamSpec:
        venue, symbol = spec.key.venue, spec.key.symbol
        listed_s, listed = self._listed.get(venue, (0.0, {symbol}))
        facts = self._slots.instrument(venue, symbol)
        if symbol not in listed:
            facts = None
        elif (known := self._known.get((venue, symbol))) is not None:
            facts, listed_s = known
        return msgspec.structs.replace(spec, instrument=facts, listed_s=listed_s)


def _not_coarser(facts: Instrument, entry: Slot) -> Instrument:
    """Decimals only grow: levels of a book may be older than its coarser tick."""
    if (before := entry.instrument) is None:
        return facts
    return msgspec.structs.replace(
        facts,
        price_decimals=max(facts.price_decimals, before.price_decimals),
        qty_decimals=max(facts.qty_decimals, before.qty_decimals),
    )
