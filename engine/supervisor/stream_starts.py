"""Which streams their shards are told to begin, and why the others wait.

A shard hears of a stream once its instrument is on disk. The others are `pending` until a listing
names them, or `failed` while the listing does not have their symbol, or has it as a kind of
instrument that no such stream can be of; all begin by themselves. No shard waits for a listing, and
no stream for another.

What runs goes on when its symbol is delisted: the venue says when it sends nothing more. Only what
began before the first listing of this run came, because an earlier run knew the instrument, ends
if that listing does not have it, or says what kind of instrument it is.
"""

import asyncio
import logging
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

import msgspec

from engine.base.clock import monotonic_s
from engine.data.slots import Slots
from engine.messages.listings import ListingLoaded, ListingWanted
from engine.messages.streams import StartStreams, StopStreams, StreamSpec, StreamState
from engine.streams.instrument_facts import InstrumentFacts
from engine.streams.running_streams import RunningStreams

_log = logging.getLogger(__name__)

_AGAIN_AFTER_S: Final = 300.0
"""New listings are announced for a time; who waits for one asked for it before."""
_MISSING_AGE_S: Final = 30.0
"""A symbol that somebody wants and a listing of this age does not have is looked for at once."""


class StartsEstate(msgspec.Struct):
    """What another program of this process must know to go on with it."""

    begun: dict[int, list[StreamSpec]]
    listings: list[ListingLoaded]


class StreamStarts:
    """Of the streams that run. `to_shard` and `to_control` reach who is ready, and nobody else."""

    def __init__(
        self,
        running: RunningStreams,
        slots: Slots,
        to_shard: Callable[[int, StartStreams | StopStreams], None],
        to_control: Callable[[ListingWanted], None],
    ) -> None:
        self._running = running
        self.facts = InstrumentFacts(slots)
        self._to_shard = to_shard
        self._to_control = to_control
        self._begun: dict[int, dict[int, StreamSpec]] = {}
        """By shard that is there, its streams that it has been told of, by slot."""
        self._waiting: dict[int, StreamSpec] = {}
        self._unknown: dict[int, StreamSpec] = {}
        """Their venues do not list their symbols, or not so that it can be read."""
        self._impossible: dict[int, StreamSpec] = {}
        """Their instruments are of a kind that has no such stream."""
        self._unexplained: dict[int, StreamSpec] = {}
        self._looked_s: dict[str, float] = {}
        """By venue that has listed something: when that came, or was wanted again."""

    def estate(self) -> StartsEstate:
        """What `inherit` takes."""
        begun = {shard: list(specs.values()) for shard, specs in self._begun.items()}
        return StartsEstate(begun, self.facts.estate())

    def inherit(self, estate: StartsEstate) -> None:
        """Go on from there: shards run what they were told to, and the others wait again."""
        for listing in estate.listings:
            self.facts.listed(listing)
            self._looked_s[listing.venue] = monotonic_s()
        for shard, specs in estate.begun.items():
            self._begun[shard] = {spec.slot: spec for spec in specs}
            waiting = self._running.specs(shard)
            self.start({shard: [each for each in waiting if each.slot not in self._begun[shard]]})

    def shard_ready(self, shard: int) -> None:
        """A shard is there, and runs nothing yet."""
        self._begun[shard] = {}
        self.start({shard: self._running.specs(shard)})

    def shard_ended(self, shard: int, reason: str) -> None:
        """Its streams wait for the next one."""
        self._begun.pop(shard, None)
        self._forget(spec.slot for spec in self._running.specs(shard))
        self._running.shard_ended(shard, reason)

    def begun(self, shard: int) -> Mapping[int, StreamSpec]:
        """What a shard was told to begin, by slot; nothing of one that is away."""
        return dict(self._begun.get(shard, {}))

    def passed(self, shard: int, spec: StreamSpec) -> None:
        """A stream runs as this in the next process of its shard."""
        if shard in self._begun:
            self._begun[shard][spec.slot] = spec

    def again(self, shard: int, slot: int, process: str) -> None:
        """Begin a stream anew whose process is gone, in this one of the same shard."""
        spec = self._begun.get(shard, {}).get(slot)
        if spec is None:
            return
        anew = self._running.end_life(slot, process)
        described = msgspec.structs.replace(anew, instrument=spec.instrument)
        self._begun[shard][slot] = described
        self._to_shard(shard, StartStreams([described]))

    def start(self, by_shard: Mapping[int, Sequence[StreamSpec]]) -> None:
        """Have these streams begin; those of a shard that is away begin with the shard."""
        for shard, specs in by_shard.items():
            if shard in self._begun:
                self._look_at({spec.slot: spec for spec in specs})

    def stop(self, by_shard: Mapping[int, Sequence[int]]) -> None:
        """End these streams, which nobody wants any more."""
        for shard, slots in by_shard.items():
            self._forget(slots)
            self._end(shard, slots)

    def end_for_now(self, by_shard: Mapping[int, Sequence[int]]) -> None:
        """End these streams, which are still wanted: `go_on` has them begin anew."""
        self.stop(by_shard)
        for slots in by_shard.values():
            for slot in slots:
                self._running.end_life(slot)

    def go_on(self, by_shard: Mapping[int, Sequence[int]]) -> None:
        """Begin those of these that are wanted still and have not begun with their shard."""
        for shard, slots in by_shard.items():
            begun = self._begun.get(shard, {})
            specs = [each for each in self._running.specs(shard) if each.slot in slots]
            self.start({shard: [each for each in specs if each.slot not in begun]})

    def listed(self, message: ListingLoaded) -> None:
        """A venue's listing has come: who waited for it begins."""
        venue = message.venue
        is_first = not self.facts.is_listed(venue)
        self.facts.listed(message)
        self._looked_s[venue] = monotonic_s()
        if is_first:
            self._end_refuted(venue)
        held_up = self._waiting | self._unknown | self._impossible
        self._look_at({slot: each for slot, each in held_up.items() if each.key.venue == venue})

    def tick(self, now_s: float) -> None:
        """Twice a second: the disk may have room again, and what is waited for may have changed."""
        self._look_at(dict(self._waiting))
        for venue in {spec.key.venue for spec in self._unknown.values()}:
            if now_s - self._looked_s[venue] >= _AGAIN_AFTER_S:
                self._looked_s[venue] = now_s
                self._to_control(ListingWanted(venue))

    def _look_at(self, specs: Mapping[int, StreamSpec]) -> None:
        """Let those begin that can; of the others say why they wait."""
        self.facts.store(specs.values())
        ready: defaultdict[int, list[StreamSpec]] = defaultdict(list)
        news = []
        for slot, spec in specs.items():
            is_news = slot not in self._unknown
            self._forget([slot])
            if reason := self.facts.why_impossible(spec.key):
                self._impossible[slot] = spec
                if self._running.say(slot, StreamState.FAILED, reason):
                    news.append(reason)
            elif self.facts.may_begin(spec):
                described = msgspec.structs.replace(spec, instrument=self.facts.on_disk(slot))
                ready[self._shard_of(spec)].append(described)
            elif self.facts.is_unknown(spec.key):
                self._doubt(spec, is_news=is_news)
            else:
                self._waiting[slot] = spec
                self._running.say(slot, StreamState.PENDING, self.facts.why_waiting(spec.key))
        if news:
            _log.warning(f"streams that cannot be, and do not begin: {len(news)} (e.g. {news[0]})")
        for shard, begins in ready.items():
            self._begun[shard] |= {spec.slot: spec for spec in begins}
            self._to_shard(shard, StartStreams(begins))

    def _doubt(self, spec: StreamSpec, *, is_news: bool) -> None:
        if is_news and monotonic_s() - self._looked_s[spec.key.venue] > _MISSING_AGE_S:
            self._looked_s[spec.key.venue] = -math.inf
        self._unknown[spec.slot] = spec
        if not self._unexplained:
            asyncio.get_running_loop().call_soon(self._explain_one)
        self._unexplained[spec.slot] = spec

    def _explain_one(self) -> None:
        """One in a turn of the loop: near names of 20,000 take their time, for each of them."""
        if not self._unexplained:
            return
        slot, spec = self._unexplained.popitem()
        reason = self.facts.why_unknown(spec.key)
        if self._running.say(slot, StreamState.FAILED, reason):
            _log.error("%s: %s", spec.key, reason)
        if self._unexplained:
            asyncio.get_running_loop().call_soon(self._explain_one)

    def _end_refuted(self, venue: str) -> None:
        """End what began on what an earlier run knew, and the first listing says otherwise."""
        for shard, begun in self._begun.items():
            mine = [each for each in begun.values() if each.key.venue == venue]
            gone = [
                each.slot
                for each in mine
                if self.facts.is_unknown(each.key) or self.facts.why_impossible(each.key)
            ]
            if gone:
                self._end(shard, gone)
                self._look_at({slot: self._running.end_life(slot) for slot in gone})

    def _end(self, shard: int, slots: Sequence[int]) -> None:
        begun = self._begun.get(shard, {})
        if told := [slot for slot in slots if begun.pop(slot, None)]:
            self._to_shard(shard, StopStreams(told))

    def _forget(self, slots: Iterable[int]) -> None:
        for slot in slots:
            for held_up in (self._waiting, self._unknown, self._impossible, self._unexplained):
                held_up.pop(slot, None)

    def _shard_of(self, spec: StreamSpec) -> int:
        home = self._running.home(spec.key)
        assert home is not None
        return home[0]
