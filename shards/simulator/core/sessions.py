"""Client sockets of one venue, what they subscribed to, and what was sent to them."""

from asyncio import WriteTransport
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from engine.base.clock import monotonic_ns
from shards.simulator.core.frames import text_frame
from shards.simulator.core.limits import MINUTE_NS, SECOND_NS, ClockMeter, Meter, VenueLimit
from shards.simulator.core.spoiling import Spoiler

__all__ = ["EXTRA_KINDS", "WRITABLE_BYTES", "Hub", "Payload", "Session", "Topic", "write_all"]

EXTRA_KINDS = ("quote", "funding", "open_interest", "liquidation")
"""Kinds beside trades and books. They are counted under these names, like their ledger files."""

WRITABLE_BYTES = 1 << 20
"""At full speed a socket gets more only while less than this waits in its write buffer."""

STALLED_BYTES = 64 << 20
"""A reader this far behind is cut off, as venues do; the simulator's memory stays bounded."""

Payload: TypeAlias = bytes | memoryview


class Session:
    """One WebSocket. Frames go straight to the transport: whole frames, one write."""

    __slots__ = (
        "_counter", "_next_number", "combined", "group", "is_greeted", "messages", "meters",
        "names", "transport",
    )  # fmt: skip

    def __init__(
        self, transport: WriteTransport, group: str, *, combined: bool, counter: bytes = b""
    ) -> None:
        """`counter` stands in frames where the number of a message belongs."""
        self._counter = counter
        self._next_number = 0
        self.transport = transport
        self.group = group
        self.combined = combined
        self.names: dict[str, None] = {}
        """Every subscription the client asked for, served or not, oldest first."""
        self.messages = ClockMeter(SECOND_NS)
        """What the client sent."""
        self.meters: dict[VenueLimit, Meter] = {}
        """What it used of the venue's limits for each socket."""
        self.is_greeted = False

    def write(self, frames: Payload) -> bool:
        """Write whole frames; tell whether the socket was alive to take them."""
        if self.transport.is_closing():
            return False
        self.transport.write(self._numbered(frames) if self._counter else frames)
        if self.transport.get_write_buffer_size() > STALLED_BYTES:
            self.transport.abort()
        return True

    def _numbered(self, frames: Payload) -> bytes:
        """Put numbers in the place of counters, as wide as these: the same frames go to others."""
        first, *others = bytes(frames).split(self._counter)
        width = len(self._counter)
        numbered = [
            b"%*d%b" % (width, number, text)
            for number, text in enumerate(others, self._next_number)
        ]
        self._next_number += len(others)
        return b"".join([first, *numbered])

    def send_text(self, payload: bytes) -> bool:
        """Send one text frame."""
        return self.write(text_frame(payload))

    def buffered(self) -> int:
        """Bytes not yet handed to the kernel; a closed socket has none."""
        return 0 if self.transport.is_closing() else self.transport.get_write_buffer_size()


class Topic:
    """One stream of one instrument and the sockets listening to it."""

    __slots__ = ("combined", "raw")

    def __init__(self) -> None:
        self.raw: list[Session] = []
        self.combined: list[Session] = []

    def __bool__(self) -> bool:
        return bool(self.raw or self.combined)

    def push(self, name: str, payload: bytes) -> bool:
        """Send one payload, wrapped with the stream's name on combined sockets."""
        delivered = write_all(self.raw, text_frame(payload)) if self.raw else False
        if self.combined:
            wrapped = b'{"stream":"%s","data":%s}' % (name.encode(), payload)
            delivered |= write_all(self.combined, text_frame(wrapped))
        return delivered

    def writable(self) -> bool:
        """Tell whether every listener has room."""
        return all(s.buffered() < WRITABLE_BYTES for s in (*self.raw, *self.combined))

    def add(self, session: Session) -> None:
        """Let the session listen."""
        (self.combined if session.combined else self.raw).append(session)

    def discard(self, session: Session) -> None:
        """Stop the session from listening, if it was."""
        listeners = self.combined if session.combined else self.raw
        if session in listeners:
            listeners.remove(session)


class Hub:
    """The sockets, topics and counters of one venue."""

    def __init__(
        self,
        name: str,
        symbols: list[str],
        own_kinds: Iterable[str] = (),
        spoiled: Mapping[str, Sequence[str]] = MappingProxyType({}),
    ) -> None:
        self.name = name
        self.symbols = symbols
        self.sessions: set[Session] = set()
        self.topics: dict[str, Topic] = {}
        self.version = 0
        """Changes with every (un)subscription, so that callers may cache who listens to what."""
        self.first_subscription_ns = 0
        self.counts = {
            kind: np.zeros(len(symbols), np.int64)
            for kind in ("trade", "book", *EXTRA_KINDS, *own_kinds)
        }
        """Rows pushed, by kind and symbol."""
        self.served_counts = dict.fromkeys(EXTRA_KINDS, 0)
        """Values REST gave out that went into the ledger."""
        self.connects = ClockMeter(MINUTE_NS)
        """Handshakes, accepted or not."""
        self.messages = ClockMeter(MINUTE_NS)
        """What clients sent over all sockets."""
        self.message_peak_per_s = 0
        """The most that any one socket got from its client within a second."""
        self.spoiler = Spoiler(spoiled)
        self.withheld_count = 0
        self.book_event_count = 0
        self._silent_until_ns = 0

    @property
    def trade_counts(self) -> NDArray[np.int64]:
        """Trades pushed, by symbol."""
        return self.counts["trade"]

    @property
    def book_counts(self) -> NDArray[np.int64]:
        """Levels of book events pushed, by symbol."""
        return self.counts["book"]

    def list_symbol(self, symbol: str) -> None:
        """Count for one more symbol."""
        self.symbols.append(symbol)
        for kind, counts in self.counts.items():
            self.counts[kind] = np.append(counts, 0)
        self.version += 1

    def count_message(self, session: Session) -> None:
        """Count one message of a client."""
        self.messages.add()
        self.message_peak_per_s = max(self.message_peak_per_s, session.messages.add())

    def subscribe(self, session: Session, name: str) -> None:
        """Deliver topic `name` to the session from now on."""
        self.topics.setdefault(name, Topic()).add(session)
        self.version += 1
        if self.first_subscription_ns == 0:
            self.first_subscription_ns = monotonic_ns()

    def unsubscribe(self, session: Session, name: str) -> None:
        """Stop delivering topic `name` to the session."""
        topic = self.topics.get(name)
        if topic is not None:
            topic.discard(session)
            self.version += 1

    def detach(self, session: Session) -> None:
        """Forget a socket that is gone."""
        self.sessions.discard(session)
        for topic in self.topics.values():
            topic.discard(session)
        self.version += 1

    def topic(self, name: str) -> Topic | None:
        """Give the topic if somebody listens to it."""
        topic = self.topics.get(name)
        return topic if topic else None

    def silence(self, seconds: float) -> None:
        """Send no data for a while; sockets stay open and the market stands still."""
        self._silent_until_ns = monotonic_ns() + int(seconds * 1e9)

    def silent(self) -> bool:
        """Tell whether the venue is in a silence."""
        return self._silent_until_ns > 0 and monotonic_ns() < self._silent_until_ns

    def buffered_bytes(self) -> int:
        """Bytes waiting in all sockets' write buffers."""
        return sum(session.buffered() for session in self.sessions)

    def status(self) -> dict[str, object]:
        """Count what was sent, as JSON."""
        return {
            "connections": len(self.sessions),
            "connection_attempts": self.connects.total,
            "connection_attempts_peak_per_minute": self.connects.peak,
            "messages": self.messages.total,
            "messages_peak_per_minute": self.messages.peak,
            "messages_peak_per_second_of_a_socket": self.message_peak_per_s,
            "sockets": [
                {
                    "group": session.group,
                    "subscriptions": len(session.names),
                    "messages": session.messages.total,
                    "messages_peak_per_second": session.messages.peak,
                }
                for session in self.sessions
            ],
            "subscriptions": sum(len(session.names) for session in self.sessions),
            "buffered_bytes": self.buffered_bytes(),
            "withheld": self.withheld_count,
            "unreadable": self.spoiler.sent_count,
            "unreadable_due": self.spoiler.due_count,
            "book_events": self.book_event_count,
            "sent": {**self.sent(), "by_symbol": self._sent_by_symbol()},
            "served": dict(self.served_counts),
        }

    def sent(self) -> dict[str, int]:
        """Rows pushed, by kind."""
        return {kind: int(counts.sum()) for kind, counts in self.counts.items()}

    def _sent_by_symbol(self) -> dict[str, dict[str, int]]:
        table = np.stack(list(self.counts.values()), axis=1)
        return {
            symbol: dict(zip(self.counts, row, strict=True))
            for symbol, row in zip(self.symbols, table.tolist(), strict=True)
            if any(row)
        }


def write_all(sessions: Iterable[Session], frames: Payload) -> bool:
    """Write the same frames to several sockets; tell whether at least one was alive."""
    delivered = False
    for session in sessions:
        delivered |= session.write(frames)
    return delivered
