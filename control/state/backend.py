"""The engine as the control process sees it: the last status, and commands with answers.

A command is a message with a request id over the pipe; its answer comes within `timeout_s` or not
at all. The supervisor sends a status that shows the effect before the answer: what was accepted
is shown at once.
"""

import asyncio
import itertools
import logging
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from control.http.errors import ApiError
from control.state.health import Health, HealthLight
from engine.data.instrument import Instrument
from engine.data.layout import Layout
from engine.data.names import StreamKey
from engine.limits.leases import LeaseClient
from engine.messages.control import (
    AddStreams,
    CommandResult,
    KeyResult,
    RemoveStreams,
    RenewBook,
    SetKnobs,
    SystemStatus,
)
from engine.messages.limits import LeaseBlocked, LeaseGranted
from engine.messages.listings import InstrumentEvent, ListingLoaded
from engine.messages.pipes import FromChild, ToChild
from engine.messages.status import EngineStatus, StreamReport
from engine.messages.streams import KnobChanges, Knobs, StreamRequest

_log = logging.getLogger(__name__)


class Backend:
    """One end of the pipe to the supervisor. `send` never blocks."""

    def __init__(
        self,
        send: Callable[[FromChild], None],
        health: Health,
        layout: Layout | None = None,
        timeout_s: float = 1.8,
        configured_knobs: Knobs | None = None,
    ) -> None:
        self._send = send
        self._health = health
        self._layout = layout
        self.configured_knobs = configured_knobs or Knobs()
        """What a stream's flush knobs are when nobody has set them."""
        self._timeout_s = timeout_s
        self._ids = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[CommandResult]] = {}
        self.leases = LeaseClient(send)
        """This process's way to the venues' shared budgets."""
        self._streams: dict[StreamKey, StreamReport] = {}
        self._status: EngineStatus | None = None
        self.heard = asyncio.Event()
        """Whether the supervisor has said what runs."""

    # -- what is known -----------------------------------------------------------------------

    @property
    def status(self) -> EngineStatus | None:
        """What the supervisor said last."""
        return self._status

    @property
    def streams(self) -> Mapping[StreamKey, StreamReport]:
        """Every stream there is."""
        return self._streams

    @property
    def layout(self) -> Layout:
        """Where the engine keeps its files."""
        return self._layout or Layout(Path("/nowhere"), "", Path("/nowhere"))

    @property
    def own_loop_lag_ms(self) -> float:
        """Of this process."""
        return self._health.own_loop_lag_ms

    def lights(self) -> Mapping[str, HealthLight]:
        """`runtime`, `db` and `redis`."""
        return self._health.lights()

    def verdict(self) -> HealthLight:
        """The engine as a whole, streams included."""
        return self._health.verdict(self._status)

    @property
    def health(self) -> Health:
        """The lights, with their figures."""
        return self._health

    def take(self, message: ToChild) -> None:
        """Handle what the supervisor says."""
        match message:
            case SystemStatus():
                self._take_status(msgspec.json.decode(message.body, type=EngineStatus))
            case LeaseGranted() | LeaseBlocked():
                self.leases.take(message)
            case CommandResult():
                future = self._waiting.pop(message.request_id, None)
                if future is not None and not future.done():
                    future.set_result(message)
            case _:
                _log.error(f"control has no use for a {type(message).__name__}")

    # -- commands ----------------------------------------------------------------------------

    async def add(self, streams: list[StreamRequest]) -> list[KeyResult]:
        """Begin streams. Raises ApiError when nobody answers."""
        request_id = next(self._ids)
        return await self._command(AddStreams(request_id, streams), request_id)

    async def remove(self, keys: list[StreamKey]) -> list[KeyResult]:
        """End streams. Raises ApiError when nobody answers."""
        request_id = next(self._ids)
        return await self._command(RemoveStreams(request_id, keys), request_id)

    async def set_knobs(self, key: StreamKey, changes: KnobChanges) -> KeyResult:
        """Tune a stream. Raises ApiError when nobody answers."""
        request_id = next(self._ids)
        (result,) = await self._command(SetKnobs(request_id, key, changes), request_id)
        return result

    async def renew_book(self, key: StreamKey) -> KeyResult:
        """Have a fresh snapshot of a book taken. Raises ApiError when nobody answers."""
        request_id = next(self._ids)
        (result,) = await self._command(RenewBook(request_id, key), request_id)
        return result

    def store_instruments(
        self, venue: str, instruments: list[Instrument], events: list[InstrumentEvent]
    ) -> None:
        """Hand a venue's listing on for the database."""
        self._send(ListingLoaded(venue, instruments, events))

    # -- inside ------------------------------------------------------------------------------

    async def _command(self, message: FromChild, request_id: int) -> list[KeyResult]:
        try:
            answer = await self._ask(message, request_id, self._timeout_s)
        except TimeoutError:
            raise ApiError(
                "unavailable",
                f"the supervisor did not answer within {self._timeout_s:g} s; the command may still"
                " take effect",
                retry_after_s=2.0,
            ) from None
        return answer.results

    async def _ask(self, message: FromChild, request_id: int, timeout_s: float) -> CommandResult:
        future: asyncio.Future[CommandResult] = asyncio.get_running_loop().create_future()
        self._waiting[request_id] = future
        try:
            self._send(message)
            async with asyncio.timeout(timeout_s):
                return await future
        finally:
            self._waiting.pop(request_id, None)

    def _take_status(self, status: EngineStatus) -> None:
        self._streams = {_key(report): report for report in status.streams}
        self._status = status
        self.heard.set()
        self._health.take(status)


def _key(report: StreamReport) -> StreamKey:
    return msgspec.convert(
        {
            "venue": report.venue,
            "symbol": report.symbol,
            "kind": report.kind,
            "transport": report.transport,
        },
        StreamKey,
    )
