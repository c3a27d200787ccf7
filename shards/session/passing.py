"""Streams of one venue on their way from one shard to the next: which of them are expected here,
and which are let go of.
"""

from collections.abc import Callable, Iterable
from functools import partial

from engine.base.clock import monotonic_s
from engine.data.names import StreamKind, Transport
from shards.feeds.feed import Feed
from shards.feeds.passing import baton
from shards.feeds.passing.heir import Heir, LetGo
from shards.feeds.unnumbered import UnnumberedFeed
from shards.transport.poller import Poller
from shards.transport.sockets import VenueSockets


class Passing:
    """What sockets and pollers have in common here. `poller` is that of a kind."""

    def __init__(self, sockets: VenueSockets, poller: Callable[[StreamKind], Poller]) -> None:
        self._sockets = sockets
        self._poller = poller
        self._expected: set[int] = set()
        self._let_go: set[int] = set()

    def expect(self, slots: Iterable[int]) -> None:
        """Another shard has these streams."""
        self._expected.update(slots)

    def is_expected(self, slot: int) -> bool:
        """Whether another shard has the stream still."""
        return slot in self._expected

    def keep(self, streams: Iterable[Feed]) -> list[Feed]:
        """Of streams that are to be carried by sockets or polled, those that begin now; of the
        others that have sockets the frames are kept.
        """
        now = []
        for stream in streams:
            if not self.is_expected(stream.slot):
                now.append(stream)
            elif stream.key.transport is Transport.WS:
                renew = partial(self._sockets.renew, stream)
                self._sockets.heirs[stream.slot] = Heir(stream, renew)
                now.append(stream)
        return now

    def joined(self, streams: Iterable[Feed]) -> list[int]:
        """Slots of the expected streams that may be asked for."""
        now_s = monotonic_s()
        return [each.slot for each in streams if self._has_joined(each, now_s)]

    def _has_joined(self, stream: Feed, now_s: float) -> bool:
        """What is polled joins with its first call, and what cannot run at once."""
        if not self.is_expected(stream.slot):
            return False
        heir = self._sockets.heirs.get(stream.slot)
        if heir is None:
            return stream.key.transport is Transport.HTTP_POLL or not stream.is_wanted
        return heir.has_joined(now_s)

    def inherit(self, stream: Feed, said: str, *, is_sure: bool) -> bool:
        """Go on with an expected stream; False where that would leave a hole. `is_sure`: nobody
        else has it.
        """
        heir = self._sockets.heirs.get(stream.slot)
        if heir is not None:

            def before() -> None:
                self._take_over(stream, anew=is_sure)

            is_taken = heir.take_over(said, before, is_sure=is_sure)
        else:
            baton.inherit(stream, said)
            is_taken = True
            if isinstance(stream, UnnumberedFeed) and self._is_polled(stream):
                self._poller(stream.key.kind).add(stream, goes_on=not is_sure)
        if is_taken:
            self._expected.discard(stream.slot)
        return is_taken

    def let_go(self, stream: Feed) -> str | None:
        """Stop storing a stream, and tell what its heir must know; None while that cannot be."""
        if not stream.can_be_let_go or stream.slot in self._let_go:
            return None
        if isinstance(stream, UnnumberedFeed) and self._is_polled(stream):
            poller = self._poller(stream.key.kind)
            if poller.is_asking(stream):
                return None
            poller.remove(stream)
        elif not self._divert(stream):
            return None
        self._let_go.add(stream.slot)
        stream.let_go()
        return baton.tell(stream)

    def take_back(self, stream: Feed) -> None:
        """Go on with what was let go of."""
        if stream.slot not in self._let_go:
            return
        self._let_go.discard(stream.slot)
        if isinstance(stream, UnnumberedFeed) and self._is_polled(stream):
            self._poller(stream.key.kind).add(stream, goes_on=True)
        else:
            self._return(stream)

    def _take_over(self, stream: Feed, *, anew: bool) -> None:
        """Deliver what was expected from now on; `anew`: whatever is missing."""
        del self._sockets.heirs[stream.slot]
        if (connection := self._sockets.carrier(stream)) is not None:
            connection.take_over(stream, anew=anew)
            if not anew:
                stream.goes_on(connection.carrier)

    def _divert(self, stream: Feed) -> bool:
        """Keep what comes for a stream from now on; False while that cannot be."""
        connection = self._sockets.carrier(stream)
        if connection is None or not connection.is_connected or self._sockets.is_moving(stream):
            return False
        kept = self._sockets.let_go[stream.slot] = LetGo(stream)
        connection.subscriptions.divert(stream, kept)
        return True

    def _return(self, stream: Feed) -> None:
        """Have it delivered to the stream again, with what was kept."""
        kept, connection = self._sockets.let_go.pop(stream.slot), self._sockets.carrier(stream)
        assert connection is not None

        def before() -> None:
            connection.subscriptions.divert(stream, None)
            stream.is_let_go = False
            if kept.has_lost:
                stream.cut("more came than could be kept")
                connection.begin(stream)
            elif connection.is_connected:
                stream.goes_on(connection.carrier)

        kept.take_back(before)

    def forget(self, slot: int) -> None:
        """The stream is no more of this shard."""
        self._expected.discard(slot)
        self._let_go.discard(slot)

    def _is_polled(self, stream: Feed) -> bool:
        return stream.key.transport is Transport.HTTP_POLL
