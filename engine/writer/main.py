"""The writer process: attach rings, then pump, deliver, publish until told to drain.

One event loop, and its tasks: commands, pump (rings to journal), a consumer for each sink,
instrument listings, status; and the journal's fdatasync in a thread. Entry point: `run`.
"""

import asyncio
import gc
import logging
import os
import resource
from collections import Counter
from collections.abc import Sequence

from engine.base.alarm import Alarm
from engine.base.clock import monotonic_s
from engine.messages.listings import ListingStored, StoreListing
from engine.messages.pipes import Drain, ToChild
from engine.messages.settings import Reconfigure, WriterSettings
from engine.messages.writer import (
    MakeWay,
    RingsSynced,
    RingStatus,
    SetStreamKnobs,
    SyncRings,
    WantRings,
    WriterStatus,
)
from engine.process import logs
from engine.process.birth import ready
from engine.process.metrics import ProcessMetrics, WriterMetrics
from engine.process.pipe import Pipe
from engine.process.usage import resident_bytes
from engine.writer.consumer import Consumer
from engine.writer.deliveries import Deliveries, ListingStores
from engine.writer.sources.journal_sync import keep_synced
from engine.writer.sources.source import Source
from engine.writer.sources.sources import Sources

_log = logging.getLogger(__name__)

EXIT_UNDELIVERED = 4
"""Drained, but a sink did not take every row in time: the rest waits in the journal."""

_IDLE_POLL_S = 0.05
_PUMP_PACE_S = 0.02
"""Between two looks at the rings while rows keep coming. Who reads them live does so himself; all
that waits for a look is the next commit and the next fdatasync, and it costs the same for one row
as for a hundred."""
_CROWDED = 1 / 16
"""Of a ring: who finds more looks again at once."""
_LIVE_GRACE_S = 1.0


class Writer:
    """Ties sources and sinks to one event loop."""

    def __init__(self, settings: WriterSettings, pipe: Pipe[ToChild]) -> None:
        layout = settings.paths.layout()
        self._settings = settings
        self._pipe = pipe
        self._doorbell = Alarm()
        self._metrics, self._process = WriterMetrics(), ProcessMetrics("writer")
        self._deliveries = Deliveries(settings)
        readers = self._deliveries.readers
        self.sources = Sources(
            layout, settings.journal_segment_bytes, readers, settings.journal_max_bytes
        )
        self.sources.open(settings.rings)
        self.sources.on_delivered = self._send_status
        self._deliveries.attach(self.sources)
        self._listings = ListingStores(settings, self._listing_saved)

    async def run(self) -> int:
        """Serve until drained. Returns the exit code."""
        loop = asyncio.get_running_loop()
        loop.add_reader(self._settings.doorbell_fd, self._on_doorbell)
        tasks = [asyncio.create_task(self._pump(), name="pump")]
        synced = keep_synced(self.sources, self._settings.journal_sync_interval_s)
        tasks += [asyncio.create_task(synced, name="journal-sync")]
        tasks += [asyncio.create_task(self._report(), name="status")]
        tasks += [asyncio.create_task(c.run(), name=c.sink.name) for c in self._deliveries]
        tasks += [asyncio.create_task(each, name="listings") for each in self._listings.run()]
        commands = asyncio.create_task(self._obey(), name="commands")
        self._pump_once()  # shards begin where the rings end that an earlier engine left
        self._pipe.send(ready())
        await asyncio.wait([commands, *tasks], return_when=asyncio.FIRST_COMPLETED)
        loop.remove_reader(self._settings.doorbell_fd)
        for task in tasks:
            task.cancel()
        commands.cancel()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, Exception):
                raise outcome
        return await self._leave() if await commands else 0

    def _on_doorbell(self) -> None:
        """Rows came while somebody slept. Who is awake looks by himself when he is done."""
        os.read(self._settings.doorbell_fd, 8)
        self.sources.ask_for_doorbell(False)
        for consumer in self._deliveries.live:
            consumer.arrived.ring()
        self._doorbell.ring()

    async def _pump(self) -> None:
        """Move rows from rings to journal as they come; sleep on the doorbell in between.

        The bounded sleep is a safety net, not a poll: a ring whose producer missed the request
        for a doorbell is seen 50 ms later. Rows that keep coming are taken together.
        """
        while True:
            if new := self._pump_once():
                await asyncio.sleep(0 if new > _CROWDED else _PUMP_PACE_S)
                continue
            self.sources.ask_for_doorbell(True)
            if not self._pump_once():
                await self._doorbell.wait(_IDLE_POLL_S)

    def _pump_once(self) -> float:
        """Returns the largest part of a ring that was new."""
        new = 0.0
        for source in self.sources:
            if rows := source.pump():
                new = max(new, rows / source.capacity)
        if new:
            self._tell_sinks()
        return new

    def _tell_sinks(self) -> None:
        """Wake the sinks, or do without them."""
        self.sources.let_go()
        for consumer in self._deliveries:
            consumer.rows_arrived()

    async def _obey(self) -> bool:
        """Commands from the supervisor, up to the one to drain: whether it came. The supervisor's
        death (end of file) is an order to leave at once. Rings and journal stay as they are then,
        and the next start delivers them.
        """
        while (message := await self._pipe.receive()) is not None:
            match message:
                case SyncRings():
                    self._pump_once()
                    self._pipe.send(RingsSynced(message.request_id))
                case WantRings():
                    self.sources.want(message.rings)
                case SetStreamKnobs():
                    self._deliveries.set_knobs(message.knobs)
                case Reconfigure():
                    logs.change(message.log)
                    self._deliveries.reconfigure(message.flushes)
                case StoreListing():
                    self._listings.take(message)
                case MakeWay():
                    await self._deliveries.pause(message.deadline_s)
                    self._send_status()
                    await self._pipe.flush()
                    return False
                case Drain():
                    await self._drain(message.deadline_s)
                    return True
                case _:
                    _log.error("the writer has no use for a %s", type(message).__name__)
        return False

    def _listing_saved(self, message: StoreListing) -> None:
        self._pipe.send(ListingStored(message.venue, message.loaded_ns))

    async def _drain(self, deadline_s: float) -> None:
        """Deliver everything: the shards are gone by now."""
        ends_at_s = monotonic_s() + deadline_s
        while self._pump_once():
            await asyncio.sleep(0)
        await finish(self._deliveries.live, _LIVE_GRACE_S)
        for late in await finish(self._deliveries.every_row, ends_at_s - monotonic_s()):
            _log.warning("the %s did not take everything within %.0f s", late, deadline_s)

    async def _leave(self) -> int:
        """Remove rings and journal, as far as they are delivered. Nobody else says how they stand
        any more: sources that are gone would look as if a sink had taken all of them.
        """
        self._send_status()
        undelivered = self.sources.remove_all()
        if undelivered:
            _log.warning("%d rows are left for the next start", undelivered)
        await self._pipe.flush()
        return EXIT_UNDELIVERED if undelivered else 0

    async def _report(self) -> None:
        interval_s = self._settings.status_interval_s
        while True:
            status = self._send_status()
            started_s = monotonic_s()
            await asyncio.sleep(interval_s)
            lag_s = max(monotonic_s() - started_s - interval_s, 0.0)
            self._process.feed(status.cpu_s, lag_s)

    def _send_status(self) -> WriterStatus:
        self.sources.note_waiting()
        status = self._status()
        self._pipe.send(status)
        self._metrics.feed(status)
        for consumer in self._deliveries:
            consumer.write_metrics()
        return status

    def _status(self) -> WriterStatus:
        received: Counter[str] = Counter()
        for source in self.sources:
            if source.spec.columns:
                received[source.spec.name] += source.head_seq if source.is_live else 0
        usage = resource.getrusage(resource.RUSAGE_SELF)
        pumped = self.sources.latencies
        latencies = {"receipt": pumped.receipt, "journal": pumped.journal}
        latencies |= {consumer.sink.name: consumer.latency for consumer in self._deliveries}
        sources = list(self.sources)
        return WriterStatus(
            rings=[ring_status(source) for source in sources],
            rings_of={
                name: [ring_status(source, name) for source in sources]
                for name in self._deliveries.databases[1:]
            },
            received_rows=dict(received),
            sinks=self._deliveries.statuses(),
            journal_bytes=sum(source.journal.size_bytes for source in self.sources),
            latency={name: latency.histogram() for name, latency in latencies.items()},
            rss_bytes=resident_bytes(),
            cpu_s=usage.ru_utime + usage.ru_stime,
            journal_error=next((s.journal_error for s in self.sources if s.journal_error), ""),
        )


async def finish(consumers: Sequence[Consumer], seconds: float) -> list[str]:
    """Let them deliver the rest, side by side; returned are the sinks that have not taken all of it
    in time.
    """

    async def late(consumer: Consumer) -> str:
        try:
            async with asyncio.timeout(seconds):
                await consumer.finish()
        except TimeoutError:
            return consumer.sink.name
        return ""

    return [name for name in await asyncio.gather(*map(late, consumers)) if name]


def ring_status(source: Source, sink: str = "") -> RingStatus:
    """What the supervisor is told of a source, with the cursor of a sink, or of the one by which
    rows are accounted for.
    """
    account = source.progress(sink) if sink else source.account
    return RingStatus(
        ring=source.name,
        kind=source.spec.name,
        head_seq=source.head_seq,
        journal_seq=source.journal_seq,
        stored_seq=account.seq,
        dropped_count=source.dropped_count,
        capacity=source.capacity,
        epoch=source.epoch,
        born_seq=source.born_seq,
        begun_seq=account.begun_seq,
        found_rows=account.found_rows,
    )


async def run(settings: WriterSettings, pipe: Pipe[ToChild]) -> int:
    """Process entry. What exists now lives for ever: the garbage collector need not look at it."""
    writer = Writer(settings, pipe)
    gc.collect()
    gc.freeze()
    return await writer.run()
