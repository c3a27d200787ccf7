"""Client sockets of one venue, what they subscribed to, and what was sent to them."""

from asyncio import WriteTransport
from collections.abc import Iterable
from typing import TypeAlias

import numpy as np

from engine.clock import monotonic_ns
from shards.simulator.frames import text_frame

__all__ = ["WRITABLE_BYTES", "Hub", "Payload", "Session", "Topic", "write_all"]

WRITABLE_BYTES = 1 << 20
"""At full speed a socket gets more only while less than this waits in its write buffer."""

STALLED_BYTES = 64 << 20
"""A reader this far behind is cut off, as venues do; the simulator's memory stays bounded."""

Payload: TypeAlias = bytes | memoryview


class Session:
    """One WebSocket. Frames go straight to the transport: whole frames, one write."""

    __slots__ = ("combined", "group", "names", "transport")

    def __init__(self, transport: WriteTransport, group: str, *, combined: bool) -> None:
        self.transport = transport
        self.group = group
        self.combined = combined
        self.names: dict[str, None] = {}
        """Every subscription the client asked for, served or not, oldest first."""

    def write(self, frames: Payload) -> bool:
        """Write whole frames; tell whether the socket was alive to take them."""
        if self.transport.is_closing():
            return False
        self.transport.write(frames)
        if self.transport.get_write_buffer_size() > STALLED_BYTES:
            self.transport.abort()
        return True

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

    def __init__(self, name: str, symbols: list[str]) -> None:
        self.name = name
        self.symbols = symbols
        self.sessions: set[Session] = set()
        self.topics: dict[str, Topic] = {}
        self.version = 0
        """Changes with every (un)subscription, so that callers may cache who listens to what."""
        self.first_subscription_ns = 0
        self.trade_counts = np.zeros(len(symbols), np.int64)
        self.book_counts = np.zeros(len(symbols), np.int64)
        self.withheld_count = 0
        self.book_event_count = 0
        self._silent_until_ns = 0

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
            "subscriptions": sum(len(session.names) for session in self.sessions),
            "buffered_bytes": self.buffered_bytes(),
            "withheld": self.withheld_count,
            "book_events": self.book_event_count,
            "sent": {
                "trade": int(self.trade_counts.sum()),
                "book": int(self.book_counts.sum()),
                "by_symbol": {
                    symbol: {"trade": trades, "book": levels}
                    for symbol, trades, levels in zip(
                        self.symbols,
                        self.trade_counts.tolist(),
                        self.book_counts.tolist(),
                        strict=True,
                    )
                    if trades or levels
                },
            },
        }


def write_all(sessions: Iterable[Session], frames: Payload) -> bool:
    """Write the same frames to several sockets; tell whether at least one was alive."""
    delivered = False
    for session in sessions:
        delivered |= session.write(frames)
    return delivered
