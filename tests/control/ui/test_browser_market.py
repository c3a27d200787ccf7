"""One symbol in a real Chromium: tape, ladder and newest figures over real rings."""

import re
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from control.state.prices import Bar, Prices
from engine.base.clock import wall_ns
from engine.data.flags import GapReason, Side
from engine.data.kinds import FUNDING, GAP, LIQUIDATION, OPEN_INTEREST, QUOTE, TRADE
from engine.data.names import StreamKind
from engine.messages.streams import StreamState
from tests.control.ui.chromium import NOTHING, expect, needs_chromium, row
from tests.control.ui.rings import ShardRing, describe
from tests.control.ui.scripted_engine import ScriptedEngine, stream
from tests.waiting import wait_for

pytestmark = needs_chromium
Rings = tuple[ShardRing, ShardRing]
TRADES, BOOK = StreamKind.TRADES, StreamKind.L2_BOOK


def test_tape_and_ladder_move_with_exact_digits(page: Any, market: Rings) -> None:
    trades, book = market
    row(page, "BTCUSDT").click()
    book.book(1, [(67412.3, 1.5)], [(67412.4, 0.25)], snapshot=True)
    expect(page.locator("#bids li").first.locator(".price")).to_have_text("67412.30")
    expect(page.locator("[data-figure=mid] b")).to_have_text("67412.35")
    expect(page.locator("[data-figure=spread] b")).to_have_text("0.10")
    trades.trade(0, 67412.4, 0.008, trade_id=77)
    expect(page.locator("#tape li").first).to_contain_text("67412.40")
    expect(page.locator("#tape li").first.locator(".side")).to_have_text("B")
    expect(page.locator("[data-figure=last] b")).to_have_attribute("data-side", "B")
    expect(page.locator("[data-figure=last] small")).to_contain_text("0.008")
    book.book(1, [], [(67412.4, 0.0), (67412.9, 2.0)])
    expect(page.locator("[data-figure=spread] b")).to_have_text("0.60")
    minute = "O 67412.40 H 67412.40 L 67412.40 C 67412.40, volume 0.008, some trades are missing"
    expect(page.locator("#candle-reading")).to_contain_text(minute)
    expect(page.locator("#depth")).to_have_attribute(
        "aria-label", "Depth: 1.5 bid down to 67412.3, 2 asked up to 67412.9"
    )


def test_prices_are_charted_by_the_minute(page: Any, engine: ScriptedEngine, market: Rings) -> None:
    chart, reading = page.locator("#candles"), page.locator("#candle-reading")
    begin_ns = wall_ns() // 60_000_000_000 * 60_000_000_000
    for minute in range(3, 0, -1):
        for step, price in enumerate((100.5 + minute, 99.25, 100.0)):
            at_ns = begin_ns - minute * 60_000_000_000 + step * 1_000_000_000
            market[0].trade(0, price, 0.5, ts_event=at_ns)
    expect(page.locator("#chart-panel")).to_be_hidden()
    row(page, "BTCUSDT").click()
    said = "Price of BTCUSDT, 3 candles of 1 min: last 100.00, high 103.50, low 99.25"
    expect(chart).to_have_attribute("aria-label", said)
    expect(reading).to_contain_text("1 min: O 101.50 H 101.50 L 99.25 C 100.00, volume 1.5")
    expect(reading).not_to_contain_text("missing")
    market[0].trade(0, 104.75, 0.25, ts_event=begin_ns)
    expect(chart).to_have_attribute(
        "aria-label", re.compile("4 candles.* last 104.75, high 104.75")
    )
    page.locator("#candle-spans").get_by_role("button", name="24 h").click()
    expect(reading).to_contain_text(re.compile(r"(5|15|30) min: .* C 104.75"))
    expect(page.locator("#depth-note")).to_have_text("Needs a whole book.")
    row(page, "SOLUSDT").click()
    expect(page.locator("#candles-note")).to_be_visible()

    async def ask(venue: str, symbol: str, since: int, until: int) -> list[Bar]:
        assert (venue, symbol, until - since) == ("binance_linear", "BTCUSDT", 1440)
        minute = begin_ns // 60_000_000_000  # a next one may have begun meanwhile
        older = [(minute - ago, "90.10", "110.20", "90.00", "95.00", 2.0, 1.0) for ago in (9, 3, 2)]
        return [*older, (minute, "1.0", "1.0", "1.0", "1.0", 1.0, 1.0)]

    engine.backend.prices = Prices(ask)
    page.locator("#candle-spans").get_by_role("button", name="1 h").click()
    row(page, "BTCUSDT").click()
    # The database has the minute that the ring has in part; what the ring has whole is the ring's.
    said = "Price of BTCUSDT, 5 candles of 1 min: last 104.75, high 110.20, low 90.00"
    expect(chart).to_have_attribute("aria-label", said)


def test_trades_too_fast_to_be_shown_are_said(
    page: Any, engine: ScriptedEngine, market: Rings
) -> None:
    trades, _ = market
    row(page, "BTCUSDT").click()
    trades.trade(0, 67412.4)
    expect(page.locator("#tape li")).to_have_count(1)
    expect(page.locator("#tape-note")).to_have_text("")

    def lap() -> None:  # between two looks of the tape
        for _ in range(4):
            trades.trades(0, trades.producer.capacity // 2)

    engine.within_loop(lap)
    expect(page.locator("#tape-note")).to_contain_text("too fast, some trades are not shown")


def test_a_partial_book_explains_itself_until_a_snapshot_comes(
    page: Any, engine: ScriptedEngine, market: Rings
) -> None:
    _, book = market
    book.book(1, [(10.0, 1.0)], [(10.5, 1.0)])
    row(page, "BTCUSDT").click()
    expect(page.locator("#book-state")).to_have_text("partial")
    expect(page.locator("#book-note")).to_contain_text(
        "each level shown is true, others may be missing"
    )
    expect(page.locator("#bids li").first.locator(".price")).to_have_text("10.00")
    expect(page.locator("#bids li").first.locator(".total")).to_have_text("")
    expect(page.locator("[data-figure=mid] b")).to_have_text(NOTHING)
    wait_for(lambda: page.evaluate("1") and engine.renewed, "the snapshot that is asked for")
    expect(page.locator("#book-whole")).to_be_disabled()
    assert [(key.symbol, key.kind) for key in engine.renewed] == [("BTCUSDT", BOOK)]
    book.book(1, [(9.0, 1.0)], [(9.5, 1.0)], snapshot=True)
    expect(page.locator("#book-whole")).to_be_hidden()
    expect(page.locator("#book-state")).to_have_text("live")
    expect(page.locator("#book-note")).to_have_text("")
    expect(page.locator("#bids .price").filter(has_text=".")).to_have_text(["9.00"])
    expect(page.locator("#bids li").first.locator(".total")).to_have_text("1.000")
    expect(page.locator("[data-figure=mid] b")).to_have_text("9.25")
    book.book(1, [(8.0, 1.0)], [], after_gap=True)
    expect(page.locator("#book-state")).to_have_text("resyncing")
    expect(page.locator("#bids .price").filter(has_text=".")).to_have_count(0)
    expect(page.locator("[data-figure=mid] b")).to_have_text(NOTHING)
    book.book(1, [(7.0, 1.0)], [(7.5, 1.0)], snapshot=True)
    expect(page.locator("#book-state")).to_have_text("live")
    expect(page.locator("[data-figure=mid] b")).to_have_text("7.25")


def test_a_stale_book_stream_is_not_called_live(
    page: Any, engine: ScriptedEngine, market: Rings
) -> None:
    market[1].book(1, [(10.0, 1.0)], [(10.5, 1.0)], snapshot=True)
    row(page, "BTCUSDT").click()
    expect(page.locator("#book-state")).to_have_text("live")
    trades, _, *others = engine.streams()
    stale = stream(1, "BTCUSDT", "L2Book", state=StreamState.STALE, reason="no data for 30 s")
    engine.say([trades, stale, *others])
    expect(page.locator("#book-state")).to_have_text("stale")
    expect(page.locator("#book-note")).to_have_text("no data for 30 s")


def test_figures_that_nothing_renews_are_old_and_then_gone(
    page: Any, engine: ScriptedEngine, market: Rings
) -> None:
    trades, book = market
    last, mid, spread = (
        page.locator(f"[data-figure={name}]") for name in ("last", "mid", "spread")
    )
    note = page.locator("#market-note")
    row(page, "BTCUSDT").click()
    book.book(1, [(10.0, 1.0)], [(10.5, 1.0)], snapshot=True)
    trades.trade(0, 10.25, 0.5)
    expect(mid.locator("b")).to_have_text("10.25")
    for figure in (last, mid, spread):
        expect(figure).to_have_attribute("data-old", "false")
    live_trades, live_book, *others = engine.streams()
    stale = {"state": StreamState.STALE, "reason": "no data for 30 s"}
    engine.say([stream(0, "BTCUSDT", **stale), stream(1, "BTCUSDT", "L2Book", **stale), *others])
    for figure in (last, mid, spread):
        expect(figure).to_have_attribute("data-old", "true")
        expect(figure.locator("small")).to_contain_text(" ago")
    engine.say([live_trades, live_book, *others])
    expect(last).to_have_attribute("data-old", "false")
    expect(last.locator("small")).to_contain_text("0.5")
    engine.say([live_book, *others])
    expect(last.locator("b")).to_have_text(NOTHING)
    expect(mid.locator("b")).to_have_text("10.25")
    expect(note).to_have_text("Binance linear")
    engine.say([stream(1, "BTCUSDT", "L2Book", **stale), *others])
    expect(spread.locator("small")).to_contain_text(" ago")
    engine.say(others)
    expect(note).to_have_text("Nothing of this symbol is collected any more.")
    for figure in (last, mid, spread):
        expect(figure.locator("b")).to_have_text(NOTHING)
        expect(figure.locator("small")).to_have_text("")
        expect(figure).to_have_attribute("data-old", "false")
    engine.say([live_trades, *others])
    expect(note).to_have_text("Binance linear")


def test_long_numbers_are_shown_whole(page: Any, engine: ScriptedEngine, market: Rings) -> None:
    describe(engine.layout, [("BTCUSDT", kind) for kind in (TRADES, BOOK)], decimals=8)
    trades, book = market
    bids = [(0.12345678 - step * 1e-8, 123456789.123 + step) for step in range(15)]
    asks = [(0.12345679 + step * 1e-8, 987654321.987 + step) for step in range(15)]
    book.book(1, bids, asks, snapshot=True)
    trades.trade(0, 0.12345679, 123456789.123)
    row(page, "BTCUSDT").click()
    expect(page.locator("#tape li .size")).to_have_text("123456789.123")
    expect(page.locator("#bids li").first.locator(".size")).to_have_text("123456789.123")
    for width in (360, 768, 1280, 1920):
        page.set_viewport_size({"width": width, "height": 900})
        cut = page.evaluate(
            """() => [...document.querySelectorAll("#market li, #market li span, #market b")]
            .filter((each) => each.clientWidth && each.scrollWidth > each.clientWidth + 1)
            .map((each) => each.outerHTML)"""
        )
        assert cut == [], width


def test_an_engine_that_restarts_is_found_again(
    page: Any, engine: ScriptedEngine, market: Rings
) -> None:
    row(page, "BTCUSDT").click()
    market[0].trade(0, 1.25)
    expect(page.locator("[data-figure=last] b")).to_have_text("1.25")
    engine.layout.ring_path("shard-0.trade").unlink()
    renewed = ShardRing(engine.layout, TRADE.name, epoch=2)
    renewed.trade(0, 2.5)
    expect(page.locator("[data-figure=last] b")).to_have_text("2.50")
    renewed.close()


def test_gaps_say_when_they_were_and_why(page: Any, engine: ScriptedEngine) -> None:
    now_ns = wall_ns()
    ring = ShardRing(engine.layout, GAP.name)
    for ago_s, lasted_s, reason, missing in (
        (3000, 1, GapReason.SILENCE, -1),
        (300, 4, GapReason.SEQUENCE, 1234),
        (60, 0, GapReason.NOT_STORED, 7),
    ):
        begin_ns = now_ns - ago_s * 10**9
        ring.put(
            1, reason=int(reason), missing=missing, ts_recv=begin_ns, from_ts=begin_ns,
            to_ts=begin_ns + lasted_s * 10**9,
        )  # fmt: skip
    engine.within_loop(lambda: engine.backend.look(wall_ns()))
    strip = row(page, "BTCUSDT", "L2Book").locator(".gap-strip")
    expect(strip).to_be_visible()
    expect(row(page, "BTCUSDT", "L2Book").locator(".c-gaps")).to_have_attribute(
        "title", re.compile("1 . ids jumped on a live connection, 1 . kept out of the database")
    )
    expect(row(page, "ETHUSDT").locator(".gap-strip")).to_have_count(0)
    row(page, "BTCUSDT", "L2Book").click()
    listed = page.locator("#gap-list li")
    expect(listed).to_have_count(2)
    expect(listed.first).to_contain_text("kept out of the database on purpose7 missing")
    expect(listed.last).to_contain_text("ids jumped on a live connection4s, 1,234 missing")
    expect(page.locator("#gap-line")).to_have_attribute("aria-label", "2 gaps in the last 15 min")
    page.locator("#spans").get_by_role("button", name="1 h").click()
    expect(listed).to_have_count(3)
    expect(listed.last).to_contain_text("nobody knows how many")
    page.reload()  # they are the server's, and the choice is in the address
    expect(listed).to_have_count(3)
    row(page, "ETHUSDT").click()
    expect(page.locator("#gaps-none")).to_be_visible()
    ring.close()


@pytest.fixture
def rings(engine: ScriptedEngine) -> Iterator[dict[str, ShardRing]]:
    """Rings of the kinds that have one newest record."""
    kinds = (
        QUOTE.name, FUNDING.name, OPEN_INTEREST.name, LIQUIDATION.name,
    )  # fmt: skip
    with ExitStack() as stack:
        found = {kind: ShardRing(engine.layout, kind) for kind in kinds}
        for ring in found.values():
            stack.callback(ring.close)
        yield found


def test_the_newest_figures_are_shown_where_they_are_collected(
    page: Any, engine: ScriptedEngine, market: Rings, rings: dict[str, ShardRing]
) -> None:
    row(page, "BTCUSDT").click()
    expect(page.locator("#tape-state")).to_have_text("live")
    for name in ("bid", "ask", "mark", "index", "rate", "next", "interest"):
        expect(page.locator(f"[data-figure={name}]")).to_be_hidden()
    expect(page.locator("#liquidations-box")).to_be_hidden()
    engine.say(
        [
            *engine.streams(), stream(6, "BTCUSDT", "Ticker"), stream(7, "BTCUSDT", "Funding"),
            stream(8, "BTCUSDT", "OpenInterest", transport="HttpPoll"),
            stream(9, "BTCUSDT", "Liquidations"),
        ]
    )  # fmt: skip
    expect(page.locator("[data-figure=bid]")).to_be_visible()
    expect(page.locator("#liquidations-none")).to_be_visible()
    now_ns = wall_ns()
    rings[QUOTE.name].put(6, bid=67412.3, bid_qty=1.5, ask=67412.4, ask_qty=0.25)
    rings[FUNDING.name].put(
        7, rate=0.00001250, mark=67412.31415926, index=67410.5, next_ts=now_ns + 7_300 * 10**9,
        interval_s=28_800,
    )  # fmt: skip
    rings[OPEN_INTEREST.name].put(8, qty=81234.5, ts_event=now_ns - 60 * 10**9)
    rings[LIQUIDATION.name].put(
        9, side=Side.SELL, price=67000.1, avg_price=67001.25, qty=0.014, filled_qty=0.014
    )
    shown = {
        "bid": ("67412.30", "1.500"), "ask": ("67412.40", "0.250"),
        "mid": ("67412.35", "of the quote"), "mark": ("67412.31415926", ""),
        "index": ("67410.50", ""), "rate": ("0.00125 %", ""), "next": ("2h 01m", "every 8 h"),
        "interest": ("81234.500", "1m 0"),
    }  # fmt: skip
    for name, (value, note) in shown.items():
        expect(page.locator(f"[data-figure={name}] b")).to_have_text(value)
        expect(page.locator(f"[data-figure={name}] small")).to_contain_text(note)
    liquidation = page.locator("#liquidations li")
    expect(liquidation).to_contain_text("long67000.100.014")
    expect(liquidation).to_have_attribute("title", "filled 0.014 at 67001.25 on average")
