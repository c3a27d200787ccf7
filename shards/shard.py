"""A shard: rings, venue sessions, and the conversation with the supervisor."""

import asyncio
import itertools
import logging
import resource
from collections import Counter, defaultdict

from engine.base.clock import monotonic_s, wall_ns
from engine.limits.leases import LeaseClient
from engine.messages.limits import BudgetAnnounced, LeaseBlocked, LeaseGranted, PlacesGranted
from engine.messages.pipes import Drain, ShardStatus, ToChild
from engine.messages.settings import Reconfigure, ShardSettings, VenueSettings
from engine.messages.streams import (
    DropStreams,
    ExpectStreams,
    InheritStream,
    PassingMessage,
    ReleaseStreams,
    RenewBooks,
    StartStreams,
    StopStreams,
    StreamInherited,
    StreamReleased,
    StreamsJoined,
    StreamSpec,
    StreamState,
    StreamStatus,
    TakeBackStreams,
    sum_by_kind,
)
from engine.process import logs
from engine.process.metrics import ProcessMetrics, ShardMetrics
from engine.process.pipe import Pipe
from engine.process.usage import resident_bytes
from shards.session.rings import ShardRings
from shards.session.venue_session import VenueSession
from shards.venues import VENUES
from shards.venues.budgets import with_limits

_log = logging.getLogger(__name__)


class Shard:
    """Owns connections. One event loop, no queue between socket and ring."""

    def __init__(self, settings: ShardSettings, pipe: Pipe[ToChild]) -> None:
        self._settings = settings
        self._pipe = pipe
        self._layout = settings.paths.layout()
        self._rings = ShardRings.attach(self._layout, settings.role, settings.doorbell_fd)
        self._sessions: dict[str, VenueSession] = {}
        self._strangers: dict[int, StreamStatus] = {}
        """Streams of venues this version does not know, as another one may have left them."""
        self._leases = LeaseClient(pipe.send)
        self._fault: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._loop_lag_ms = 0.0
        self._metrics = ShardMetrics()
        self._process = ProcessMetrics(settings.role)

    async def run(self) -> int:
        """Serve until told to drain or the supervisor is gone. Returns the exit code."""
        ticker = asyncio.create_task(self._tick())
        obeying = asyncio.create_task(self._obey())
        in_order = False
        try:
            await asyncio.wait([ticker, obeying, self._fault], return_when=asyncio.FIRST_COMPLETED)
            for done in (self._fault, ticker, obeying):
                if done.done():
                    done.result()
            in_order = True
        finally:
            ticker.cancel()
            obeying.cancel()
            await asyncio.gather(ticker, obeying, return_exceptions=True)
            await asyncio.gather(
                *(session.close(in_order=in_order) for session in self._sessions.values())
            )
            self._report()
            await self._pipe.flush()
            self._rings.close()
        return 0

    async def _obey(self) -> None:
        while (message := await self._pipe.receive()) is not None:
            match message:
                case StartStreams():
                    self._start(message.streams)
                case StopStreams():
                    self._stop(message.slots)
                case RenewBooks():
                    self._renew_books(message.slots)
                case (
                    ExpectStreams()
                    | ReleaseStreams()
                    | InheritStream()
                    | DropStreams()
                    | TakeBackStreams()
                ):
                    self._pass(message)
                case LeaseGranted() | LeaseBlocked() | BudgetAnnounced() | PlacesGranted():
                    self._leases.take(message)
                case Reconfigure():
                    logs.change(message.log)
                case Drain():
                    return
                case _:
                    _log.error("a shard has no use for a %s", type(message).__name__)

    def _start(self, streams: list[StreamSpec], *, are_expected: bool = False) -> None:
        by_venue: defaultdict[str, list[StreamSpec]] = defaultdict(list)
        for stream in streams:
            by_venue[stream.key.venue].append(stream)
        for name, members in by_venue.items():
            if name not in VENUES:
                self._refuse(members)
            elif are_expected:
                self._session(name).expect(members)
            else:
                self._session(name).start(members)

    def _pass(self, message: PassingMessage) -> None:
        """Streams come from another shard, or go there."""
        match message:
            case ExpectStreams():
                self._start(message.streams, are_expected=True)
            case ReleaseStreams():
                self._release(message)
            case InheritStream():
                session = self._session_of(message.slot)
                is_taken = session is None or session.inherit(message.slot, message.said)
                self._pipe.send(StreamInherited(message.slot, is_taken))
            case DropStreams():
                for session in self._sessions.values():
                    session.drop(message.slots)
            case TakeBackStreams():
                for session in self._sessions.values():
                    session.take_back(message.slots)

    def _release(self, message: ReleaseStreams) -> None:
        for slot in message.slots:
            session = self._session_of(slot)
            if session is None:  # of a venue that is not known, or removed meanwhile
                self._pipe.send(StreamReleased(slot, self._strangers.get(slot)))
            elif released := session.release(slot, is_cold=message.is_cold):
                self._pipe.send(released)

    def _session_of(self, slot: int) -> VenueSession | None:
        return next((each for each in self._sessions.values() if each.has(slot)), None)

    def _say_joined(self) -> None:
        """Which of the expected streams may be asked for."""
        slots = [slot for session in self._sessions.values() for slot in session.joined()]
        if slots:
            self._pipe.send(StreamsJoined(slots))

    def _refuse(self, streams: list[StreamSpec]) -> None:
        """What a registry of another version wants must not cost the streams that can run."""
        for stream in streams:
            reason = f"unknown venue {stream.key.venue!r}; this version knows {', '.join(VENUES)}"
            _log.error("%s: %s", stream.key, reason)
            self._strangers[stream.slot] = StreamStatus(
                stream.slot, StreamState.FAILED, reason, life=stream.life
            )

    def _stop(self, slots: list[int]) -> None:
        for session in self._sessions.values():
            session.stop(slots)
        for slot in slots:
            self._strangers.pop(slot, None)

    def _renew_books(self, slots: list[int]) -> None:
        for session in self._sessions.values():
            session.renew_books(slots)

    def _session(self, name: str) -> VenueSession:
        if name not in self._sessions:
            settings = self._settings.venues.get(name, VenueSettings())
            self._sessions[name] = VenueSession(
                with_limits(VENUES[name], settings.limits),
                settings,
                self._rings,
                self._layout,
                self._on_fault,
                self._leases,
                shard_count=self._settings.shard_count,
            )
        return self._sessions[name]

    def _on_fault(self, error: BaseException) -> None:
        if not self._fault.done():
            self._fault.set_exception(error)

    async def _tick(self) -> None:
        """Pending gaps, watchdogs, status."""
        interval_s = self._settings.status_interval_s
        while True:
            started_s = monotonic_s()
            await asyncio.sleep(interval_s)
            overslept_s = max(monotonic_s() - started_s - interval_s, 0.0)
            self._loop_lag_ms = overslept_s * 1e3
            for session in self._sessions.values():
                session.tick(overslept_s)
            self._rings.publish()
            self._say_joined()
            self._report()

    def _report(self) -> None:
        sessions = self._sessions.values()
        streams = [stream.status() for session in sessions for stream in session.streams]
        streams += self._strangers.values()
        connections = itertools.chain.from_iterable(s.connections for s in sessions)
        malformed: Counter[str] = Counter()
        for session in sessions:
            malformed.update(session.malformed_by_reason)
        usage = resource.getrusage(resource.RUSAGE_SELF)
        self._pipe.send(
            ShardStatus(
                shard=self._settings.index,
                streams=streams,
                counts_by_kind=sum_by_kind(session.counts_by_kind for session in sessions),
                malformed_by_reason=dict(malformed),
                connection_count=sum(c.is_connected for c in connections),
                reconnect_count=sum(session.reconnect_count for session in sessions),
                loop_lag_ms=self._loop_lag_ms,
                rss_bytes=resident_bytes(),
                cpu_s=usage.ru_utime + usage.ru_stime,
            )
        )
        for name, session in self._sessions.items():
            self._metrics.feed(
                name,
                session.counts_by_kind,
                session.malformed_by_reason,
                session.reconnect_count,
                sum(connection.is_connected for connection in session.connections),
            )
            self._metrics.feed_sockets(name, session.tries, session.lags_s(wall_ns()))
        self._process.feed(usage.ru_utime + usage.ru_stime, self._loop_lag_ms / 1e3)
