"""What of OKX takes more than one message, or more than one answer."""

import json
from typing import Any, Final

import pytest

from engine.base.clock import monotonic_s
from engine.data.flags import Flag
from engine.data.names import StreamKind
from shards.feeds.handover import Handover
from shards.venues import VENUES
from shards.venues.bad_frames import BAD_FRAME, reason_of
from shards.venues.kit import Feeds
from shards.venues.salvage import Salvage
from tests.shards.doubles import MemoryRings, Said, spec_of
from tests.shards.venues.recorded import TS_RECV

SWAP: Final = "BTC-USDT-SWAP"
SECOND_NS: Final = 1_000_000_000
T_MS: Final = 1_795_000_000_000


class Funding:
    """Streams of funding behind one decoder."""

    def __init__(self, *symbols: str) -> None:
        self.double, self.feeds = MemoryRings(), Feeds()
        self.streams = [
            self.double.feed(spec_of(slot, "okx", symbol, StreamKind.FUNDING), VENUES["okx"])
            for slot, symbol in enumerate(symbols)
        ]
        for stream in self.streams:
            stream.subscribed()
            self.feeds.add(stream)
        self._decode = VENUES["okx"].open_decoder(self.feeds, Said())

    def say(self, channel: str, name: str, **row: Any) -> None:
        said = {"arg": {"channel": channel, "instId": name}, "data": [row]}
        self._decode(json.dumps(said).encode(), TS_RECV)

    def mark(self, symbol: str, price: str, second: int) -> None:
        self.say("mark-price", symbol, markPx=price, ts=str(T_MS + 1000 * second))

    def rate(self, symbol: str, rate: str, paid: int, following: object) -> None:
        times = {"fundingTime": str(T_MS + paid), "nextFundingTime": following}
        self.say("funding-rate", symbol, fundingRate=rate, **times)

    def rows(self, *names: str) -> list[tuple[Any, ...]]:
        found: list[tuple[Any, ...]] = self.double.rows("funding")[list(names)].tolist()
        return found


def test_a_mark_price_makes_a_row_with_the_rate_and_the_index_told_last() -> None:
    on = Funding(SWAP)
    on.mark(SWAP, "100", 0)
    assert on.rows("mark") == [], "whether there is a rate, and which, is not known yet"
    on.rate(SWAP, "0.0001", 3_600_000, str(T_MS + 5 * 3_600_000))
    on.mark(SWAP, "101", 1)
    on.say("index-tickers", "BTC-USDT", idxPx="100.5")
    on.mark(SWAP, "102", 2)
    on.rate(SWAP, "-0.0002", 3_600_000, "")
    on.mark(SWAP, "103", 3)
    assert on.rows("rate", "mark", "index", "interval_s") == [
        (0.0001, 101.0, 0.0, 4 * 3600),
        (0.0001, 102.0, 100.5, 4 * 3600),
        (-0.0002, 103.0, 100.5, 0),
    ]
    assert on.rows("next_ts")[0] == ((T_MS + 3_600_000) * 1_000_000,)
    assert len(on.double.rows("gap")) == 0


def test_contracts_of_one_index_share_its_price() -> None:
    dated, unified = "BTC-USD-261225", "BTC-USD_UM-261225"
    on = Funding(dated, unified)
    on.say("index-tickers", "BTC-USD", idxPx="100.5")
    on.mark(dated, "101", 1)
    on.mark(unified, "102", 1)
    assert on.rows("stream", "mark", "index") == [(0, 101.0, 100.5), (1, 102.0, 100.5)]
    assert all(flags & int(Flag.NO_RATE) for (flags,) in on.rows("flags"))


@pytest.mark.parametrize(
    "following", ["", str(T_MS), str(T_MS + 3_600_000), str(4_102_444_800_000)]
)
def test_an_interval_of_nonsense_is_unknown(following: str) -> None:
    on = Funding(SWAP)
    on.rate(SWAP, "0.0001", 3_600_000, following)
    on.mark(SWAP, "101", 1)
    assert on.rows("interval_s") == [(0,)]


def test_an_index_of_nobody_is_nothing() -> None:
    on = Funding(SWAP)
    on.feeds.remove(on.streams[0])
    on.say("index-tickers", "BTC-USDT", idxPx="100.5")


def test_all_types_make_one_listing_or_none() -> None:
    def page(code: str = "0", **row: str) -> bytes:
        return json.dumps({"code": code, "msg": "busy", "data": [row] if row else []}).encode()

    size = {"tickSz": "0.1", "lotSz": "1", "state": "live"}
    spot = page(instId="A-B", instType="SPOT", baseCcy="A", quoteCcy="B", **size)
    contract = {"ctVal": "1", "ctMult": "1", "ctValCcy": "A", "uly": "A-B"}
    swap = page(instId="A-B-SWAP", instType="SWAP", **contract, **size)
    calls = VENUES["okx"].listing
    assert {call.path.rpartition("=")[2] for call in (calls.first, *calls.others)} == {
        "SPOT", "SWAP", "FUTURES",
    }  # fmt: skip
    assert set(calls.read([spot, swap, page()]).known) == {"A-B", "A-B-SWAP"}
    with pytest.raises(ValueError, match="50011: busy"):
        calls.read([spot, page("50011"), page()])


def test_trades_merged_and_single_go_from_one_socket_to_the_next() -> None:
    venue, double, feeds = VENUES["okx"], MemoryRings(), Feeds()
    stream = double.feed(spec_of(1, "okx", SWAP), venue)
    stream.subscribed()
    feeds.add(stream, handover := Handover(stream, lambda _: feeds.add(stream), lambda: None))
    old = Feeds()
    old.add(stream)
    sockets = [venue.open_decoder(each, Said()) for each in (old, feeds)]

    def trade(socket: int, last_id: int, count: int) -> None:
        row = {"tradeId": str(last_id), "px": "1", "sz": "1", "side": "buy", "count": str(count)}
        arg = {"channel": "trades", "instId": SWAP}
        said = {"arg": arg, "data": [{**row, "ts": str(T_MS + last_id)}]}
        sockets[socket](json.dumps(said).encode(), TS_RECV)

    trade(0, 1, 1)
    handover.subscribed(monotonic_s())
    trade(1, 5, 3)
    trade(1, 6, 1)
    assert len(double.rows("trade")) == 1, "2 may be under way"
    trade(0, 2, 1)
    handover.tick(monotonic_s())
    assert double.rows("trade")["trade_id"].tolist() == [1, 2, 5, 6]
    assert len(double.rows("gap")) == 0


class Socket:
    """A stream of liquidations and one of trades behind a socket that salvages."""

    def __init__(self, *symbols: str) -> None:
        self.double, venue, feeds = MemoryRings(), VENUES["okx"], Feeds()
        kinds = (StreamKind.LIQUIDATIONS, StreamKind.TRADES)
        keys = [(symbol, kind) for symbol in symbols for kind in kinds]
        self.streams = [
            self.double.feed(spec_of(slot, "okx", *key), venue) for slot, key in enumerate(keys)
        ]
        for stream in self.streams:
            stream.subscribed()
            feeds.add(stream)
        self.bad: list[str] = []
        self._decode = venue.open_decoder(feeds, Said())
        self._salvage = Salvage(
            venue, feeds, self._decode, lambda error, _: self.bad.append(reason_of(error))
        )

    def take(self, arg: dict[str, Any], *rows: dict[str, Any]) -> None:
        self._decode(json.dumps({"arg": arg, "data": rows}).encode(), TS_RECV)

    def hear(self, arg: dict[str, Any], *rows: dict[str, Any]) -> None:
        """What is refused."""
        frame = json.dumps({"arg": arg, "data": rows}).encode()
        with pytest.raises(BAD_FRAME) as refused:
            self._decode(frame, TS_RECV)
        self._salvage.take(frame, TS_RECV, refused.value)

    def refused(self) -> list[int]:
        return [stream.refused_count for stream in self.streams]


LIQUIDATIONS: Final = {"channel": "liquidation-orders", "instType": "SWAP"}


def orders(symbol: object, price: str = "10.5") -> dict[str, Any]:
    detail = {"side": "buy", "posSide": "short", "bkPx": price, "sz": "1", "ts": str(T_MS)}
    return {"instId": symbol, "details": [detail]}


def test_nonsense_about_a_contract_that_nobody_collects_costs_no_other() -> None:
    on = Socket(SWAP, "ETH-USDT-SWAP")
    on.hear(LIQUIDATIONS, orders("XRP-USDT-SWAP", price="NaN"), orders(SWAP))
    assert on.refused() == [0, 0, 0, 0]
    assert on.double.rows("liquidation")["stream"].tolist() == [0]
    for stream in on.streams:
        stream.cut("over")
    assert len(on.double.rows("gap")) == 0


def test_nonsense_about_one_that_is_collected_is_declared_by_it_alone() -> None:
    on = Socket(SWAP, "ETH-USDT-SWAP")
    on.hear(LIQUIDATIONS, orders(SWAP, price="NaN"), orders("ETH-USDT-SWAP"))
    assert on.refused() == [1, 0, 0, 0]
    assert on.double.rows("liquidation")["stream"].tolist() == [2]


def test_a_message_that_does_not_say_whose_it_is_may_be_anybodys() -> None:
    """Of its kind or another: not even the type is whole."""
    on = Socket(SWAP, "ETH-USDT-SWAP")
    on.take(LIQUIDATIONS, orders(SWAP), orders("ETH-USDT-SWAP"))
    on.hear({"channel": "trades", "instId": 7}, {"tradeId": "1"})
    on.hear({"channel": 7, "instId": SWAP}, {"tradeId": "1"})
    for stream in on.streams:
        stream.tick(TS_RECV)
    suspicious = on.double.rows("gap")
    assert set(suspicious["stream"].tolist()) == {0, 2}, "of trades, ids will tell"
    assert on.bad == ["schema", "schema"]


def test_a_good_trade_beside_a_bad_one_is_stored() -> None:
    on = Socket(SWAP)
    trade = {"px": "1", "sz": "1", "side": "buy", "ts": str(T_MS)}
    rows = [{**trade, "tradeId": str(number)} for number in (1, 2, 3)]
    arg = {"channel": "trades", "instId": SWAP}
    on.take(arg, rows[0])
    on.hear(arg, {**rows[1], "px": "NaN"}, rows[2])
    assert on.double.rows("trade")["trade_id"].tolist() == [1, 3]
    assert on.double.rows("gap")[["from_seq", "to_seq"]].tolist() == [(2, 2)]
