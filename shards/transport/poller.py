"""Polling: one REST call again and again, as a transport equal to a socket.

A poller serves one channel of one venue. Where one call answers for all its streams and costs less
than asking for each, that one is made; else every stream has its own call, at a phase of its own.
Polls share the venue's REST budget with book snapshots: intervals the budget cannot bear are made
longer, and the streams say so.

What a polled stream promises is one sample an interval. A call that fails, in whatever way, is
repeated within the interval; so is one whose answer cannot be read. A sample that was due and could
not be taken until the next one was due is a gap (`poll_missed`), whichever call should have taken
it, and so is one whose answer came without the stream. Samples are stored whether or not they
differ from the last, in the venue's time as well: that the value still stood is what was asked. The
row's time is the venue's, its `recv_time` tells the samples apart.
"""

import asyncio
import logging
import math
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from engine.base.backoff import Backoff
from engine.base.clock import monotonic_s, wall_ns
from engine.base.errors import VenueError
from engine.base.keep_trying import Trouble
from engine.limits.leases import Line
from engine.messages.streams import StreamState
from shards.feeds.declared.coverage import Carriers
from shards.feeds.unnumbered import UnnumberedFeed
from shards.transport.rest import VenueRest
from shards.transport.watch import Remedy, judge
from shards.venues.bad_frames import BAD_FRAME, BadFrames
from shards.venues.kit import Feeds, PollChannel, RestCall

_log = logging.getLogger(__name__)

_ALL = ""
"""In place of a symbol: the call that answers for all."""
_SINCE = "{since}"
"""In a call: from when on rows are asked for."""
_PHASE_STEP_S = 0.1
_STALE_AFTER_INTERVALS = 3


_SCARCE_SHARE = 1 / 3
"""Of what polls may spend, while many books wait for their snapshots."""


@dataclass(slots=True)
class PollShare:
    """What the pollers of one venue in one shard may spend together: all of them are slowed down
    alike. What the polls of all shards spend passes one turnstile, repeated calls as well, so that
    a venue in trouble cannot make polls eat what the books need to come back.
    """

    turnstile: Line
    weight_per_minute: float
    is_scarce: Callable[[], bool]
    """Whether books wait for the same budget."""
    pollers: "list[Poller]" = field(default_factory=list)

    @property
    def stretch(self) -> float:
        """How many times longer than wanted the intervals must be."""
        allowed = self.weight_per_minute * (_SCARCE_SHARE if self.is_scarce() else 1.0)
        return max(1.0, sum(poller.weight_per_minute for poller in self.pollers) / allowed)


class Poller:
    """All streams of one polled channel."""

    def __init__(
        self,
        venue: str,
        channel: PollChannel,
        rest: VenueRest,
        publish: Callable[[], None],
        *,
        interval_s: float,
        share: PollShare,
    ) -> None:
        self._channel = channel
        self._rest = rest
        self._publish = publish
        self._wanted_interval_s = interval_s
        self.carrier = Carriers.name_new()
        self._share = share
        share.pollers.append(self)
        self._streams: dict[str, UnnumberedFeed] = {}
        self._calls: dict[str, asyncio.Task[None]] = {}
        self._due_s: dict[str, float] = {}
        """When (monotonic) the next sample is due of each symbol that has had one."""
        self._tasks: asyncio.TaskGroup | None = None
        self._failing: set[str] = set()
        self._asking: set[str] = set()
        """Calls that have been sent and not answered."""
        call = channel.batch or channel.call
        assert call is not None
        path = call.path.partition("?")[0]
        self._trouble = Trouble(f"{venue}: polls of {path}", "samples are missed", Backoff(), _log)
        self._bad_frames = BadFrames(venue)

    @property
    def streams(self) -> Sequence[UnnumberedFeed]:
        """The streams it serves."""
        return list(self._streams.values())

    @property
    def malformed_by_reason(self) -> Counter[str]:
        """Answers, or parts of them, that could not be used."""
        return self._bad_frames.by_reason

    @property
    def weight_per_minute(self) -> float:
        """What the wanted interval costs."""
        call = self._channel.batch if self._is_batch else self._channel.call
        assert call is not None
        calls = min(len(self._streams), 1) if self._is_batch else len(self._streams)
        return calls * call.weight * 60 / self._wanted_interval_s

    @property
    def interval_s(self) -> float:
        """Seconds between two samples of a stream: as wanted, or as the budget allows."""
        return self._wanted_interval_s * self._share.stretch

    def add(self, stream: UnnumberedFeed, *, goes_on: bool = False) -> None:
        """Sample one more stream; with `goes_on`, one that another process sampled until now."""
        self._streams[stream.key.symbol] = stream
        if goes_on:  # neither earlier, which budgets do not allow for, nor later
            self._due_s[stream.key.symbol] = stream.due_s or monotonic_s()
            stream.goes_on(self.carrier)
        else:
            stream.carrier = self.carrier
            stream.subscribed(f"polled every {self.interval_s:g} s, waiting for the first answer")
        self._arrange()

    def is_asking(self, stream: UnnumberedFeed) -> bool:
        """Whether an answer with the stream's next sample may be under way."""
        return _ALL in self._asking or stream.key.symbol in self._asking

    def remove(self, stream: UnnumberedFeed) -> None:
        """Sample it no more."""
        if self._streams.pop(stream.key.symbol, None) is not None:
            stream.due_s = self._due_s.pop(stream.key.symbol, 0.0)
            self._arrange()

    async def run(self) -> None:
        """Poll until cancelled."""
        try:
            async with asyncio.TaskGroup() as tasks:
                self._tasks = tasks
                self._arrange()
                await asyncio.Event().wait()
        finally:
            self._tasks = None
            self._calls.clear()

    def watch(self, now_s: float) -> None:
        """An answer that does not name a stream proves nothing for it. Where nobody may ask, that
        is what the streams say.
        """
        why = self._share.turnstile.wait or self._rest.waits_for(self._pool)
        limit_s = max(self._channel.stale_after_s, _STALE_AFTER_INTERVALS * self.interval_s)
        for stream in self._streams.values():
            if judge(stream, limit_s, 0, now_s) is Remedy.RESUBSCRIBE:
                stream.poll_missed()
                stream.fell_silent(f"no answer of the venue has named it for {limit_s:.0f} s")
                _log.warning("%s: %s", stream.key, why or stream.reason)
            if why and stream.state is not StreamState.LIVE:
                stream.explain(why)

    @property
    def _pool(self) -> str:
        call = self._channel.batch or self._channel.call
        assert call is not None
        return call.pool

    @property
    def _is_batch(self) -> bool:
        batch, call = self._channel.batch, self._channel.call
        if batch is None or call is None:
            return batch is not None
        return len(self._streams) * call.weight >= batch.weight

    def _arrange(self) -> None:
        """Begin and end calls, so that they are the ones the present streams need."""
        if self._tasks is None:
            return
        wanted = set(self._streams)
        if wanted and self._is_batch:
            wanted = {_ALL}
        for symbol in self._calls.keys() - wanted:
            self._calls.pop(symbol).cancel()
            self._failing.discard(symbol)
        for symbol in sorted(wanted - self._calls.keys()):
            self._calls[symbol] = self._tasks.create_task(self._repeat(symbol))

    async def _repeat(self, symbol: str) -> None:
        """One call, once an interval."""
        due_s = self._first_due_s(symbol)
        await asyncio.sleep(due_s - monotonic_s())
        while True:
            await self._sample(symbol, due_s)
            now_s, interval_s = monotonic_s(), self.interval_s
            # Samples that are overdue are not taken at once: they would say the same once more.
            due_s = _next_due_s(due_s, now_s, interval_s)
            await asyncio.sleep(due_s - now_s)

    def _first_due_s(self, symbol: str) -> float:
        """When a call that begins now is due: at once, or for streams that another call has served
        when that one was. A phase spreads many calls over the interval.
        """
        phase_s = min(self.interval_s / 2, _PHASE_STEP_S * len(self._streams))
        due = [self._due_s.get(each.key.symbol) for each in self._served(symbol)]
        due_s = min((each for each in due if each is not None), default=0.0)
        return max(due_s, monotonic_s()) + random.uniform(0, phase_s)  # noqa: S311 - no secret

    async def _sample(self, symbol: str, due_s: float) -> None:
        """Make the call until it succeeds."""
        call = self._channel.batch if symbol == _ALL else self._channel.call
        assert call is not None
        backoff = Backoff(0.25, max(self.interval_s, 1.0))
        while True:
            reason = await self._ask(call, symbol, due_s)
            if not reason:
                self._failing.discard(symbol)
                if not self._failing:
                    self._trouble.over()
                return
            if not self._failing:  # of hundreds that fail at once, one is said; all show it
                self._trouble.met(reason)
            self._failing.add(symbol)
            for stream in self._served(symbol):
                stream.poll_failed(reason)
            await asyncio.sleep(backoff.next_s())

    async def _ask(self, call: RestCall, symbol: str, due_s: float) -> str:
        """Make the call once; returns why that was in vain, or nothing."""
        try:
            await self._share.turnstile.acquire(call.weight)
            self._asking.add(symbol)
            body = await self._rest.fetch(self._since(call, symbol), symbol)
        except VenueError as error:
            return str(error)
        else:
            return self._deliver(symbol, body, due_s)
        finally:
            self._asking.discard(symbol)

    def _since(self, call: RestCall, symbol: str) -> RestCall:
        """The call with the time from which on its streams want rows, where it says one."""
        if _SINCE not in call.path:
            return call
        since_ms = min((stream.since_ms for stream in self._served(symbol)), default=0)
        return replace(call, path=call.path.replace(_SINCE, str(since_ms)))

    def _deliver(self, symbol: str, body: bytes, due_s: float) -> str:
        """Hand an answer to its streams; returns why that cannot be done, or nothing. An answer
        later than the next one was due follows samples that were never taken.
        """
        served = self._served(symbol)
        interval_s, now_s = self.interval_s, monotonic_s()
        for stream in served:
            if now_s - self._due_s.get(stream.key.symbol, due_s) > interval_s:
                stream.poll_missed()
        counts = [stream.frame_count for stream in served]
        feeds = Feeds()
        for stream in served:
            feeds.add(stream)
        try:
            self._channel.decode(body, feeds, wall_ns(), self._bad_frames.add)
        except BAD_FRAME as error:
            self._bad_frames.add(error, body)
            self._publish()
            return f"unusable answer: {str(error)[:200]}"
        for stream, count in zip(served, counts, strict=True):
            self._due_s[stream.key.symbol] = _next_due_s(due_s, now_s, interval_s)
            self._show(stream, answered=stream.frame_count > count)
        self._publish()
        return ""

    def _show(self, stream: UnnumberedFeed, *, answered: bool) -> None:
        """What a reader of the stream's state has to know after an answer."""
        if not answered:
            stream.poll_missed()
            if stream.state is StreamState.BACKOFF:  # the call works again, without this stream
                stream.lacks("the answer does not name it")
        elif stream.state is StreamState.LIVE:
            interval_s = self.interval_s
            slowed = interval_s > self._wanted_interval_s
            how = f"polled every {interval_s:.3g} s, as the REST budget allows"
            stream.explain(how if slowed else "")

    def _served(self, symbol: str) -> list[UnnumberedFeed]:
        if symbol == _ALL:
            return list(self._streams.values())
        return [self._streams[symbol]] if symbol in self._streams else []


def _next_due_s(due_s: float, now_s: float, interval_s: float) -> float:
    """When the sample is due that follows one that was due at `due_s` and taken at `now_s`."""
    return due_s + interval_s * max(1, math.ceil((now_s - due_s) / interval_s))
