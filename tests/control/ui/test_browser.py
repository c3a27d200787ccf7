"""The dashboard in a real Chromium, over a fake control process and real rings."""

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from control.ui.state import DashboardLimits
from engine.catalog import StreamKind
from engine.clock import wall_ns
from engine.commands import StreamState
from engine.records import RecordKind, Side
from tests.control.ui.fake_control import FakeControl, FakeLight, serving, stream
from tests.control.ui.rings import ShardRing, describe
from tests.control.ui.sockets import wait_for

sync_api = pytest.importorskip(
    "playwright.sync_api", reason="Playwright is missing: pip install 'fintickstreams[browser]'"
)
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on the PATH: install it")
expect = sync_api.expect

HOSTILE = "<img src=x onerror=document.title='owned'>"
ARGUMENTS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium. Not for the session: while Playwright lives, its event loop runs in this thread
    and nobody else's `asyncio.run` works.
    """
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield chromium
        chromium.close()


@pytest.fixture
def control(tmp_path: Path) -> FakeControl:
    return FakeControl(
        tmp_path,
        [
            stream(0, "BTCUSDT", row_count=1_284_331),
            stream(1, "BTCUSDT", "L2Book", row_count=8_114_002, gap_count=2, missing_count=31),
            stream(2, "ETHUSDT", row_count=802_114),
            stream(3, "BTC", venue="hyperliquid_perp", row_count=44_120, duplicate_count=7),
            stream(4, "SOLUSDT", state=StreamState.STALE, reason="no data for 30 s"),
            stream(5, HOSTILE, state=StreamState.FAILED, reason="<b>no</b> such symbol"),
        ],
    )


@pytest.fixture
def address(control: FakeControl) -> Iterator[str]:
    with serving(control) as url:
        yield url


class Complaints:
    """What the browser says that it should not have to say."""

    def __init__(self, page: Any) -> None:
        self.lines: list[str] = []
        page.on("console", self._console)
        page.on("pageerror", lambda error: self.lines.append(str(error)))

    def _console(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            self.lines.append(message.text)


def open_page(browser: Any, address: str, **options: Any) -> tuple[Any, Complaints]:
    options = {"viewport": {"width": 1600, "height": 960}} | options
    page = browser.new_context(**options).new_page()
    page.set_default_timeout(10_000)
    complaints = Complaints(page)
    page.goto(f"{address}/ui")
    return page, complaints


@pytest.fixture
def page(browser: Any, address: str) -> Iterator[Any]:
    """The open page; it must end without a complaint of the browser."""
    page, complaints = open_page(browser, address)
    expect(page.locator("#streams tbody tr")).to_have_count(6)
    yield page
    page.context.close()
    assert complaints.lines == []


def row(page: Any, symbol: str, kind: str = "Trades") -> Any:
    return page.locator("#streams tbody tr").filter(has_text=symbol).filter(has_text=kind).first


def artefact(page: Any, name: str, tmp_path: Path, *, full_page: bool = False) -> Path:
    folder = Path(os.environ.get("FTS_TEST_ARTEFACTS", str(tmp_path)))
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.png"
    page.screenshot(path=path, full_page=full_page)
    assert path.stat().st_size > 10_000
    return path


def test_streams_lights_and_budgets_appear(page: Any, control: FakeControl) -> None:
    expect(row(page, "BTCUSDT").locator(".c-state")).to_have_text("live")
    expect(row(page, "BTCUSDT", "L2Book").locator(".c-missing")).to_have_text("31")
    expect(page.locator("#lights [data-light=db] .word")).to_have_text("healthy")
    expect(page.locator("#limiters li")).to_have_count(4)
    expect(page.locator("#link .word")).to_have_text("live")
    control.shown_lights["redis"] = FakeLight("yellow", "redis is down: connection refused")
    control.say()
    expect(page.locator("#reasons")).to_contain_text("connection refused")


def test_a_rate_is_the_difference_of_two_looks(page: Any, control: FakeControl) -> None:
    for _ in range(4):
        streams = control.streams()
        streams[0] = stream(0, "BTCUSDT", row_count=streams[0].row_count + 500)
        control.say(streams)
        page.wait_for_timeout(300)
    expect(row(page, "BTCUSDT").locator(".c-rate .value")).to_have_text(re.compile(r"\d"))
    expect(row(page, "BTCUSDT").locator(".c-rate .value")).not_to_have_text("0")


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


def test_a_stream_is_added_without_json(page: Any, control: FakeControl) -> None:
    page.locator("#add-open").click()
    expect(page.locator("#add-exchange option")).to_have_count(2)
    page.locator("#add-symbol").fill("btcusdc")
    page.locator("#add-options li", has_text="BTCUSDC").click()
    page.locator("#add-kind").select_option("OpenInterest")
    expect(page.locator("#add-transport")).to_have_value("HttpPoll")
    expect(page.locator("#add-note")).to_have_text("asked once a minute")
    page.locator("#add-dialog [type=submit]").click()
    expect(page.locator("#add-dialog")).to_be_hidden()
    expect(row(page, "BTCUSDC", "OpenInterest")).to_be_visible()
    wanted = {"exchange": "binance_linear", "symbol": "BTCUSDC", "kind": "OpenInterest",
              "transport": "HttpPoll"}  # fmt: skip
    assert control.calls == [("POST", "/streams", wanted)]


def test_a_refused_stream_says_why_and_offers_near_names(
    browser: Any, address: str, control: FakeControl
) -> None:
    page, complaints = open_page(browser, address)
    page.locator("#add-open").click()
    expect(page.locator("#add-kind option")).not_to_have_count(0)
    page.locator("#add-symbol").fill("BTCUSD")
    page.locator("#add-dialog [type=submit]").click()
    expect(page.locator("#add-error")).to_contain_text("no such instrument: BTCUSD")
    page.locator("#add-error button", has_text="BTCUSDT").click()
    expect(page.locator("#add-symbol")).to_have_value("BTCUSDT")
    page.locator("#add-dialog [type=submit]").click()
    expect(page.locator("#add-error")).to_contain_text("already collected")
    expect(page.locator("#log li")).to_have_count(2)
    control.refusal = (503, {"error": "not now: db is red: it is down", "kind": "unhealthy"})
    page.locator("#add-dialog [type=submit]").click()
    expect(page.locator("#add-error")).to_contain_text("db is red")
    page.context.close()
    # The browser notes every refused request by itself; nothing else may be there.
    assert [line for line in complaints.lines if "status of" not in line] == []


def test_a_knob_is_switched_and_stays(page: Any, control: FakeControl) -> None:
    switch = row(page, "ETHUSDT").locator("[data-knob=redis]")
    expect(switch).to_have_attribute("aria-checked", "true")
    switch.click()
    expect(switch).to_have_attribute("aria-checked", "false")
    wait_for(lambda: control.calls, "the PATCH")
    path = "/streams/binance_linear/ETHUSDT/Trades/Ws/knobs"
    assert control.calls == [("PATCH", path, {"redis_publishes_enabled": False})]
    page.wait_for_timeout(1500)
    expect(switch).to_have_attribute("aria-checked", "false")


def test_a_stream_is_stopped_after_a_second_thought(page: Any, control: FakeControl) -> None:
    row(page, "ETHUSDT").locator(".stop").click()
    expect(page.locator("#stop-name")).to_contain_text("ETHUSDT")
    page.locator("#stop-cancel").click()
    assert control.calls == []
    row(page, "ETHUSDT").locator(".stop").click()
    page.locator("#stop-confirm").click()
    expect(page.locator("#streams tbody tr")).to_have_count(5)
    assert [(method, body["symbol"]) for method, _, body in control.calls] == [
        ("DELETE", "ETHUSDT")
    ]


def test_the_keyboard_reaches_everything(page: Any, control: FakeControl) -> None:
    page.locator("#filter").focus()
    page.keyboard.press("ArrowDown")
    expect(page.locator("#streams tbody tr").first).to_be_focused()
    page.keyboard.press("End")
    expect(page.locator("#streams tbody tr").last).to_be_focused()
    page.keyboard.press("ArrowUp")
    focused = page.locator("#streams tbody tr:focus .symbol-text").inner_text()
    page.keyboard.press("Enter")
    expect(page.locator("#market-title")).to_have_text(focused)
    page.keyboard.press("Tab")
    page.keyboard.press("Space")
    wait_for(lambda: control.calls, "the PATCH")
    assert control.calls[0][2] == {"db_writes_enabled": False}
    page.keyboard.press("Escape")
    page.keyboard.press("Delete")
    expect(page.locator("#stop-cancel")).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.locator("#stop-dialog")).to_be_hidden()
    expect(page.locator("#streams tbody tr:focus .symbol-text")).to_have_text(focused)
    page.keyboard.press("n")
    expect(page.locator("#add-symbol")).to_be_focused()
    page.locator("#add-symbol").fill("")
    page.keyboard.type("ethu")
    expect(page.locator("#add-options li")).to_have_count(1)
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    expect(page.locator("#add-symbol")).to_have_value("ETHUSDT")
    page.keyboard.press("Escape")
    expect(page.locator("#add-dialog")).to_be_hidden()


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


@pytest.fixture
def market(control: FakeControl) -> Iterator[tuple[ShardRing, ShardRing]]:
    describe(control.layout, [("BTCUSDT", StreamKind.TRADES), ("BTCUSDT", StreamKind.L2_BOOK)])
    trades = ShardRing(control.layout, RecordKind.TRADE)
    book = ShardRing(control.layout, RecordKind.BOOK)
    yield trades, book
    trades.close()
    book.close()


def test_tape_and_ladder_move_with_exact_digits(
    page: Any, market: tuple[ShardRing, ShardRing]
) -> None:
    trades, book = market
    row(page, "BTCUSDT").click()
    book.book(1, [(67412.3, 1.5)], [(67412.4, 0.25)], snapshot=True)
    expect(page.locator("#bids li").first.locator(".price")).to_have_text("67412.30")
    expect(page.locator("#mid")).to_have_text("67412.35")
    expect(page.locator("#spread")).to_have_text("0.10")
    trades.trade(0, 67412.4, 0.008, trade_id=77)
    expect(page.locator("#tape li").first).to_contain_text("67412.40")
    expect(page.locator("#tape li").first).to_contain_text("0.008")
    expect(page.locator("#last-price")).to_have_attribute("data-side", "B")
    book.book(1, [], [(67412.4, 0.0), (67412.9, 2.0)])
    expect(page.locator("#spread")).to_have_text("0.60")
    book.book(1, [], [], after_gap=True)
    expect(page.locator("#book-state")).to_have_text("resyncing")


def test_an_engine_that_restarts_is_found_again(
    page: Any, control: FakeControl, market: tuple[ShardRing, ShardRing]
) -> None:
    row(page, "BTCUSDT").click()
    market[0].trade(0, 1.25)
    expect(page.locator("#last-price")).to_have_text("1.25")
    path = control.layout.ring_path("shard-0.trade")
    path.unlink()
    renewed = ShardRing(control.layout, RecordKind.TRADE, epoch=2)
    renewed.trade(0, 2.5)
    expect(page.locator("#last-price")).to_have_text("2.50")
    renewed.close()


def test_a_token_is_asked_for_and_kept_in_the_tab(
    browser: Any, address: str, control: FakeControl
) -> None:
    control.token = "s3cret-token"
    page, _ = open_page(browser, address)
    expect(page.locator("#token-dialog")).to_be_visible()
    page.locator("#token-input").fill("wrong")
    page.keyboard.press("Enter")
    expect(page.locator("#token-error")).to_have_text("This token is not accepted.")
    page.locator("#token-input").fill(control.token)
    page.keyboard.press("Enter")
    expect(page.locator("#streams tbody tr")).to_have_count(6)
    page.reload()
    expect(page.locator("#streams tbody tr")).to_have_count(6)
    assert not any(control.token in path for path in control.seen_paths)
    assert control.token not in page.context.storage_state().__repr__()
    page.context.close()


def test_a_lost_engine_is_said_and_found_again(browser: Any, control: FakeControl) -> None:
    with serving(control) as address:
        page, _ = open_page(browser, address)
        expect(page.locator("#streams tbody tr")).to_have_count(6)
    expect(page.locator("#link .word")).to_have_text("reconnecting")
    expect(page.locator("#log li").first).to_contain_text("Connection")
    page.context.close()


def test_an_empty_engine_invites(browser: Any, tmp_path: Path) -> None:
    with serving(FakeControl(tmp_path, [])) as address:
        page, complaints = open_page(browser, address)
        expect(page.locator("#streams-empty")).to_contain_text("Nothing is collected yet")
        page.locator("#streams-empty button").click()
        expect(page.locator("#add-dialog")).to_be_visible()
        page.context.close()
    assert complaints.lines == []


def test_five_hundred_streams_stay_quick(browser: Any, tmp_path: Path) -> None:
    streams = [stream(slot, f"SYM{slot}USDT") for slot in range(500)]
    control = FakeControl(tmp_path, streams, limits=DashboardLimits(status_interval_s=0.1))
    with serving(control) as address:
        page, complaints = open_page(browser, address)
        expect(page.locator("#streams tbody tr")).to_have_count(500)
        for look in range(10):
            control.say(
                [stream(slot, f"SYM{slot}USDT", row_count=look * 50) for slot in range(500)]
            )
            page.wait_for_timeout(100)
        page.locator("#filter").fill("sym49")
        expect(page.locator("#streams tbody tr")).to_have_count(11)
        page.context.close()
    assert complaints.lines == []


def rows_in(look: int, slot: int) -> int:
    """Rows of a stream since the look before: rates that go up and down."""
    return (slot + 1) * 9 * (14 + (look // 6 * 7 + slot * 3) % 11)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("dashboard-light-1600", {"color_scheme": "light"}),
        ("dashboard-dark-1600", {"color_scheme": "dark"}),
        ("dashboard-dark-900", {"color_scheme": "dark", "viewport": {"width": 900, "height": 900}}),
        (
            "dashboard-light-360",
            {"color_scheme": "light", "viewport": {"width": 360, "height": 780},
             "reduced_motion": "reduce"},
        ),
    ],
)  # fmt: skip
def test_it_fits_every_width_and_both_themes(
    browser: Any, address: str, control: FakeControl, market: tuple[ShardRing, ShardRing],
    tmp_path: Path, name: str, options: dict[str, Any],
) -> None:  # fmt: skip
    page, complaints = open_page(browser, address, **options)
    row(page, "BTCUSDT").locator(".c-symbol").click()
    fill_market(*market)
    looks = 50 if "FTS_TEST_ARTEFACTS" in os.environ else 4  # sparklines worth looking at
    for look in range(looks):
        grown = [
            stream(each.slot, each.symbol, each.kind, venue=each.venue, state=each.state,
                   reason=each.reason, gap_count=each.gap_count, missing_count=each.missing_count,
                   row_count=each.row_count + rows_in(look, each.slot))
            for each in control.streams()
        ]  # fmt: skip
        assert control.status is not None
        for counter in ("received_rows", "stored_rows", "published_rows"):
            total = sum(each.row_count for each in grown)
            setattr(control.status.writer, counter, {"trade": total})
        control.say(grown)
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


WIDTHS = (320, 360, 480, 561, 700, 860, 861, 960, 1024, 1180, 1181, 1400, 1401, 1480, 1600, 2560)


def test_nothing_is_cut_off_at_any_width(page: Any) -> None:
    too_wide = """() => [document.documentElement, document.querySelector(".table-wrap"),
        ...document.querySelectorAll("#streams tbody td.num, #streams td.c-db, #streams td.c-stop")]
        .filter((each) => each.clientWidth && each.scrollWidth > each.clientWidth)
        .map((each) => each.className || each.tagName)"""
    found = {}
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 900})
        found[width] = page.evaluate(too_wide)
    assert found == {width: [] for width in WIDTHS}


def test_the_theme_is_chosen_and_kept(page: Any) -> None:
    page.locator("#theme").click()
    page.locator("#theme").click()
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    page.reload()
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    expect(page.locator("#theme")).to_have_text("Dark")
