"""The writer as the supervisor sees it: what it is told at each birth, and what it answers."""

import asyncio
import itertools
import logging
from collections.abc import Callable, Sequence
from typing import Final

from engine.base.clock import wall_ns
from engine.base.errors import EngineError
from engine.data.names import DEFAULT_DATABASE
from engine.messages.listings import ListingLoaded, ListingStored
from engine.messages.pipes import FromChild, Ready, ToChild
from engine.messages.settings import RingSettings
from engine.messages.totals import WriterTotals
from engine.messages.writer import (
    MakeWay,
    RingsSynced,
    SetStreamKnobs,
    SyncRings,
    WantRings,
    WriterStatus,
)
from engine.process import metric_files
from engine.process.child_keeper import ChildKeeper
from engine.streams.listing_outbox import ListingOutbox
from engine.streams.running_streams import RunningStreams
from engine.supervisor.estate import WriterEstate
from engine.supervisor.spawning import SupervisorSettings, spawn_writer

_log = logging.getLogger(__name__)

_TIMEOUT_S: Final = 15.0


class RingSyncs:
    """Requests to journal what is in some rings, before another process takes over what wrote to
    them. The writer may die meanwhile: its successor is asked again.
    """

    def __init__(self) -> None:
        self._ids = itertools.count(wall_ns())  # above those of a program before this one
        self._waiting: dict[int, asyncio.Future[bool]] = {}

    def __bool__(self) -> bool:
        """Whether anybody waits for an answer."""
        return bool(self._waiting)

    async def sync(self, writer: ChildKeeper, rings: Sequence[str], whose: str) -> None:
        """Return when everything in `rings` is in the journal."""
        synced = False
        while not synced:
            await writer.ready.wait()
            request_id = next(self._ids)
            future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
            self._waiting[request_id] = future
            writer.send(SyncRings(request_id, list(rings)))
            try:
                async with asyncio.timeout(_TIMEOUT_S):
                    synced = await future
            except TimeoutError:
                _log.warning(f"writer has not synced the rings of {whose} yet: asked again")
            finally:
                self._waiting.pop(request_id, None)

    def answered(self, message: RingsSynced) -> None:
        """The writer is done."""
        self._resolve(self._waiting.pop(message.request_id, None), synced=True)

    def writer_ended(self) -> None:
        """Nobody will answer what was asked."""
        for future in self._waiting.values():
            self._resolve(future, synced=False)
        self._waiting.clear()

    def _resolve(self, future: "asyncio.Future[bool] | None", *, synced: bool) -> None:
        if future is not None and not future.done():
            future.set_result(synced)


class WriterChild:
    """Use it inside one event loop. `settings` and `rings` are those of now."""

    def __init__(
        self,
        settings: Callable[[], SupervisorSettings],
        running: RunningStreams,
        rings: Callable[[], list[RingSettings]],
        on_fault: Callable[[str, BaseException], None],
    ) -> None:
        self._settings = settings
        self._running = running
        self._rings = rings
        self._syncs = RingSyncs()
        self._listings = ListingOutbox()
        self._doorbell_fd = -1
        self.totals = WriterTotals(thresholds=settings().config.thresholds)
        self.keeper = ChildKeeper(
            name="writer",
            spawn=lambda: spawn_writer(settings(), self._doorbell_fd, running.knobs(), rings()),
            on_message=self._on_message,
            on_death=self._on_death,
            on_fault=on_fault,
            hung_after_s=settings().timing.hung_after_s,
        )
        self.keeper.report = self.totals.report.child

    async def start(self, doorbell_fd: int) -> None:
        """Start it, and wait until it is ready. Raises ChildStartError."""
        self._doorbell_fd = doorbell_fd
        await self.keeper.start(self._settings().timing.writer_ready_s)

    def estate(self) -> WriterEstate:
        """What `adopt` takes. Raises EngineError while somebody waits for its answer."""
        if self._syncs:
            raise EngineError("the writer has not answered yet")
        return WriterEstate(self.keeper.estate(), self.totals.estate(), list(self._listings))

    async def adopt(self, estate: WriterEstate, doorbell_fd: int) -> None:
        """Go on with the one that another program of this process has started, without `start`."""
        self._doorbell_fd = doorbell_fd
        self.totals.inherit(estate.counts)
        self.keeper.report = self.totals.report.child
        self._listings.inherit(estate.listings)
        await self.keeper.adopt(estate.keeper)

    async def renew(self) -> None:
        """Have it make way for its next life, at the end of a transaction."""
        timing = self._settings().timing
        drain_s = timing.writer_drain_s
        await self.keeper.renew(MakeWay(drain_s), drain_s + timing.grace_s, timing.writer_ready_s)

    def tell(self, message: ToChild) -> None:
        """Reach it if it is ready."""
        if self.keeper.ready.is_set():
            self.keeper.send(message)

    async def sync(self, rings: Sequence[str], whose: str) -> None:
        """Return when everything in `rings` is in the journal, and all that it was told before has
        been obeyed, whichever life it is in.
        """
        await self._syncs.sync(self.keeper, rings, whose)

    async def want_rings(self) -> None:
        """Return when it knows which rings there are."""
        self.tell(WantRings([each.ring for each in self._rings()]))
        await self.sync([], "other rings")

    def take_listing(self, message: ListingLoaded) -> None:
        """Have every database store a listing, if there is any."""
        listing = self._listings.take(message, wall_ns())
        self.tell(listing)
        if DEFAULT_DATABASE not in self._settings().urls:
            self._listings.saved(ListingStored(listing.venue, listing.loaded_ns))

    def _on_message(self, message: FromChild) -> None:
        match message:
            case WriterStatus():
                self.totals.update(message)
            case RingsSynced():
                self._syncs.answered(message)
            case ListingStored():
                self._listings.saved(message)
            case Ready():
                self.keeper.send(SetStreamKnobs(self._running.knobs()))
                for listing in self._listings:
                    self.keeper.send(listing)
            case _:
                _log.error(f"writer sent {type(message).__name__}: ignored")

    def _on_death(self, reason: str) -> None:
        del reason
        metric_files.child_ended(self._settings().layout, self.keeper.name)
        self.totals.writer_ended()
        self._syncs.writer_ended()
