"""What the two protocols of Coinbase have in common in the simulator: products, topics, requests.

A trade's side is the maker's; changes of books are known by their time alone, in microseconds. A
ticker is pushed when the best bid or offer has changed, not at each trade.
"""

from collections.abc import Iterable, Mapping, Sequence

from engine.base.clock import wall_ns
from shards.simulator.core.contracts import Terms
from shards.simulator.core.encoder import Asked, BookMessage, Encoder, Query, SocketPath
from shards.simulator.core.frames import Trade, compact, iso_text
from shards.simulator.core.limits import CONNECTS, WEIGHT, VenueLimit
from shards.simulator.core.market import Grid
from shards.simulator.core.sessions import Session
from shards.simulator.core.symbol import SymbolState
from shards.simulator.core.usual import UndatedWholes, book_now, listed_grids, read_object
from shards.simulator.core.venue import SimVenue

__all__ = ["SPOT", "SpotMarket", "by_channel", "maker_side", "now_text"]

# product, start price, price decimals printed, tick in units of the last decimal, quantity decimals
SPOT: tuple[tuple[str, float, int, int, int], ...] = (
    ("BTC-USD", 81234.5, 2, 1, 8), ("ETH-USD", 3123.45, 2, 1, 8), ("SOL-USD", 187.42, 2, 1, 8),
    ("XRP-USD", 2.3456, 4, 1, 6), ("DOGE-USD", 0.21345, 5, 1, 1), ("ADA-USD", 0.6543, 4, 1, 8),
    ("LINK-USD", 17.654, 3, 1, 2), ("AVAX-USD", 28.76, 2, 1, 8), ("LTC-USD", 98.76, 2, 1, 8),
)  # fmt: skip


def now_text() -> str:
    """Print the present moment."""
    return iso_text(wall_ns() // 1000)


def maker_side(trade: Trade) -> str:
    """Say what the maker did."""
    return "sell" if trade.buy else "buy"


class SpotMarket(Encoder):
    """What both protocols have in common."""

    terms = Terms(
        rate_decimals=6, usual_rate=12, rate_limit=20_000, interval_ms=3_600_000,
        mark_decimals=None, with_prices=False, with_interest=True,
    )  # fmt: skip
    numbered_books = True
    timed_books = True
    sockets: Sequence[SocketPath] = (SocketPath("", "ws"),)
    separator = ":"
    first_trade_id = 995_000_000
    trade_id_stride = 100_000_000
    limits: Sequence[VenueLimit] = (VenueLimit(CONNECTS, 8, 1.0), VenueLimit(WEIGHT, 10, 1.0))
    statuses: Sequence[str] = ("online", "delisted")
    _table = SPOT
    _beaten_ms = 0

    def __init__(self) -> None:
        self._wholes = UndatedWholes()

    def grids(self, count: int) -> Sequence[Grid]:
        return listed_grids(
            self._table, count, lambda n: (f"SIM{n:03d}-USD", 1.0 + n % 90, 4, 1, 2)
        )

    def beat(self, venue: SimVenue, now_ms: int) -> None:
        if now_ms - self._beaten_ms >= 1000:
            self._beaten_ms = now_ms
            self.push_heartbeats(venue, now_ms)

    def push_heartbeats(self, venue: SimVenue, now_ms: int) -> None:
        """Push those of this second."""

    def read(self, venue: SimVenue, session: Session, text: str | bytes) -> Asked | None:
        request = read_object(text)
        word, names = request.get("type"), self.names_of(request)
        products = request.get("product_ids") or []
        strangers = [each for each in products if venue.index_of(each) is None]
        if word not in ("subscribe", "unsubscribe") or not names:
            self.refuse(session, "malformed request", "")
        elif strangers:
            self.refuse(session, "Failed to subscribe", f"{strangers[0]} is not a valid product")
        else:
            return Asked(names, word == "subscribe")
        return None

    def answer(self, venue: SimVenue, session: Session, request: Asked) -> Sequence[str]:
        """Say all that is subscribed from now on."""
        new = [name for name in request.topics if name not in session.names]
        if request.begins:
            self.acknowledge(session, by_channel([*session.names, *new]))
            return new
        left = [name for name in session.names if name not in request.topics]
        self.acknowledge(session, by_channel(left))
        return request.topics

    def messages(self, event: BookMessage) -> Sequence[BookMessage]:
        """Its time has µs: a ms may have several changes."""
        return (event._replace(early_ns=(event.ts_ms * 1000 - event.last) * 1000),)

    def book(self, state: SymbolState, event: BookMessage) -> bytes:
        self._wholes.date(state, event)
        return self.change(state, event)

    def change(self, state: SymbolState, event: BookMessage) -> bytes:
        """Write what has changed of a book."""
        return b""

    def begin(self, venue: SimVenue, session: Session, topic: str, request: Asked) -> None:
        wanted = self.wants(topic, session.group)
        state = venue.state(wanted.symbol) if wanted else None
        if state is None or wanted is None:
            return
        if wanted.kind == "book":
            event = book_now(state, wanted.book)
            if session.send_text(self.whole(state, event)):
                self._wholes.add(venue, session, state, topic, event)
        elif wanted.kind == "trade":
            for payload in self.recent(state):
                session.send_text(payload)

    def names_of(self, request: Query) -> Sequence[str]:
        """Name the topics that a request is about; none for one that means nothing."""
        return ()

    def acknowledge(self, session: Session, subscribed: Mapping[str, Sequence[str]]) -> None:
        """Say all that is subscribed, by channel."""

    def refuse(self, session: Session, message: str, reason: str) -> None:
        """Say why a request was not taken."""
        session.send_text(compact({"type": "error", "message": message, "reason": reason}))

    def recent(self, state: SymbolState) -> Iterable[bytes]:
        """Write messages of what traded before a subscription."""
        return ()


def by_channel(names: Iterable[str]) -> dict[str, list[str]]:
    """Give the products of topics, channel by channel."""
    found: dict[str, list[str]] = {}
    for name in names:
        channel, _, symbol = name.partition(":")
        found.setdefault(channel, []).append(symbol or channel)
    return found
