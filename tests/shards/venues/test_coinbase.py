"""What Coinbase's decoders remember of a socket, and what they make of the venue's doubts."""

import json
from typing import Any

import pytest

from engine.data.flags import Flag, GapReason, Side
from engine.data.names import StreamKind, Transport
from engine.messages.settings import VenueSettings
from shards.feeds.feed import Feed
from shards.feeds.handover import Handover
from shards.venues import VENUES
from shards.venues.bad_frames import BAD_FRAME
from shards.venues.coinbase import exchange
from shards.venues.coinbase.venue import futures_after_spot
from shards.venues.kit import Feeds, Venue, configured
from shards.venues.salvage import Salvage
from tests.shards.doubles import MemoryRings, Said, spec_of

AT = "2026-11-18T12:26:40.123456Z"
AT_US = 1_795_004_800_123_456
TS_RECV = AT_US * 1000 + 5_000_000


class Rig:
    """A decoder with streams of two products behind it, and the slow path of refused frames."""

    def __init__(self, venue: Venue, *kinds: StreamKind) -> None:
        self.double = MemoryRings()
        self.talk = Said()
        self.feeds = Feeds()
        self.streams: list[Feed] = []
        for symbol in ("BTC-USD", "ETH-USD"):
            for kind in kinds:
                slot = len(self.streams) + 1
                spec = spec_of(slot, venue.name, symbol, kind, Transport.WS)
                stream = self.double.feed(spec, venue)
                stream.subscribed()
                self.feeds.add(stream)
                self.streams.append(stream)
        self._decode = venue.open_decoder(self.feeds, self.talk)
        self._salvage = Salvage(venue, self.feeds, self._decode, lambda *_: None)

    def hear(self, *messages: dict[str, Any]) -> None:
        """As a connection does."""
        for message in messages:
            frame = json.dumps(message).encode()
            try:
                self._decode(frame, TS_RECV)
            except BAD_FRAME as error:
                self._salvage.take(frame, TS_RECV, error)

    def column(self, kind: str, name: str) -> list[Any]:
        found: list[Any] = self.double.rows(kind)[name].tolist()
        return found


def advanced(*kinds: StreamKind) -> Rig:
    return Rig(VENUES["coinbase"], *kinds)


def feed_of_the_exchange(*kinds: StreamKind) -> Rig:
    return Rig(exchange.VENUE, *kinds)


def message(number: int, channel: str = "heartbeats", *events: dict[str, Any]) -> dict[str, Any]:
    return {"channel": channel, "timestamp": AT, "sequence_num": number, "events": [*events]}


def trade(trade_id: int, product: str = "BTC-USD", **changes: str) -> dict[str, Any]:
    return {
        "trade_id": str(trade_id), "product_id": product, "price": "81235.5", "size": "0.1",
        "side": "BUY", "time": AT, **changes,
    }  # fmt: skip


def trades(number: int, *rows: dict[str, Any], form: str = "update") -> dict[str, Any]:
    return message(number, "market_trades", {"type": form, "trades": [*rows]})


def levels(number: int, form: str, *prices: str, at: str = AT) -> dict[str, Any]:
    updates = [
        {"side": "bid", "event_time": at, "price_level": price, "new_quantity": "1"}
        for price in prices
    ]
    event = {"type": form, "product_id": "BTC-USD", "updates": updates}
    return message(number, "l2_data", event)


# -- numbers of a socket -------------------------------------------------------------------------


def test_a_jump_of_the_sockets_numbers_is_a_loss_of_any_of_its_streams() -> None:
    rig = advanced(StreamKind.TRADES)
    rig.hear(message(4), message(5), trades(6, trade(1)), message(9), message(10))
    assert rig.talk.words == [["lost", "message 9 came after 6"]]


def test_numbers_that_go_back_are_not_the_sockets() -> None:
    """Some documents say that they are a product's: then no jump means anything."""
    rig = advanced(StreamKind.TRADES)
    rig.hear(message(7), message(3), message(8), message(4), message(30))
    assert rig.talk.words == []


@pytest.mark.fault("N03")
def test_a_message_that_cannot_be_read_is_not_lost() -> None:
    """It had its number; what can be read of it is delivered without one."""
    rig = advanced(StreamKind.TRADES)
    bad = trades(2, trade(2), trade(3, price="NaN"), trade(4, "ETH-USD"))
    rig.hear(trades(1, trade(1)), bad, message(3), trades(4, trade(4)))
    assert rig.talk.words == []
    assert rig.column("trade", "trade_id") == [1, 2, 4, 4]
    assert rig.column("gap", "from_seq") == [3]


# -- trades --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("chosen", "side"),
    [(None, Side.SELL), ("maker", Side.SELL), ("taker", Side.BUY), ("unknown", Side.NONE)],
)
def test_whose_side_a_trades_is_can_be_chosen(chosen: str | None, side: Side) -> None:
    settings = VenueSettings(trade_side=chosen)
    rig = Rig(configured(VENUES["coinbase"], settings), StreamKind.TRADES)
    rig.hear(trades(0, trade(1, side="BUY")))
    assert rig.column("trade", "side") == [side]


def test_a_venue_without_such_an_option_stays_what_it_is() -> None:
    settings = VenueSettings(trade_side="taker")
    assert configured(exchange.VENUE, settings) is exchange.VENUE


def test_the_past_closes_a_hole_between_two_sockets() -> None:
    """It comes newest first; what is stored is dropped."""
    rig = advanced(StreamKind.TRADES)
    rig.hear(trades(0, trade(1), trade(2)))
    rig.streams[0].cut("cut")
    rig.streams[0].subscribed()
    rig.hear(trades(1, trade(4), trade(3), trade(2), form="snapshot"), trades(2, trade(5)))
    assert rig.column("trade", "trade_id") == [1, 2, 3, 4, 5]
    assert rig.column("trade", "flags") == [0, 0, Flag.BACKFILLED, Flag.BACKFILLED, 0]
    assert rig.double.rows("gap").size == 0


def test_trades_of_two_products_in_a_message_go_to_both() -> None:
    rig = advanced(StreamKind.TRADES)
    rig.hear(trades(0, trade(9, "ETH-USD"), trade(1), trade(2)))
    assert sorted(rig.double.rows("trade")[["stream", "trade_id"]].tolist()) == [
        (1, 1), (1, 2), (2, 9),
    ]  # fmt: skip
    rig.hear(trades(1, trade(3), trade(5, "SOL-USD")))
    assert rig.column("trade", "trade_id")[-1] == 3, "the stranger costs its neighbour nothing"


# -- books ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("at", ["1970-01-01T00:00:00Z", AT, "2026-11-18T12:26:39Z"])
def test_whatever_times_a_snapshots_levels_have_it_is_of_the_moment_of_the_next_update(
    at: str,
) -> None:
    """A level that was removed has no time there. The message was sent at `AT`; an update of a
    moment before may still come after it.
    """
    rig = advanced(StreamKind.L2_BOOK)
    rig.hear(
        levels(0, "snapshot", "1", "2", at=at),
        levels(1, "update", "3", at="2026-11-18T12:26:40.1Z"),
        levels(2, "update", "4"),
    )
    first = AT_US - 23_456
    assert rig.double.rows("book")[["ts_event", "seq", "prev_seq", "price"]].tolist() == [
        (first * 1000, first - 1, 0, 1.0), (first * 1000, first - 1, 0, 2.0),
        (first * 1000, first, first - 1, 3.0), (AT_US * 1000, AT_US, first, 4.0),
    ]  # fmt: skip
    assert rig.double.rows("gap").size == 0


@pytest.mark.fault("N03")
def test_an_update_that_cannot_be_read_starts_its_book_anew() -> None:
    rig = advanced(StreamKind.L2_BOOK)
    book, other = rig.streams
    rig.hear(levels(0, "snapshot", "1"), levels(1, "update", "2"), levels(2, "update", "x"))
    assert not book.is_synced  # type: ignore[attr-defined]
    rig.hear(levels(3, "update", "4"))
    assert rig.column("gap", "reason") == [GapReason.UNREADABLE]
    rig.hear(levels(4, "snapshot", "5"), levels(5, "update", "6"))
    assert book.is_synced  # type: ignore[attr-defined]
    assert other.gap_count == 0
    assert rig.talk.words == []


def test_an_update_before_any_snapshot_follows_nothing_that_is_stored() -> None:
    rig = advanced(StreamKind.L2_BOOK)
    early = "2026-11-18T12:26:40Z"
    rig.hear(levels(0, "snapshot", "1"), levels(1, "update", "1", at=early))
    rig.streams[0].cut("cut")
    rig.streams[0].subscribed()
    rig._decode = VENUES["coinbase"].open_decoder(rig.feeds, rig.talk)
    rig.hear(levels(0, "update", "2"))
    assert rig.column("gap", "reason") == [GapReason.RECONNECT]


# -- the exchange --------------------------------------------------------------------------------


def match(trade_id: int, word: str = "match") -> dict[str, Any]:
    return {
        "type": word, "trade_id": trade_id, "side": "sell", "size": "1", "price": "2",
        "product_id": "BTC-USD", "time": AT,
    }  # fmt: skip


def heartbeat(last_trade_id: int) -> dict[str, Any]:
    said = {"type": "heartbeat", "sequence": 90, "product_id": "BTC-USD", "time": AT}
    return {**said, "last_trade_id": last_trade_id}


def test_two_heartbeats_declare_a_trade_that_never_came() -> None:
    rig = feed_of_the_exchange(StreamKind.TRADES)
    rig.hear(match(1, "last_match"), heartbeat(1), heartbeat(1), heartbeat(3))
    assert rig.double.rows("gap").size == 0, "the trade may be on its way"
    rig.hear(match(2), heartbeat(3))
    assert rig.double.rows("gap")[["from_seq", "to_seq", "missing"]].tolist() == [(3, 3, 1)]
    rig.hear(match(4))
    assert rig.column("trade", "trade_id") == [1, 2, 4]
    assert len(rig.double.rows("gap")) == 1


def test_a_heartbeat_says_nothing_of_what_another_socket_brings() -> None:
    rig = feed_of_the_exchange(StreamKind.TRADES)
    stream = rig.streams[0]
    rig.hear(match(1))
    rig.feeds.add(stream, Handover(stream, lambda _: None, lambda: None))
    rig.hear(heartbeat(3), heartbeat(3))
    assert rig.double.rows("gap").size == 0


def test_a_book_of_the_exchange_goes_on_from_a_snapshot_without_a_time() -> None:
    rig = feed_of_the_exchange(StreamKind.L2_BOOK)
    whole = {"type": "snapshot", "product_id": "BTC-USD", "bids": [["1", "2"]], "asks": []}
    change = {"type": "l2update", "product_id": "BTC-USD", "time": AT}
    rig.hear(whole, {**change, "changes": [["buy", "1", "0"]]}, {**change, "changes": []})
    assert rig.double.rows("book")[["seq", "prev_seq", "ts_event"]].tolist() == [
        (AT_US - 1, 0, AT_US * 1000), (AT_US, AT_US - 1, AT_US * 1000),
        (AT_US + 1, AT_US, AT_US * 1000),
    ]  # fmt: skip
    assert rig.double.rows("gap").size == 0


def test_a_refusal_names_products_and_so_all_their_topics() -> None:
    topics = ["matches:BTC-USD", "ticker:BTC-USD", "matches:WBTC-USD", "ticker:BTC-USDC"]
    said = "Failed to subscribe: BTC-USD is not a valid product"
    assert exchange.topics_in(said, topics) == {"matches:BTC-USD", "ticker:BTC-USD"}
    assert exchange.topics_in("rate limit exceeded", topics) is None


# -- the listing ---------------------------------------------------------------------------------


def test_futures_are_asked_for_after_spot_products_and_nothing_after_them() -> None:
    def answer(*types: str) -> bytes:
        return json.dumps({"products": [{"product_type": each} for each in types]}).encode()

    after = futures_after_spot(answer("SPOT", "SPOT"))
    assert after is not None
    assert after.path.endswith("?product_type=FUTURE")
    assert futures_after_spot(answer("FUTURE")) is None
    assert futures_after_spot(answer()) is None
