"""Who delivers: a consumer for each sink, with the knobs and the share of rows that are its own;
and the listings of every database.
"""

import asyncio
import logging
from collections import defaultdict
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping
from functools import partial

import msgspec
import numpy as np

from engine.base.errors import EngineError
from engine.data.kind import RecordArray
from engine.data.names import is_database
from engine.data.slots import Slots
from engine.messages.listings import StoreListing
from engine.messages.settings import FlushSettings, WriterSettings
from engine.messages.streams import Knobs
from engine.messages.writer import SinkStatus
from engine.writer.consumer import Consumer
from engine.writer.every_row import EveryRow
from engine.writer.live import Live
from engine.writer.rows.knob_table import KnobTable
from engine.writer.rows.routing import Eras, Rest, Share, check_none_is_gone
from engine.writer.sinks import ListingStore, make_sinks
from engine.writer.sinks.sink import Promise
from engine.writer.sources.source import Readers
from engine.writer.sources.sources import Sources

_log = logging.getLogger(__name__)


class Deliveries:
    """All sinks and their consumers. `attach` it to sources before it is iterated."""

    def __init__(self, settings: WriterSettings) -> None:
        self._settings = settings
        self._slots = Slots(settings.paths.layout().slots)
        self._made = make_sinks(settings, self._slots)
        self._sinks = [sink for sink in self._made.values() if sink is not None]
        own = {each.database: KnobTable(each) for each in settings.by_database()}
        self._own_knobs = own
        """By database."""
        self._knobs = {name: own.get(name, own[settings.database]) for name in self._made}
        self._sources: Sources | None = None
        self._eras: Eras | None = None
        """None where one database has all rows, and always had."""
        self.live: list[Live] = []
        self.every_row: list[EveryRow] = []

    @property
    def readers(self) -> Readers:
        """Names of the sinks, by promise."""
        names = {p: tuple(s.name for s in self._sinks if s.promise is p) for p in Promise}
        return Readers(names[Promise.EVERY_ROW], names[Promise.LIVE])

    @property
    def databases(self) -> list[str]:
        """Sinks that are databases, the default first."""
        return [sink.name for sink in self._sinks if is_database(sink.name)]

    def attach(self, sources: Sources) -> None:
        """Make the consumers. Raises ConfigError where rows wait for a database that is gone."""
        shares = self._shares(sources)
        for sink in self._sinks:
            knobs = self._knobs[sink.name]
            if sink.promise is Promise.LIVE:
                pace_s = self._settings.live_flush_interval_s
                self.live.append(Live(sources, sink, knobs, pace_s=pace_s))
            else:
                share = shares.get(sink.name)
                self.every_row.append(EveryRow(sources, sink, knobs, self._tell_live, share=share))

    def __iter__(self) -> Iterator[Consumer]:
        yield from self.every_row
        yield from self.live

    def set_knobs(self, knobs: Mapping[int, Knobs]) -> None:
        """New knobs count from the next flush on, and that comes at once."""
        for table in set(self._knobs.values()):
            table.set(knobs)
        try:
            self._begin_era(knobs)
        except EngineError as error:
            _log.error(
                "streams stay in the databases where they are until the next start: %s", error
            )
        for consumer in self:
            consumer.arrived.ring()

    def reconfigure(self, flushes: Mapping[str, FlushSettings]) -> None:
        """Other limits are configured, from the next flush on, and that comes at once."""
        for name, table in self._own_knobs.items():
            if name in flushes:
                table.reconfigure(flushes[name])
        for consumer in self:
            consumer.arrived.ring()

    async def pause(self, seconds: float) -> None:
        """Have every consumer rest after what it delivers now; who cannot in time does not."""
        await asyncio.wait(
            [asyncio.ensure_future(consumer.pause()) for consumer in self], timeout=seconds
        )

    def statuses(self) -> list[SinkStatus]:
        """Of all there are, also of those that are off."""
        told = {consumer.sink.name: consumer.status for consumer in self}
        return [told.get(name) or SinkStatus(name, state="off") for name in self._made]

    def _shares(self, sources: Sources) -> dict[str, Share]:
        """Each database's, by its sink."""
        settings, databases = self._settings, self.databases
        path = settings.paths.layout().routes
        if not databases or (len(databases) == 1 and not settings.routes and not path.exists()):
            return {}
        self._sources, self._eras = sources, Eras(path)
        self._eras.forget({*sources.drained, *(source.key for source in sources)})
        self._begin_era(settings.knobs)
        check_none_is_gone(self._eras, self._slots, databases, list(_rests(sources)))
        return {name: Share(name, self._eras, self._slots) for name in databases}

    def _begin_era(self, knobs: Mapping[int, Knobs]) -> None:
        """Where a row goes that comes from now on may be another place than until now."""
        if self._eras is None or self._sources is None:
            return
        given = {slot: each.database for slot, each in knobs.items()}
        slots = {slot: sink for slot, sink in given.items() if sink and sink in self.databases}
        for slot in [slot for slot, sink in given.items() if sink and slot not in slots]:
            _log.warning("%s is not configured: slot %d is stored as routed", given[slot], slot)
        heads = {source.key: source.head_seq for source in self._sources}
        self._eras.begin(self._settings.routes, self._sources.drained | heads, slots)

    def _tell_live(self, gaps: RecordArray) -> None:
        """Of gaps that were declared where every row goes."""
        for consumer in self.live:
            consumer.hear_of(gaps)


def _rests(sources: Sources) -> Iterator[Rest]:
    for source in sources:
        if not source.is_drained:
            streams = np.array(source.streams_since(source.first_seq), np.uint32)
            yield Rest(source.key, source.first_seq, source.head_seq, streams)


class ListingStores:
    """The listings on their way into every database; `saved` is told what all of them have."""

    def __init__(self, settings: WriterSettings, saved: Callable[[StoreListing], None]) -> None:
        self._saved = saved
        self._stored: defaultdict[str, dict[str, int]] = defaultdict(dict)
        """By venue and database, the newest listing that is stored."""
        self._told: dict[str, int] = {}
        self._stores = {
            each.database: ListingStore(each, partial(self._note, each.database))
            for each in settings.by_database()
            if each.database_url
        }

    def run(self) -> Iterable[Coroutine[None, None, None]]:
        """What is to be run until the end."""
        return [store.run() for store in self._stores.values()]

    def take(self, message: StoreListing) -> None:
        """Store this when its turn comes."""
        for store in self._stores.values():
            store.take(message)

    def _note(self, database: str, message: StoreListing) -> None:
        stored = self._stored[message.venue]
        stored[database] = message.loaded_ns
        everywhere_ns = min(stored.get(name, 0) for name in self._stores)
        if everywhere_ns > self._told.get(message.venue, 0):
            self._told[message.venue] = everywhere_ns
            self._saved(msgspec.structs.replace(message, loaded_ns=everywhere_ns))
