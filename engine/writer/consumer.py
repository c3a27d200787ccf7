"""Brings rows of the sources to one sink, for ever, on a cursor of its own: no sink waits for
another.

A failing sink is tried again with a capped, jittered backoff, which starts over when rows were
delivered. `trouble` is the one verdict that log, status and lights read. What differs by promise is
in `every_row` and `live`.
"""

import asyncio
import logging
from abc import ABC, abstractmethod
from collections import Counter
from typing import Final

from engine.base.alarm import Alarm
from engine.base.backoff import Backoff
from engine.base.clock import monotonic_s, wall_ns
from engine.base.errors import EngineError, TableRefusesError
from engine.base.keep_trying import Trouble, keep_trying
from engine.messages.writer import SinkStatus
from engine.process.metrics import BatchMetrics
from engine.writer.rows.knob_table import KnobTable
from engine.writer.rows.slice import Batch
from engine.writer.sinks.sink import Promise, Sink, Taken
from engine.writer.sources.latency import Latency
from engine.writer.sources.sources import Sources

_log = logging.getLogger(__name__)

_BACKOFF_MIN_S: Final = 0.1
_BACKOFF_MAX_S: Final = 5.0
_CONSEQUENCES: Final = {
    Promise.EVERY_ROW: "nothing is lost, trying again",
    Promise.LIVE: "the database is not affected, trying again",
}


class Consumer(ABC):
    """One sink's. Row counts are by record kind, and since it was made."""

    def __init__(
        self, sources: Sources, sink: Sink, knobs: KnobTable, backoff: Backoff | None = None
    ) -> None:
        self._sources = sources
        self.sink = sink
        self._knobs = knobs
        backoff = backoff or Backoff(_BACKOFF_MIN_S, _BACKOFF_MAX_S)
        self.trouble = Trouble(sink.name, _CONSEQUENCES[sink.promise], backoff, _log)
        self.latency = Latency()
        self.rows: Counter[str] = Counter()
        self.withheld_rows: Counter[str] = Counter()
        """A knob keeps them from the sink."""
        self.refused_rows: Counter[str] = Counter()
        """The sink has set them aside for good."""
        self.missed_rows: Counter[str] = Counter()
        """They were gone before the sink was ready for them."""
        self.elsewhere_rows: Counter[str] = Counter()
        """Another database is to have them."""
        self.inexact_rows = 0
        self.arrived = Alarm()
        self._metrics = BatchMetrics(sink.name)
        self._is_pausing = False
        self._rests = asyncio.Event()

    async def run(self) -> None:
        """Deliver until cancelled."""
        await keep_trying(self._try, self.trouble)

    async def pause(self) -> None:
        """Return when it has delivered what it is delivering; it begins nothing more."""
        self._is_pausing = True
        self.arrived.ring()
        await self._rests.wait()

    def write_metrics(self) -> None:
        """Show what was delivered up to now."""
        self._metrics.write()

    @property
    def status(self) -> SinkStatus:
        """How it stands. A sink that owes an answer is as good as away."""
        overdue = self.sink.overdue
        used_bytes, budget_bytes = self.sink.memory_bytes
        return SinkStatus(
            name=self.sink.name,
            state="down" if overdue else self.trouble.state,
            error=overdue or self.trouble.text,
            rows=dict(self.rows),
            withheld_rows=dict(self.withheld_rows),
            refused_rows=dict(self.refused_rows),
            missed_rows=dict(self.missed_rows),
            elsewhere_rows=dict(self.elsewhere_rows),
            set_aside_rows=dict(self.sink.set_aside),
            inexact_rows=self.inexact_rows,
            backlog_rows=self.backlog_rows,
            waits_for=self.sink.waits.text,
            used_bytes=used_bytes,
            budget_bytes=budget_bytes,
        )

    @property
    @abstractmethod
    def backlog_rows(self) -> int:
        """Rows the sink does not have yet."""

    @abstractmethod
    def rows_arrived(self) -> None:
        """Rows were pumped."""

    @abstractmethod
    async def finish(self) -> None:
        """Wait until the sink has everything, as far as it was promised; cancel it to give up."""

    @abstractmethod
    async def _open(self) -> None:
        """Begin a session, and find out how far the sink is."""

    @abstractmethod
    async def _next(self) -> tuple[Batch, bool]:
        """(the next batch, whether it is to be there for good); an empty one when it is time to
        look around. Waits as long as the promise allows."""

    @abstractmethod
    def _taken(self, batch: Batch, taken: Taken, *, durable: bool) -> None:
        """The sink has it."""

    async def _try(self) -> None:
        try:
            await self._work()
        except EngineError as error:
            self._metrics.failed(error)
            raise

    async def _work(self) -> None:
        await self._open()
        while True:
            await self.sink.tend()
            batch, durable = await self._next()
            if batch.parts or durable:
                await self._deliver(batch, durable=durable)
            self._delivered()
            if self._is_pausing:
                self._rests.set()
                await asyncio.Event().wait()

    async def _deliver(self, batch: Batch, *, durable: bool) -> None:
        began_s = monotonic_s()
        try:
            taken = await self.sink.take(batch, durable=durable)
        except TableRefusesError as error:
            self._metrics.failed(error)
            return  # its rows wait from now on, and the others go on
        if rows := taken.rows.total():
            self._metrics.took(rows, monotonic_s() - began_s, wall_ns() / 1e9)
        self._taken(batch, taken, durable=durable)

    def _delivered(self) -> None:
        """Something was delivered, or everything has been; what is refused alone stays a trouble
        while it is.
        """
        if refused := self.sink.refuses:
            self.trouble.met(refused)
            return
        if not self.trouble.has_worked:
            _log.info("%s: connected", self.trouble.what)
        self.trouble.over()
