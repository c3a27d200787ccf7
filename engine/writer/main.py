"""The writer process: attach rings, then pump, deliver, publish until told to drain.

One event loop, six tasks: commands, pump (rings to journal), database, Redis, instrument listings,
status; and the journal's fdatasync in a thread. Entry point: `run`.
"""

import asyncio
import gc
import logging
import os
import resource
from collections import Counter
from collections.abc import Callable

from engine.base.alarm import Alarm
from engine.base.clock import monotonic_s
from engine.data.slots import Slots
from engine.messages.listings import ListingStored, StoreListing
from engine.messages.pipes import Drain, Ready, ToChild
from engine.messages.settings import WriterSettings
from engine.messages.writer import RingsSynced, RingStatus, SetStreamKnobs, SyncRings, WriterStatus
from engine.process.metrics import ProcessMetrics, WriterMetrics
from engine.process.pipe import Pipe
from engine.process.usage import resident_bytes
from engine.writer.consumer import DatabaseDelivery
from engine.writer.redis_consumer import RedisDelivery
from engine.writer.rows.knob_table import KnobTable
from engine.writer.sinks.postgres.listing_store import ListingStore
from engine.writer.sinks.postgres.sink import PostgresSink
from engine.writer.sinks.redis.sink import RedisSink
from engine.writer.sources.journal_sync import keep_synced
from engine.writer.sources.latency import Latency
from engine.writer.sources.source import Source
from engine.writer.sources.sources import Sources

_log = logging.getLogger(__name__)

EXIT_UNDELIVERED = 4
"""Drained, but the database did not take everything in time: the rest waits in the journal."""

_IDLE_POLL_S = 0.05
_REDIS_GRACE_S = 1.0


class Writer:
    """Ties sources and sinks to one event loop."""

    def __init__(self, settings: WriterSettings, pipe: Pipe[ToChild]) -> None:
        layout = settings.paths.layout()
        self._settings = settings
        self._pipe = pipe
        self._doorbell = Alarm()
        self._metrics, self._process = WriterMetrics(), ProcessMetrics("writer")
        self.sources = Sources(layout, settings.journal_segment_bytes)
        self.sources.open(settings.rings)
        self.sources.on_delivered = self._send_status
        slots = Slots(layout.slots)
        self._knobs = KnobTable(settings)
        self._listings = (
            ListingStore(settings, self._listing_saved) if settings.database_url else None
        )
        self._redis = (
            RedisDelivery(self.sources, RedisSink(settings, slots), self._knobs)
            if settings.redis_url
            else None
        )
        self._database = (
            DatabaseDelivery(
                self.sources,
                PostgresSink(settings, slots),
                self._knobs,
                on_loss=self._redis.declare if self._redis else None,
            )
            if settings.database_url
            else None
        )

    async def run(self) -> int:
        """Serve until drained. Returns the exit code."""
        loop = asyncio.get_running_loop()
        loop.add_reader(self._settings.doorbell_fd, self._on_doorbell)
        tasks = [asyncio.create_task(self._pump(), name="pump")]
        synced = keep_synced(self.sources, self._settings.journal_sync_interval_s)
        tasks += [asyncio.create_task(synced, name="journal-sync")]
        tasks += [asyncio.create_task(self._report(), name="status")]
        tasks += [
            asyncio.create_task(sink.run(), name=type(sink).__name__)
            for sink in (self._database, self._redis, self._listings)
            if sink
        ]
        commands = asyncio.create_task(self._obey(), name="commands")
        self._pump_once()  # shards begin where the rings end that an earlier engine left
        self._pipe.send(Ready())
        await asyncio.wait([commands, *tasks], return_when=asyncio.FIRST_COMPLETED)
        loop.remove_reader(self._settings.doorbell_fd)
        for task in tasks:
            task.cancel()
        commands.cancel()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, Exception):
                raise outcome
        return await commands

    def _on_doorbell(self) -> None:
        os.read(self._settings.doorbell_fd, 8)
        self._doorbell.ring()

    async def _pump(self) -> None:
        """Move rows from rings to journal as they come; sleep on the doorbell in between.

        The bounded sleep is a safety net, not a poll: a ring whose producer missed the request
        for a doorbell is seen 50 ms later.
        """
        while True:
            if self._pump_once():
                await asyncio.sleep(0)
                continue
            self._ask_for_doorbell(True)
            if not self._pump_once():
                await self._doorbell.wait(_IDLE_POLL_S)
            self._ask_for_doorbell(False)

    def _pump_once(self) -> int:
        rows = sum(source.pump() for source in self.sources)
        if rows:
            self._tell_sinks()
        return rows

    def _tell_sinks(self) -> None:
        """Wake the sinks; a sink that is switched off has, by definition, taken everything."""
        if self._database:
            self._database.rows_arrived()
        else:
            for source in self.sources:
                source.committed(source.head_seq, durable=True)
        if self._redis:
            self._redis.rows_arrived()
        else:
            for source in self.sources:
                source.redis_seq = source.head_seq

    def _ask_for_doorbell(self, wanted: bool) -> None:
        for source in self.sources:
            source.ask_for_doorbell(wanted)

    async def _obey(self) -> int:
        """Commands from the supervisor; its death (end of file) is an order to leave at once.

        Rings and journal stay as they are then, and the next start delivers them.
        """
        while (message := await self._pipe.receive()) is not None:
            match message:
                case SyncRings():
                    self._pump_once()
                    self._pipe.send(RingsSynced(message.request_id))
                case SetStreamKnobs():
                    self._set_knobs(message)
                case StoreListing():
                    if self._listings:
                        self._listings.take(message)
                case Drain():
                    return await self._drain(message.deadline_s)
                case _:
                    _log.error("the writer has no use for a %s", type(message).__name__)
        return 0

    def _set_knobs(self, message: SetStreamKnobs) -> None:
        """New knobs count from the next flush on, and that comes at once."""
        self._knobs.set(message.knobs)
        if self._database:
            self._database.arrived.ring()

    def _listing_saved(self, message: StoreListing) -> None:
        self._pipe.send(ListingStored(message.venue, message.loaded_ns))

    async def _drain(self, deadline_s: float) -> int:
        """Deliver everything (the shards are gone by now), then remove rings and journal."""
        ends_at_s = monotonic_s() + deadline_s
        while self._pump_once():
            await asyncio.sleep(0)
        if self._redis:
            await self._until(lambda: self._redis is None or self._redis.is_idle, _REDIS_GRACE_S)
        if self._database:
            try:
                async with asyncio.timeout(ends_at_s - monotonic_s()):
                    await self._database.finish()
            except TimeoutError:
                _log.warning("the database did not take everything within %.0f s", deadline_s)
        self._send_status()
        undelivered = self.sources.remove_all()
        if undelivered:
            _log.warning("%d rows are left for the next start", undelivered)
        await self._pipe.flush()
        return EXIT_UNDELIVERED if undelivered else 0

    async def _until(self, done: Callable[[], bool], seconds: float) -> None:
        ends_at_s = monotonic_s() + seconds
        while not done() and monotonic_s() < ends_at_s:
            await asyncio.sleep(0.01)

    async def _report(self) -> None:
        interval_s = self._settings.status_interval_s
        while True:
            status = self._send_status()
            started_s = monotonic_s()
            await asyncio.sleep(interval_s)
            lag_s = max(monotonic_s() - started_s - interval_s, 0.0)
            self._process.feed(status.cpu_s, lag_s)

    def _send_status(self) -> WriterStatus:
        status = self._status()
        self._pipe.send(status)
        self._metrics.feed(status)
        return status

    def _latencies(self) -> dict[str, Latency]:
        """By stage: venue to shard, then shard to journal, to database, to Redis."""
        stages = {
            "receipt": self.sources.latencies.receipt,
            "journal": self.sources.latencies.journal,
        }
        for name, sink in (("database", self._database), ("redis", self._redis)):
            if sink:
                stages[name] = sink.latency
        return stages

    def _status(self) -> WriterStatus:
        received: Counter[str] = Counter()
        for source in self.sources:
            if source.spec.columns:
                received[source.spec.name] += source.head_seq if source.is_live else 0
        usage = resource.getrusage(resource.RUSAGE_SELF)
        database, redis = self._database, self._redis
        if redis:
            redis.note_overrun()
        used_bytes, budget_bytes = redis.memory_bytes if redis else (0, 0)
        database_state, database_error = database.verdict if database else ("off", "")
        return WriterStatus(
            rings=[ring_status(source) for source in self.sources if not source.is_drained],
            received_rows=dict(received),
            stored_rows=dict(database.stored_rows) if database else {},
            published_rows=dict(redis.published_rows) if redis else {},
            overrun_rows=dict(redis.overrun_rows) if redis else {},
            quarantined_rows=dict(database.quarantined_rows) if database else {},
            inexact_rows=database.inexact_rows if database else 0,
            database_state=database_state,
            database_error=database_error,
            redis_state=redis.trouble.state if redis else "off",
            redis_error=redis.trouble.text if redis else "",
            backlog_rows=database.backlog_rows if database else 0,
            journal_bytes=sum(source.journal.size_bytes for source in self.sources),
            latency={name: latency.histogram() for name, latency in self._latencies().items()},
            rss_bytes=resident_bytes(),
            cpu_s=usage.ru_utime + usage.ru_stime,
            skipped_rows=dict(database.skipped_rows) if database else {},
            unpublished_rows=dict(redis.unpublished_rows) if redis else {},
            journal_error=next((s.journal_error for s in self.sources if s.journal_error), ""),
            lost_rows=database.lost_rows if database else 0,
            quarantine_rows=dict(database.in_quarantine) if database else {},
            waits_for=database.waits_for if database else "",
            redis_bytes=used_bytes,
            redis_budget_bytes=budget_bytes,
            lost_by_kind=dict(database.lost_by_kind) if database else {},
        )


def ring_status(source: Source) -> RingStatus:
    """What the supervisor is told of a source."""
    return RingStatus(
        ring=source.name,
        kind=source.spec.name,
        head_seq=source.head_seq,
        journal_seq=source.journal_seq,
        database_seq=source.database_seq,
        redis_seq=source.redis_seq,
        dropped_count=source.dropped_count,
        capacity=source.capacity,
        epoch=source.epoch,
        born_seq=source.born_seq,
        begun_seq=source.begun_seq,
        found_rows=source.found_rows,
    )


async def run(settings: WriterSettings, pipe: Pipe[ToChild]) -> int:
    """Process entry. What exists now lives for ever: the garbage collector need not look at it."""
    writer = Writer(settings, pipe)
    gc.collect()
    gc.freeze()
    return await writer.run()
