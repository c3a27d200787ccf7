"""Feeds of Kraken futures that bring rows of two kinds: what cannot be read of one concerns both,
unless it says that it is none of a kind.
"""

import json

import pytest

from engine.data.names import StreamKind
from shards.feeds.feed import Feed
from shards.venues.bad_frames import BAD_FRAME
from shards.venues.kit import Feeds
from shards.venues.kraken_futures import VENUE
from shards.venues.salvage import Salvage
from tests.shards.doubles import MemoryRings, Said, spec_of

TS_RECV = 1_800_000_000_000_000_000
TRADE = {
    "feed": "trade", "product_id": "PF_XBTUSD", "uid": "05af", "side": "sell", "type": "fill",
    "seq": 653355, "time": 1795000000111, "qty": 0.5, "price": 81230.0,
}  # fmt: skip


def refused(wanted: list[tuple[str, StreamKind]], **said: object) -> list[int]:
    """How many elements each stream has refused after one that cannot be read."""
    double, feeds = MemoryRings(), Feeds()
    streams: list[Feed] = []
    for slot, (symbol, kind) in enumerate(wanted):
        stream = double.feed(spec_of(slot, VENUE.name, symbol, kind), VENUE)
        stream.subscribed()
        feeds.add(stream)
        streams.append(stream)
    decode = VENUE.open_decoder(feeds, Said())
    counted: list[Exception] = []
    salvage = Salvage(VENUE, feeds, decode, lambda error, _: counted.append(error))
    frame = json.dumps(said).encode()
    with pytest.raises(BAD_FRAME) as caught:
        decode(frame, TS_RECV)
    salvage.take(frame, TS_RECV, caught.value)
    assert len(counted) == 1, "whatever it concerns, it is one element"
    return [stream.refused_count for stream in streams]


BOTH = [("PF_XBTUSD", StreamKind.TRADES), ("PF_XBTUSD", StreamKind.LIQUIDATIONS)]


@pytest.mark.fault("N03")
@pytest.mark.parametrize(
    ("said", "counts"),
    [
        ({"price": -1}, [1, 0]),
        ({"price": -1, "type": "liquidation"}, [1, 1]),
        ({"type": None}, [1, 1]),
    ],
)
def test_an_unreadable_trade_may_be_a_liquidation_unless_it_says_otherwise(
    said: dict[str, object], counts: list[int]
) -> None:
    assert refused(BOTH, **{**TRADE, **said}) == counts


@pytest.mark.fault("N03")
def test_it_is_no_others_where_its_contract_has_a_stream_of_the_other_kind() -> None:
    wanted = [("PF_XBTUSD", StreamKind.TRADES), ("PF_ETHUSD", StreamKind.LIQUIDATIONS)]
    assert refused(wanted, **{**TRADE, "type": "liquidation", "price": -1}) == [1, 0]


@pytest.mark.fault("N03")
def test_an_unreadable_ticker_is_a_quote_and_two_rows_of_state() -> None:
    kinds = (StreamKind.TICKER, StreamKind.FUNDING_OPEN_INTEREST)
    wanted = [("PF_XBTUSD", kind) for kind in kinds]
    assert refused(wanted, feed="ticker", product_id="PF_XBTUSD", time=1795000000111) == [1, 2]


def test_two_fills_of_one_liquidation_that_say_the_same_are_two() -> None:
    """Of one millisecond, price and quantity; the number of the trade tells them apart."""
    double, feeds = MemoryRings(), Feeds()
    stream = double.feed(spec_of(0, VENUE.name, "PF_XBTUSD", StreamKind.LIQUIDATIONS), VENUE)
    stream.subscribed()
    feeds.add(stream)
    decode = VENUE.open_decoder(feeds, Said())
    for seq in (653355, 653356, 653356):
        decode(json.dumps({**TRADE, "type": "liquidation", "seq": seq}).encode(), TS_RECV)
    assert len(double.rows("liquidation")) == 2
    assert stream.duplicate_count == 1
