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
from control.state.gap_log import GapLog
from control.state.health import Health, HealthLight
from control.state.history import History
from control.state.prices import Prices
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
    UpgradeEngine,
)
from engine.messages.limits import BudgetAnnounced, LeaseBlocked, LeaseGranted
from engine.messages.listings import ListingLoaded
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
        prices_url: str = "",
    ) -> None:
        self._send = send
        self.health = health
        """The lights, with their figures."""
        self.layout = layout or Layout(Path("/nowhere"), "", Path("/nowhere"))
        """Where the engine keeps its files."""
        self.history = History()
        """How it did lately."""
        self.gaps = GapLog(self.layout)
        """Which gaps its streams have had lately."""
        self.configured_knobs = configured_knobs or Knobs()
        """What a stream's flush knobs are when nobody has set them."""
        self.prices = Prices.of(prices_url)
        """What its symbols cost."""
        self._timeout_s = timeout_s
        self._ids = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[CommandResult]] = {}
        self.leases = LeaseClient(send)
        """This process's way to the venues' shared budgets."""
        self.streams: Mapping[StreamKey, StreamReport] = {}
        """Every stream there is."""
        self.status: EngineStatus | None = None
        """What the supervisor said last. A new object each time it speaks."""
        self.heard = asyncio.Event()
        """Whether the supervisor has said what runs."""

    def verdict(self) -> HealthLight:
        """The engine as a whole, streams included."""
        return self.health.verdict(self.status)

    def look(self, now_ns: int) -> None:
        """See how it is, a few times a second, for what is remembered of it."""
        self.history.look(self.status, self.verdict(), now_ns)
        self.gaps.look(self.streams.values())

    def take(self, message: ToChild) -> None:
        """Handle what the supervisor says."""
        match message:
            case SystemStatus():
                self._take_status(msgspec.json.decode(message.body, type=EngineStatus))
            case LeaseGranted() | LeaseBlocked() | BudgetAnnounced():
                self.leases.take(message)
            case CommandResult():
                future = self._waiting.pop(message.request_id, None)
                if future is not None and not future.done():
                    future.set_result(message)
            case _:
                _log.error(f"control has no use for a {type(message).__name__}")

    async def add(self, streams: list[StreamRequest]) -> list[KeyResult]:
        """Begin streams. Raises ApiError when nobody answers."""
        return await self._command(AddStreams(next(self._ids), streams))

    async def remove(self, keys: list[StreamKey]) -> list[KeyResult]:
        """End streams. Raises ApiError when nobody answers."""
        return await self._command(RemoveStreams(next(self._ids), keys))

    async def set_knobs(self, key: StreamKey, changes: KnobChanges) -> KeyResult:
        """Tune a stream. Raises ApiError when nobody answers."""
        (result,) = await self._command(SetKnobs(next(self._ids), key, changes))
        return result

    async def renew_book(self, key: StreamKey) -> KeyResult:
        """Have a fresh snapshot of a book taken. Raises ApiError when nobody answers."""
        (result,) = await self._command(RenewBook(next(self._ids), key))
        return result

    async def upgrade(self) -> str:
        """Have the engine's processes replaced. Returns why that cannot be, or nothing. Raises
        ApiError when nobody answers.
        """
        return (await self._ask(UpgradeEngine(next(self._ids)))).error

    def tell_listing(self, listing: ListingLoaded) -> None:
        """Hand a venue's listing on, for the streams and for the database."""
        self._send(listing)

    async def _command(
        self, message: AddStreams | RemoveStreams | SetKnobs | RenewBook
    ) -> list[KeyResult]:
        return (await self._ask(message)).results

    async def _ask(
        self, message: AddStreams | RemoveStreams | SetKnobs | RenewBook | UpgradeEngine
    ) -> CommandResult:
        future: asyncio.Future[CommandResult] = asyncio.get_running_loop().create_future()
        self._waiting[message.request_id] = future
        try:
            self._send(message)
            async with asyncio.timeout(self._timeout_s):
                return await future
        except TimeoutError:
            raise ApiError(
                "unavailable",
                f"the supervisor did not answer within {self._timeout_s:g} s; the command may still"
                " take effect",
                retry_after_s=2.0,
            ) from None
        finally:
            self._waiting.pop(message.request_id, None)

    def _take_status(self, status: EngineStatus) -> None:
        self.streams = {_key(report): report for report in status.streams}
        self.status = status
        self.heard.set()
        self.health.take(status)


def _key(report: StreamReport) -> StreamKey:
    names = {name: getattr(report, name) for name in StreamKey.__struct_fields__}
    return msgspec.convert(names, StreamKey)
