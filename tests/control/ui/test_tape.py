"""Tape and ladder over real rings, written by the test."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from control.state.ring_follower import RingFollower
from control.ui.candles import MINUTE_NS
from control.ui.newest import percent
from control.ui.state import DashboardLimits
from control.ui.tape import TRADES_A_BATCH, TapeView
from engine.data.flags import Flag, Side
from engine.data.kinds import BOOK, FUNDING, LIQUIDATION, OPEN_INTEREST, QUOTE, TRADE
from engine.data.names import StreamKind
from tests.control.ui.rings import NOW_NS, ShardRing, describe
from tests.control.ui.scripted_engine import ScriptedEngine, stream

LIMITS = DashboardLimits(levels=3)


class Watch:
    """A view, and time that passes when the test says so."""

    def __init__(self, engine: ScriptedEngine) -> None:
        self.view = TapeView(engine.backend, "binance_linear", "BTCUSDT", LIMITS)
        self.now_s = 100.0

    def events(self) -> dict[str, Any]:
        """What a second brings: the last body of each event."""
        self.now_s += 1.0
        found = {}
        for frame in self.view.tick(self.now_s):
            event, data = frame.decode().rstrip().split("\n")
            found[event.removeprefix("event: ")] = json.loads(data.removeprefix("data: "))
        return found


@pytest.fixture
def engine(tmp_path: Path) -> ScriptedEngine:
    streams = [stream(0, "BTCUSDT"), stream(1, "BTCUSDT", "L2Book"), stream(2, "ETHUSDT")]
    engine = ScriptedEngine(tmp_path, streams)
    describe(engine.layout, [("BTCUSDT", StreamKind.TRADES), ("BTCUSDT", StreamKind.L2_BOOK)])
    return engine


@pytest.fixture
def watch(engine: ScriptedEngine) -> Iterator[Watch]:
    watch = Watch(engine)
    yield watch
    watch.view.close()


@pytest.fixture
def trades(engine: ScriptedEngine) -> Iterator[ShardRing]:
    ring = ShardRing(engine.layout, TRADE.name)
    yield ring
    ring.close()


@pytest.fixture
def book(engine: ScriptedEngine) -> Iterator[ShardRing]:
    ring = ShardRing(engine.layout, BOOK.name)
    yield ring
    ring.close()


def test_trades_of_the_stream_and_no_other_come_with_exact_digits(
    watch: Watch, trades: ShardRing
) -> None:
    trades.trade(0, 67412.5, 0.008, side=Side.SELL, trade_id=2**60 + 1)
    trades.trade(2, 1.0)
    trades.trade(0, 67412.5, 0.1, flags=int(Flag.AFTER_GAP))
    body = watch.events()["trades"]
    assert body["count"] == 2
    assert body["rows"][0][1:] == ["S", "67412.50", "0.008", str(2**60 + 1), False]
    assert body["rows"][1][1:] == ["B", "67412.50", "0.100", "1", True]
    assert "trades" not in watch.events()


def test_a_burst_is_counted_and_its_newest_trades_are_shown(
    watch: Watch, trades: ShardRing
) -> None:
    watch.events()
    trades.trades(0, 1000)
    body = watch.events()["trades"]
    assert (body["count"], len(body["rows"])) == (1000, TRADES_A_BATCH)
    assert body["rows"][-1][4] == "999"
    assert body["overrun"] is False


def test_being_lapped_is_said(watch: Watch, trades: ShardRing) -> None:
    watch.events()
    for _ in range(4):
        trades.trades(0, trades.producer.capacity // 2)
    assert watch.events()["trades"]["overrun"] is True


def test_candles_are_of_what_the_ring_holds_and_go_on(watch: Watch, trades: ShardRing) -> None:
    begin_ns = NOW_NS // MINUTE_NS * MINUTE_NS
    for at_s, price in ((1, 10.5), (61, 11.0), (70, 10.25)):
        trades.trade(0, price, 0.5, ts_event=begin_ns + at_s * 10**9)
    trades.trade(2, 99.0)
    body = watch.events()["candles"]
    assert body["is_new"] is True
    at_ms = begin_ns // 1_000_000
    assert body["rows"] == [
        [at_ms, "10.50", "10.50", "10.50", "10.50", 0.5, 0.5, True],
        [at_ms + 60_000, "11.00", "11.00", "10.25", "10.25", 1.0, 1.0, False],
    ]
    trades.trade(0, 12.0, 0.5, ts_event=begin_ns + 80 * 10**9)
    body = watch.events()["candles"]
    assert (body["is_new"], [row[2] for row in body["rows"]]) == (False, ["12.00"])
    assert "candles" not in watch.events()


def test_the_depth_is_of_a_whole_book_alone(watch: Watch, book: ShardRing) -> None:
    book.book(1, [(9.0, 1.0)], [(9.5, 1.0)])
    assert watch.events()["depth"] == {"bids": [], "asks": []}
    bids = [(9.0 - step / 100, 1.0) for step in range(20)]
    book.book(1, bids, [(9.5, 2.0)], snapshot=True)
    assert watch.events()["depth"] == {"bids": [list(each) for each in bids], "asks": [[9.5, 2.0]]}
    assert "depth" not in watch.events()


def test_a_late_viewer_finds_the_snapshot_that_is_still_in_the_ring(
    watch: Watch, book: ShardRing
) -> None:
    book.book(1, [(10.0, 1.0), (9.5, 2.0)], [(10.5, 3.0)], snapshot=True)
    book.book(1, [(10.0, 0.0)], [])
    body = watch.events()["book"]
    assert (body["state"], body["bids"]) == ("known", [["9.50", "2.000"]])
    assert (body["mid"], body["spread"]) == ("10.00", "1.00")


def test_a_viewer_after_the_snapshot_is_told_that_the_book_is_partial(
    watch: Watch, book: ShardRing
) -> None:
    watch.events()
    book.book(1, [(10.0, 1.0)], [])
    body = watch.events()["book"]
    assert (body["state"], body["bids"], body["asks"]) == ("partial", [["10.00", "1.000"]], [])
    assert "mid" not in body


def test_only_the_best_levels_are_sent_and_only_when_they_changed(
    watch: Watch, book: ShardRing
) -> None:
    book.book(1, [(float(price), 1.0) for price in range(1, 40)], [], snapshot=True)
    assert [level[0] for level in watch.events()["book"]["bids"]] == ["39.00", "38.00", "37.00"]
    assert "book" not in watch.events()


def test_a_lapped_ladder_starts_over(watch: Watch, book: ShardRing) -> None:
    book.book(1, [(10.0, 1.0)], [], snapshot=True)
    watch.events()
    for _ in range(book.producer.capacity // 64 * 2):
        book.book(2, [(1.0, 1.0)] * 64, [])
    book.book(1, [(11.0, 1.0)], [])
    body = watch.events()["book"]
    assert (body["state"], body["bids"]) == ("partial", [["11.00", "1.000"]])


def test_a_new_ring_is_noticed_and_the_old_ladder_forgotten(
    engine: ScriptedEngine, watch: Watch, book: ShardRing
) -> None:
    book.book(1, [(10.0, 1.0)], [], snapshot=True)
    first = watch.events()
    assert first["stream"]["book"]["epoch"] == "1"
    engine.layout.ring_path("shard-0.book").unlink()
    assert watch.events()["stream"]["book"]["attached"] is False
    renewed = ShardRing(engine.layout, BOOK.name, epoch=2)
    renewed.book(1, [(20.0, 1.0)], [])
    again = watch.events()
    assert again["stream"]["book"]["epoch"] == "2"
    assert again["book"]["bids"] == [["20.00", "1.000"]]
    renewed.close()


def test_a_stream_that_moves_to_another_shard_is_followed(
    engine: ScriptedEngine, watch: Watch, trades: ShardRing
) -> None:
    trades.trade(0, 1.0)
    assert watch.events()["trades"]["count"] == 1
    other = ShardRing(engine.layout, TRADE.name, shard=1)
    engine.say([stream(0, "BTCUSDT", shard=1)])
    other.trade(0, 2.0)
    assert watch.events()["trades"]["rows"][0][2] == "2.00"
    other.close()


def test_no_ring_and_no_stream_are_states_and_no_errors(
    engine: ScriptedEngine, watch: Watch
) -> None:
    described = watch.events()["stream"]
    assert described["trades"]["attached"] is False
    assert "no trade ring yet" in described["trades"]["reason"]
    engine.say([])
    assert watch.events()["stream"]["trades"] is None
    engine.backend.status = None
    assert watch.events() == {}


def test_a_file_that_is_no_ring_is_named(engine: ScriptedEngine) -> None:
    path = engine.layout.ring_path("shard-0.trade")
    path.parent.mkdir(parents=True)
    path.write_bytes(b"\0" * 8192)
    follower = RingFollower(engine.layout, TRADE)
    assert not follower.attach("shard-0", 10)
    assert "not a ring" in follower.problem


def test_decimals_raised_by_the_venue_show_at_once(
    engine: ScriptedEngine, watch: Watch, trades: ShardRing
) -> None:
    watch.events()
    describe(engine.layout, [("BTCUSDT", StreamKind.TRADES)], decimals=4)
    assert watch.events()["stream"]["price_decimals"] == 4
    trades.trade(0, 1.5)
    assert watch.events()["trades"]["rows"][0][2] == "1.5000"


def test_taps_never_move_the_ring(watch: Watch, trades: ShardRing) -> None:
    before = trades.producer.released
    trades.trade(0, 1.0)
    released = trades.producer.released
    watch.events()
    assert trades.producer.released == released > before
    assert trades.producer.dropped_count == 0


FIGURES = ("Ticker", "Funding", "OpenInterest", "Liquidations")


@pytest.fixture
def figures(engine: ScriptedEngine) -> Iterator[dict[str, ShardRing]]:
    engine.say(
        [*engine.streams(), *(stream(3 + at, "BTCUSDT", kind) for at, kind in enumerate(FIGURES))]
    )
    kinds = (
        QUOTE.name, FUNDING.name, OPEN_INTEREST.name, LIQUIDATION.name,
    )  # fmt: skip
    found = {kind: ShardRing(engine.layout, kind) for kind in kinds}
    yield found
    for ring in found.values():
        ring.close()


def test_the_newest_figures_come_with_exact_digits_and_their_source(
    watch: Watch, figures: dict[str, ShardRing]
) -> None:
    figures[QUOTE.name].put(3, bid=67412.3, bid_qty=1.0, ask=67412.4, ask_qty=0.25)
    figures[FUNDING.name].put(4, rate=0.0000125, mark=1.12345678, index=1.5, next_ts=10**18)
    figures[OPEN_INTEREST.name].put(5, qty=81234.5)
    figures[LIQUIDATION.name].put(6, side=Side.SELL, price=10.0, avg_price=10.125, qty=2)
    found = watch.events()
    assert found["quote"] | {"time_ms": 0} == {
        "source": "Ticker/Ws", "time_ms": 0, "bid": ["67412.30", "1.000"],
        "ask": ["67412.40", "0.250"], "mid": "67412.35", "spread": "0.10", "spread_bps": 0.015,
    }  # fmt: skip
    assert found["funding"]["rate_percent"] == "0.00125"
    assert (found["funding"]["mark"], found["funding"]["index"]) == ("1.12345678", "1.50")
    assert found["funding"]["next_ms"] == 10**12
    assert found["open_interest"]["qty"] == "81234.500"
    assert found["liquidation"]["rows"][0][1:] == ["S", "10.00", "2.000", "10.125", "0.000"]
    assert watch.events() == {}


def test_a_quote_with_one_side_has_no_middle(watch: Watch, figures: dict[str, ShardRing]) -> None:
    figures[QUOTE.name].put(3, bid=67412.3, bid_qty=1.0)
    quote = watch.events()["quote"]
    assert (quote["bid"], quote["ask"]) == (["67412.30", "1.000"], None)
    assert "mid" not in quote


def test_a_contract_without_funding_has_no_rate(
    watch: Watch, figures: dict[str, ShardRing]
) -> None:
    figures[FUNDING.name].put(4, flags=int(Flag.NO_RATE), mark=1.5, index=1.5)
    assert watch.events()["funding"]["rate_percent"] is None


def test_of_two_sources_the_one_received_last_counts(
    engine: ScriptedEngine, watch: Watch, figures: dict[str, ShardRing]
) -> None:
    polled = stream(8, "BTCUSDT", "Funding", transport="HttpPoll")
    engine.say([*engine.streams(), polled])
    ring = figures[FUNDING.name]
    ring.put(8, mark=2.0, ts_recv=NOW_NS + 2)
    ring.put(4, mark=1.0, ts_recv=NOW_NS + 1)
    found = watch.events()
    assert (found["funding"]["source"], found["funding"]["mark"]) == ("Funding/HttpPoll", "2.00")
    assert [each["transport"] for each in found["stream"]["funding"]] == ["Ws", "HttpPoll"]
    engine.say([each for each in engine.streams() if each.slot != polled.slot])
    found = watch.events()
    assert (found["funding"]["source"], found["funding"]["mark"]) == ("Funding/Ws", "1.00")


def test_liquidations_are_kept_until_newer_ones_come(
    watch: Watch, figures: dict[str, ShardRing]
) -> None:
    for number in range(LIQUIDATION.newest_shown + 5):
        figures[LIQUIDATION.name].put(6, side=Side.BUY, price=number, ts_recv=number)
    rows = watch.events()["liquidation"]["rows"]
    assert [row[2] for row in rows] == [f"{5 + at}.00" for at in range(LIQUIDATION.newest_shown)]


@pytest.mark.parametrize(
    ("rate", "text"),
    [(0.0001, "0.0100"), (-0.00001234, "-0.001234"), (0.0, "0.0000"), (1e-12, "0.0000000001")],
)
def test_a_rate_in_percent_has_all_its_digits(rate: float, text: str) -> None:
    assert percent(rate) == text


@pytest.mark.parametrize("rate", [float("nan"), float("inf"), float("-inf")])
def test_a_rate_that_is_no_number_does_not_end_the_tape(
    watch: Watch, figures: dict[str, ShardRing], rate: float
) -> None:
    figures[FUNDING.name].put(4, rate=rate, mark=1.5, index=1.5)
    assert watch.events()["funding"]["rate_percent"] == str(rate)
