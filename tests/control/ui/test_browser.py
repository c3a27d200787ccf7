"""The dashboard in a real Chromium, over the real API: what it shows, at every width."""

import os
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from control.state.health import HealthLight
from control.ui.state import DashboardLimits
from engine.base.clock import wall_ns
from engine.data.flags import Side
from engine.messages.status import Light, StreamReport
from engine.messages.streams import StreamState
from engine.messages.upkeep import TaskReport
from tests.control.ui.chromium import HOSTILE, artefact, expect, needs_chromium, open_page, row
from tests.control.ui.rings import ShardRing
from tests.control.ui.scripted_engine import ScriptedEngine, looked_after, serving, stream
from tests.waiting import wait_for

pytestmark = needs_chromium


def test_streams_lights_and_budgets_appear(page: Any, engine: ScriptedEngine) -> None:
    expect(row(page, "BTCUSDT").locator(".c-state")).to_have_text("live")
    expect(row(page, "BTCUSDT", "L2Book").locator(".c-missing")).to_have_text("31")
    expect(page.locator("#lights [data-light=db] .word")).to_have_text("healthy")
    expect(page.locator("#limiters li")).to_have_count(5)
    expect(page.locator("#limiters li").last).to_contain_text("4 / 10 at once")
    expect(page.locator("#link .word")).to_have_text("live")
    processes = page.locator("#processes tbody")
    expect(processes.locator("th")).to_have_text(["shard 0", "writer", "control"])
    expect(processes.locator("tr").last).to_contain_text("MB")
    engine.health.shown["redis"] = HealthLight("yellow", "redis is down: connection refused")
    engine.say()
    expect(page.locator("#alerts")).to_contain_text("connection refused")


def test_storage_says_what_tables_take_and_who_fails(page: Any, engine: ScriptedEngine) -> None:
    cells = page.locator("#storage tbody tr").locator("th, td")
    expect(cells).to_have_text(
        [
            "trade",
            "53.0 MB",
            "13.3 B",
            "61.0 MB",
            "4.6M",
            re.compile("^8.7 "),
            "2025-11-24",
            "400d",
        ]
    )
    expect(page.locator("#storage-note")).to_have_text("211 GB free, full in 42 days")
    expect(page.locator("#upkeep-tasks li")).to_have_text([re.compile("^days ahead: made 2026")])
    failed = TaskReport("retention", last_ns=wall_ns(), error="<b>disk</b>")
    engine.told.upkeep = [
        looked_after(days_until_full=0.84, tasks=[failed]),
        looked_after(database="databases.eu", disk_free_bytes=None, error="away", tables=[]),
    ]
    engine.say()
    expect(page.locator("#storage-note")).to_have_text(
        "database · 211 GB free, full in 0.8 days; databases.eu · free disk unknown"
    )
    expect(page.locator("#storage-note")).to_have_attribute("data-tone", "bad")
    expect(page.locator("#storage tbody th")).to_have_text(["database · trade"])
    expect(page.locator("#upkeep-tasks [data-tone=warn]")).to_have_text(
        [re.compile("^database · retention: <b>disk</b>"), "databases.eu · away"]
    )
    engine.told.upkeep = []
    engine.say()
    expect(page.locator("#storage-panel")).to_be_hidden()


def test_all_is_healthy_only_if_the_engine_says_so(page: Any, engine: ScriptedEngine) -> None:
    icon = page.locator("link[rel=icon]")
    expect(page.locator("#alerts")).to_have_text("All healthy")
    expect(page).to_have_title("fintickstreams")
    expect(icon).to_have_attribute("href", re.compile("/icon.svg$"))
    expect(page.locator("[data-total=lost]")).to_have_text("0")
    expect(page.locator("[data-total=overrun]")).to_be_hidden()
    engine.told.status, engine.told.reason = "yellow", "1 of 6 streams in trouble: SOLUSDT is stale"
    engine.told.writer.dropped_rows = {"trade": 2}
    engine.told.writer.database.missed_rows = {"trade": 5}
    engine.told.writer.sink("redis").missed_rows = {"book": 11}
    engine.say()
    expect(page.locator("#lights [data-light=engine] .word")).to_have_text("degraded")
    expect(page.locator("#alerts p")).to_have_text(
        ["Engine1 of 6 streams in trouble: SOLUSDT is stale"]
    )
    expect(page).to_have_title("degraded · fintickstreams")
    engine.health.shown["db"] = HealthLight("red", "rows wait 70 s for the database")
    engine.say()
    expect(page.locator("#lights [data-light=engine] .word")).to_have_text("failing")
    expect(page.locator("#alerts p")).to_contain_text(
        ["SOLUSDT is stale", "Databaserows wait 70 s"]
    )
    expect(page).to_have_title("failing · fintickstreams")
    expect(icon).to_have_attribute("href", re.compile("/icon-failing.svg$"))
    expect(page.locator("[data-total=lost]")).to_have_text("7")
    lost = page.locator("div", has=page.locator("[data-total=lost]")).last
    expect(lost).to_have_attribute("data-tone", "bad")
    expect(lost).to_have_attribute("title", re.compile("^2 dropped.* 5 lost"))
    expect(page.locator("[data-total=overrun]")).to_have_text("11")


def test_a_rate_is_the_difference_of_two_looks(page: Any, engine: ScriptedEngine) -> None:
    rate = row(page, "BTCUSDT").locator(".c-rate .value")

    def grow_and_look() -> bool:
        first, *others = engine.streams()
        engine.say([stream(0, "BTCUSDT", row_count=first.row_count + 500), *others])
        page.wait_for_timeout(100)
        return re.search("[1-9]", rate.inner_text()) is not None

    wait_for(grow_and_look, "a rate", 30.0)  # rows go on coming: without them it falls to 0


def test_what_is_looked_at_stands_in_the_address(page: Any, address: str) -> None:
    rows = page.locator("#streams tbody tr")
    page.locator("#streams th.c-gaps button").click()
    row(page, "BTCUSDT", "L2Book").click()
    page.locator("#filter").fill("binance btc")
    expect(rows).to_have_count(2)
    chosen = page.url
    assert "stream=binance_linear%2FBTCUSDT%2FL2Book%2FWs" in chosen
    row(page, "BTCUSDT", "Trades").click()
    page.locator("#filter").fill("eth")
    row(page, "ETHUSDT").click()
    expect(page.locator("#market-title")).to_have_text("ETHUSDT")
    page.go_back()
    expect(page.locator("#market-title")).to_have_text("BTCUSDT")
    page.go_back()  # a filter is taken back whole
    expect(page.locator("#filter")).to_have_value("binance btc")
    expect(page.locator("#streams [aria-current]")).to_contain_text("Trades")
    page.goto(chosen)  # as somebody does who was sent it
    expect(rows).to_have_count(2)
    expect(page.locator("#filter")).to_have_value("binance btc")
    expect(page.locator("#streams th.c-gaps")).to_have_attribute("aria-sort", "descending")
    expect(page.locator("#streams [aria-current]")).to_contain_text("L2Book")
    page.goto(f"{address}/ui?state=stale&stream=nobody/HAS/Trades/Ws&sort=constructor")
    expect(rows).to_have_count(1)
    expect(page.locator("#state-chips [aria-pressed=true]")).to_contain_text("stale")
    expect(page.locator("#log")).to_contain_text("not collected here: nobody/HAS/Trades/Ws")
    page.goto(f"{address}/ui")
    row(page, "BTCUSDT").click()
    page.go_back()
    expect(page.locator("#market-empty")).to_be_visible()


def test_the_last_hour_is_there_for_whoever_comes_later(
    browser: Any, engine: ScriptedEngine, address: str
) -> None:
    end_s = wall_ns() // 10**9
    for back_s in range(1200, 0, -1):
        done = 1200 - back_s
        engine.told.writer.taken_s = float(done)
        engine.told.writer.received_rows = {"trade": 250 * done}
        light: Light = "red" if back_s == 500 else "green"
        look = (engine.told, HealthLight(light), (end_s - back_s) * 10**9)
        engine.within_loop(partial(engine.backend.history.look, *look))
    page, complaints = open_page(browser, address)
    rows = page.locator("[data-plot=rows]")
    expect(rows.locator("dd").first).to_have_text("250")
    expect(page.locator("[data-plot=latency] dd")).to_have_text(["63 ms", "21 ms"])
    expect(rows.locator("canvas")).to_have_attribute(
        "aria-label", "Rows/s, 15 min: now in 250, stored 0, published 0; at most 250"
    )
    rows.locator("canvas").hover()
    expect(page.locator("#history-time")).to_have_text(re.compile(r"^\d\d:\d\d:\d\d UTC$"))
    page.get_by_role("button", name="24 h").click()
    expect(rows.locator("canvas")).to_have_attribute("aria-label", re.compile("24 h: now in 250"))
    page.reload()
    expect(page.locator("#spans [aria-pressed=true]")).to_have_text("24 h")
    page.context.close()
    assert complaints.lines == []


def test_a_hostile_symbol_is_text(page: Any) -> None:
    hostile = row(page, "<img")
    expect(hostile.locator(".symbol-text")).to_have_text(HOSTILE)
    hostile.click()
    expect(page.locator("#market-title")).to_have_text(HOSTILE)
    assert page.locator("img").count() == 0
    assert page.title() == "fintickstreams"


def test_filter_chips_and_sort_choose_rows(page: Any) -> None:
    rows = page.locator("#streams tbody tr")
    page.keyboard.press("/")
    page.keyboard.type("btcusdt trades")
    expect(rows).to_have_count(1)
    expect(page.locator("#stream-count")).to_have_text("1 of 6")
    page.keyboard.press("Escape")
    expect(rows).to_have_count(6)
    page.locator("#filter").fill("nothing like it")
    expect(page.locator("#streams-empty")).to_contain_text("No stream matches")
    page.locator("#filter").fill("")
    page.locator(".chip[data-state=stale]").click()
    expect(rows).to_have_count(1)
    page.locator(".chip[data-state=stale]").click()
    page.locator("th.c-rows button").click()
    expect(rows.first).to_contain_text("L2Book")
    assert page.locator("th.c-rows").get_attribute("aria-sort") == "descending"


def test_an_empty_engine_invites(browser: Any, tmp_path: Path) -> None:
    with serving(ScriptedEngine(tmp_path, [])) as address:
        page, complaints = open_page(browser, address)
        expect(page.locator("#streams-empty")).to_contain_text("Nothing is collected yet")
        page.locator("#streams-empty [data-opens=add]").click()
        expect(page.locator("#add-dialog")).to_be_visible()
        page.context.close()
    assert complaints.lines == []


@pytest.fixture
def five_hundred(browser: Any, tmp_path: Path) -> Iterator[tuple[Any, ScriptedEngine]]:
    """A page on an engine with five hundred streams."""
    engine = ScriptedEngine(
        tmp_path, hundreds(0), limits=DashboardLimits(status_interval_s=0.1)
    )  # fmt: skip
    with serving(engine) as address:
        page, complaints = open_page(browser, address)
        expect(page.locator("#stream-count")).to_have_text("500")
        yield page, engine
        page.context.close()
    assert complaints.lines == []


def hundreds(row_count: int) -> list[StreamReport]:
    return [stream(slot, f"SYM{slot:03}USDT", row_count=row_count) for slot in range(500)]


def test_of_five_hundred_rows_those_in_sight_are_there(
    five_hundred: tuple[Any, ScriptedEngine],
) -> None:
    page, engine = five_hundred
    rows = page.locator("#streams tbody tr")
    assert rows.count() < 60
    expect(page.locator("#streams")).to_have_attribute("aria-rowcount", "501")
    page.locator("#filter").press("ArrowDown")
    page.keyboard.press("End")
    last = page.locator("#streams tbody tr:focus")
    expect(last).to_contain_text("SYM499USDT")
    expect(last).to_have_attribute("aria-rowindex", "501")
    expect(last).to_be_in_viewport(ratio=0.9)
    engine.say(hundreds(50))
    expect(last.locator(".c-rows")).to_have_text("50")
    page.locator(".table-wrap").evaluate("each => { each.scrollTop = 3000; }")
    expect(page.locator("#streams tbody tr", has_text="SYM105USDT")).to_be_in_viewport()
    expect(last).to_contain_text("SYM499USDT")  # whoever has the focus keeps it
    page.keyboard.press("ArrowUp")
    expect(page.locator("#streams tbody tr:focus")).to_contain_text("SYM498USDT")
    expect(page.locator("#streams tbody tr:focus")).to_be_in_viewport(ratio=0.9)
    page.locator("#filter").fill("sym49")
    expect(rows).to_have_count(10)
    expect(rows.first).to_be_in_viewport(ratio=0.9)


def test_numbers_that_move_cost_no_more_with_five_hundred_streams(
    five_hundred: tuple[Any, ScriptedEngine],
) -> None:
    """What is out of sight is not in the document, so it cannot be laid out."""
    page, engine = five_hundred
    protocol = page.context.new_cdp_session(page)
    protocol.send("Performance.enable")

    def nodes() -> float:
        protocol.send("HeapProfiler.collectGarbage")
        metrics = protocol.send("Performance.getMetrics")["metrics"]
        return float(next(each["value"] for each in metrics if each["name"] == "LayoutObjects"))

    before = nodes()
    page.locator("th.c-rate button").click()
    for look in range(6):
        engine.say(
            [stream(slot, f"SYM{slot:03}USDT", row_count=look * slot) for slot in range(500)]
        )
        page.wait_for_timeout(150)
    expect(page.locator("#stream-count")).to_have_text("500")
    assert nodes() < before * 1.2 < 6000


def fill_market(trades: ShardRing, book: ShardRing, count: int = 40) -> None:
    bids = [(67412.30 - 0.1 * step, 0.15 + 0.31 * (step * 7 % 5)) for step in range(25)]
    asks = [(67412.40 + 0.1 * step, 0.12 + 0.27 * (step * 5 % 6)) for step in range(25)]
    rounded = [[(round(price, 2), round(qty, 3)) for price, qty in side] for side in (bids, asks)]
    book.book(1, rounded[0], rounded[1], snapshot=True)
    now_ns = wall_ns()
    for number in range(count):
        side = Side.BUY if number * 7 % 5 < 3 else Side.SELL
        price = round(67412.40 + 0.1 * (number * 3 % 7 - 3), 2)
        trades.trade(
            0, price, round(0.011 * (number * 13 % 37 + 1), 3), side=side, trade_id=number,
            ts_event=now_ns - (count - number) * 137_000_000,
        )  # fmt: skip


def at(width: int, height: int, scheme: str) -> dict[str, Any]:
    """A window, and the theme its owner prefers."""
    return {"color_scheme": scheme, "viewport": {"width": width, "height": height}}


def rows_in(look: int, slot: int) -> int:
    """Rows of a stream since the look before: rates that go up and down."""
    return (slot + 1) * 9 * (14 + (look // 6 * 7 + slot * 3) % 11)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("dashboard-light-1280", at(1280, 800, "light")),
        ("dashboard-dark-1920", at(1920, 1080, "dark")),
        ("dashboard-light-768", at(768, 1024, "light")),
        ("dashboard-dark-360", {**at(360, 780, "dark"), "reduced_motion": "reduce"}),
    ],
)  # fmt: skip
def test_it_fits_every_width_and_both_themes(
    browser: Any, address: str, engine: ScriptedEngine, market: tuple[ShardRing, ShardRing],
    tmp_path: Path, name: str, options: dict[str, Any],
) -> None:  # fmt: skip
    page, complaints = open_page(browser, address, **options)
    row(page, "BTCUSDT").locator(".c-symbol").click()
    fill_market(*market)
    looks = 50 if "FTS_TEST_ARTEFACTS" in os.environ else 2  # sparklines worth looking at
    for look in range(looks):
        grown = [
            stream(each.slot, each.symbol, each.kind, venue=each.venue, state=each.state,
                   reason=each.reason, gap_count=each.gap_count, missing_count=each.missing_count,
                   row_count=each.row_count + rows_in(look, each.slot))
            for each in engine.streams()
        ]  # fmt: skip
        total = {"trade": sum(each.row_count for each in grown)}
        engine.told.writer.received_rows = total
        for sink in engine.told.writer.sinks:
            sink.rows = total
        engine.say(grown)
        page.wait_for_timeout(300)
    expect(page.locator("#bids li").first.locator(".price")).to_have_text("67412.30")
    expect(page.locator("#tape li")).to_have_count(40)
    overflow = page.evaluate("document.documentElement.scrollWidth - innerWidth")
    assert overflow <= 0, f"{overflow} px too wide"
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (ground == "rgb(12, 17, 22)") == (options["color_scheme"] == "dark")
    artefact(page, name, tmp_path, full_page=True)
    page.context.close()
    assert complaints.lines == []


WIDTHS = (
    320, 360, 480, 561, 700, 860, 861, 1024, 1240, 1241, 1400, 1401, 1590, 1591, 1660, 1661, 2560,
)  # fmt: skip


def test_nothing_is_cut_off_at_any_width(page: Any) -> None:
    too_wide = """() => [document.documentElement, document.querySelector(".table-wrap"),
        ...document.querySelectorAll("#streams tbody td.num, #streams td.c-db, #streams td.c-acts")]
        .filter((each) => each.clientWidth && each.scrollWidth > each.clientWidth)
        .map((each) => each.className || each.tagName)"""
    for cell in (".c-db", ".c-acts"):  # a name that no cell has would check nothing
        expect(page.locator(f"#streams tbody td{cell}")).to_have_count(6)
    found = {}
    for view in ("Instruments", "Venues", "Streams"):
        page.get_by_role("button", name=view, exact=True).click()
        for width in WIDTHS:
            page.set_viewport_size({"width": width, "height": 900})
            found[view, width] = page.evaluate(too_wide)
    assert {at: cut for at, cut in found.items() if cut} == {}


def test_a_stream_can_be_told_from_the_next_one(page: Any, engine: ScriptedEngine) -> None:
    symbols = ("1000BONKUSDT", "1000BONKUSDC", "1000000MOGUSDT", "BTCUSDT_260626")
    funding = stream(
        4, "PURR/USDC", "FundingOpenInterest", venue="hyperliquid_perp", transport="HttpPoll",
        state=StreamState.CONNECTING,
    )  # fmt: skip
    engine.say([*(stream(slot, symbol) for slot, symbol in enumerate(symbols)), funding])
    expect(page.locator("#streams tbody tr")).to_have_count(5)
    row(page, "1000BONKUSDT").click()
    cut_at = {}
    for width in (1241, 1280, 1440, 1590, 1591, 1660, 1661, 1920):
        page.set_viewport_size({"width": width, "height": 900})
        cut_at[width] = page.evaluate("""() => [...document.querySelectorAll(
            "#streams td:is(.c-symbol, .c-venue, .c-kind, .c-state), #streams .sub")]
            .filter((each) => each.clientWidth && each.scrollWidth > each.clientWidth)
            .map((each) => each.textContent)""")
    assert cut_at == {width: [] for width in cut_at}


def test_the_theme_is_chosen_and_kept(page: Any) -> None:
    page.locator("#theme").click()
    page.locator("#theme").click()
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    page.reload()
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    expect(page.locator("#theme")).to_have_text("Theme: dark")


READING = (Path(__file__).parent / "reading.js").read_text(encoding="utf-8")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_everything_can_be_read_and_has_a_name(
    browser: Any, address: str, engine: ScriptedEngine, market: tuple[ShardRing, ShardRing],
    scheme: str,
) -> None:  # fmt: skip
    page, _ = open_page(browser, address, color_scheme=scheme)
    engine.health.shown["db"] = HealthLight("red", "the database is down")
    engine.health.shown["redis"] = HealthLight("yellow", "redis is starting")
    engine.say()
    row(page, "SOLUSDT").locator(".c-mark").click()
    row(page, "BTCUSDT").locator(".c-symbol").click()
    fill_market(*market)
    expect(page.locator("#tape li")).to_have_count(40)
    expect(page.locator("#alerts p")).to_have_count(2)
    found = {"page": page.evaluate(READING)}
    for name in ("add", "many", "keys"):
        page.locator(f"[data-opens={name}] >> visible=true").first.click()
        page.wait_for_timeout(100)
        found[name] = page.evaluate(READING)
        page.keyboard.press("Escape")
    row(page, "SOLUSDT").locator(".tune").click()
    found["knobs"] = page.evaluate(READING)
    page.keyboard.press("Escape")
    for view, table in (("Instruments", "#listed"), ("Venues", "#venues")):
        page.get_by_role("button", name=view, exact=True).click()
        expect(page.locator(f"{table} td").first).to_be_visible()
        found[view] = page.evaluate(READING)
    page.context.close()
    assert found == {name: [] for name in found}
