"""The dashboard commands the engine: streams added by one or by hundreds, tuned, stopped."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from control.state.health import HealthLight
from engine.base.errors import VenueError
from engine.data.instrument import InstrumentKind, InstrumentState
from engine.data.names import StreamKey, StreamKind, Transport
from engine.messages.streams import Knobs
from shards.venues import VENUES
from tests.control.api.api_rig import instrument
from tests.control.ui.chromium import expect, needs_chromium, open_page, row
from tests.control.ui.scripted_engine import LISTED, ScriptedEngine, serving, stream
from tests.waiting import wait_for

pytestmark = needs_chromium

BINANCE, HYPERLIQUID = "binance_linear", "hyperliquid_perp"
ETH_TRADES = StreamKey(BINANCE, "ETHUSDT", StreamKind.TRADES)


def test_a_stream_is_added_without_json(page: Any, engine: ScriptedEngine) -> None:
    page.locator("#add-open").click()
    expect(page.locator("#add-exchange option")).to_have_count(len(VENUES))
    page.locator("#add-symbol").fill("btcusdc")
    page.locator("#add-options li", has_text="BTCUSDC").click()
    page.locator("#add-kind").select_option("Liquidations")
    expect(page.locator("#add-note")).to_contain_text("at most one liquidation a second")
    page.locator("#add-kind").select_option("OpenInterest")
    expect(page.locator("#add-transport")).to_have_value("HttpPoll")
    page.locator("#add-dialog [type=submit]").click()
    expect(page.locator("#add-dialog")).to_be_hidden()
    expect(row(page, "BTCUSDC", "OpenInterest")).to_be_visible()
    key = StreamKey(BINANCE, "BTCUSDC", StreamKind.OPEN_INTEREST, Transport.HTTP_POLL)
    assert engine.added == [key]


def test_a_refused_stream_says_why_and_offers_near_names(page: Any, engine: ScriptedEngine) -> None:
    page.locator("#add-open").click()
    expect(page.locator("#add-kind option")).not_to_have_count(0)
    page.locator("#add-symbol").fill("BTCUSD")
    page.locator("#add-dialog [type=submit]").click()
    expect(page.locator("#add-error")).to_contain_text("binance_linear lists no 'BTCUSD'")
    expect(page.locator("#add-symbol")).to_have_attribute("aria-invalid", "true")
    page.locator("#add-error button", has_text="BTCUSDT").click()
    expect(page.locator("#add-symbol")).to_have_value("BTCUSDT")
    page.locator("#add-dialog [type=submit]").click()
    expect(page.locator("#add-error")).to_contain_text("exists")
    expect(page.locator("#log li")).to_have_count(2)
    engine.health.shown["db"] = HealthLight("red", "the database is down: it is gone")
    page.locator("#add-dialog [type=submit]").click()
    expect(page.locator("#add-error")).to_contain_text("db is red: the database is down")


# --- many -------------------------------------------------------------------------------------


@pytest.fixture
def market_of_hundreds(browser: Any, tmp_path: Path) -> Iterator[tuple[Any, ScriptedEngine]]:
    """A page on an engine whose exchange lists 300 coins in USDT and some in USDC."""
    coins = [f"C{number:03}" for number in range(300)]
    listing = [instrument(BINANCE, f"{coin}USDT") for coin in coins]
    listing += [instrument(BINANCE, f"{coin}USDC") for coin in coins[:40]]
    listing.append(
        instrument(
            BINANCE, "OLDUSDT", status="SETTLING", state=InstrumentState.SETTLING,
            kind=InstrumentKind.FUTURE,
        )
    )  # fmt: skip
    engine = ScriptedEngine(
        tmp_path, [stream(0, "C001USDT")], listed={**LISTED, BINANCE: listing}
    )  # fmt: skip
    with serving(engine) as address:
        page, complaints = open_page(browser, address)
        expect(page.locator("#streams tbody tr")).to_have_count(1)
        yield page, engine
        page.context.close()
    assert complaints.unexpected == []


def test_instruments_say_what_they_are_and_that_they_do_not_trade(
    market_of_hundreds: tuple[Any, ScriptedEngine],
) -> None:
    page, _ = market_of_hundreds
    page.keyboard.press("n")
    expect(page.locator("#add-exchange")).to_have_value(BINANCE)
    for typed, said in (
        ("OLD", "OLDUSDTOLD/USDT · future · tick 0.01 · settling"),
        ("C007USDT", "C007USDTC007/USDT · perpetual · tick 0.01"),
    ):
        page.locator("#add-symbol").fill(typed.lower())
        expect(page.locator("#add-options li")).to_have_text([said])


def hold(page: Any, requests: str, held: list[Any]) -> None:
    """Have such requests wait until the test lets them go on."""

    def keep(route: Any) -> None:
        held.append(route)

    page.route(requests, keep)


def test_who_submits_before_it_is_known_what_can_be_added_adds_what_was_meant(
    market_of_hundreds: tuple[Any, ScriptedEngine],
) -> None:
    page, engine = market_of_hundreds
    page.get_by_role("button", name="Instruments").click()
    page.locator("#listed-exchange").select_option(HYPERLIQUID)
    held: list[Any] = []
    hold(page, "**/streams/capabilities", held)
    page.get_by_role("button", name="Add a stream of BTC", exact=True).click()
    page.locator("#add-dialog [type=submit]").click()
    wait_for(lambda: page.evaluate("1") and len(held) == 1, "a held request")
    held.pop().continue_()
    expect(page.locator("#add-dialog")).to_be_hidden()
    assert [(key.venue, key.symbol) for key in engine.added] == [(HYPERLIQUID, "BTC")]


def test_many_streams_are_seen_before_they_are_added(
    market_of_hundreds: tuple[Any, ScriptedEngine],
) -> None:
    page, engine = market_of_hundreds
    page.keyboard.press("m")
    expect(page.locator("#bulk-symbol")).to_be_focused()
    expect(page.locator("#bulk-count")).to_have_text("340 instruments, 1 collected already")
    page.locator("#bulk-quote").fill("usdt")
    expect(page.locator("#bulk-count")).to_contain_text("300 instruments")
    page.locator("#bulk-state").select_option("any")
    expect(page.locator("#bulk-count")).to_contain_text("301 instruments")
    page.locator("#bulk-market").select_option("future")
    expect(page.locator("#bulk-count")).to_have_text("1 instrument")
    page.locator("#bulk-market").select_option("any")
    page.locator("#bulk-symbol").fill("C01?USDT")
    expect(page.locator("#bulk-count")).to_have_text("10 instruments")
    page.locator("#bulk-symbol").fill("C0*")
    expect(page.locator("#bulk-names")).to_contain_text("C000USDT, C002USDT")
    expect(page.locator("#bulk-names")).to_contain_text("and 87 more")
    page.locator("#bulk-limit").fill("3")
    expect(page.locator("#bulk-names")).to_have_text("C000USDT, C002USDT")
    expect(page.locator("#bulk-submit")).to_have_text("Add 2 streams")
    page.locator("#bulk-kind").select_option("L2Book")
    expect(page.locator("#bulk-submit")).to_have_text("Add 3 streams")
    page.locator("#bulk-kind").select_option("Trades")
    page.locator("#bulk-limit").focus()
    assert engine.added == []
    page.keyboard.press("Enter")
    expect(page.locator("#bulk-summary")).to_have_text("2 created, 1 existed already, 0 refused")
    results = page.locator("#bulk-results li")
    expect(results).to_have_text(["C001USDTexists", "C000USDTcreated", "C002USDTcreated"])
    assert [key.symbol for key in engine.added] == ["C000USDT", "C001USDT", "C002USDT"]
    page.locator("#bulk-again").click()
    expect(page.locator("#bulk-count")).to_have_text("3 instruments, 3 collected already")
    expect(page.locator("#bulk-names")).to_have_text("Nothing is left to add.")
    expect(page.locator("#bulk-submit")).to_be_disabled()
    page.keyboard.press("Escape")
    expect(page.locator("#streams tbody tr")).to_have_count(3)


def test_each_refused_stream_of_many_says_why(
    market_of_hundreds: tuple[Any, ScriptedEngine],
) -> None:
    page, engine = market_of_hundreds
    page.keyboard.press("m")
    page.locator("#bulk-kind").select_option("L2Book")
    page.locator("#bulk-symbol").fill("C2*USDT")
    expect(page.locator("#bulk-submit")).to_have_text("Add 100 streams")
    engine.supervisor.answer_kind = "limit"
    page.locator("#bulk-submit").click()
    expect(page.locator("#bulk-summary")).to_have_text("0 created, 0 existed already, 100 refused")
    expect(page.locator("#bulk-results li").first).to_contain_text("refused by the supervisor")
    engine.supervisor.answer_kind = ""
    page.locator("#bulk-again").click()
    expect(page.locator("#bulk-symbol")).to_have_value("C2*USDT")
    page.locator("#bulk-submit").click()
    expect(page.locator("#bulk-summary")).to_have_text("100 created, 0 existed already, 0 refused")


def test_a_wrong_field_of_many_is_named_beside_it(
    market_of_hundreds: tuple[Any, ScriptedEngine],
) -> None:
    page, engine = market_of_hundreds
    page.keyboard.press("m")
    page.locator("#bulk-limit").fill("6000")
    expect(page.locator("#bulk-submit")).to_be_enabled()
    page.locator("#bulk-submit").click()
    expect(page.locator("#bulk-limit-error")).to_contain_text("<= 5000")
    expect(page.locator("#bulk-limit")).to_have_attribute("aria-invalid", "true")
    page.locator("#bulk-limit").fill("")
    expect(page.locator("#bulk-limit-error")).to_be_hidden()
    page.locator("#bulk-base").fill("nothing like it")
    expect(page.locator("#bulk-names")).to_have_text("Binance linear lists nothing like it.")
    expect(page.locator("#bulk-submit")).to_be_disabled()
    assert engine.added == []


def test_many_are_added_only_by_the_count_that_is_shown(
    market_of_hundreds: tuple[Any, ScriptedEngine],
) -> None:
    page, engine = market_of_hundreds
    submit, limit = page.locator("#bulk-submit"), page.locator("#bulk-limit")
    held: list[Any] = []

    def asked(count: int) -> None:
        wait_for(lambda: page.evaluate("1") and len(held) == count, f"{count} held requests")

    page.keyboard.press("m")
    expect(submit).to_have_text("Add 339 streams")
    hold(page, "**/instruments?*", held)
    page.locator("#bulk-quote").fill("usdt")
    expect(submit).to_be_disabled()
    asked(1)
    limit.fill("6000")
    asked(2)
    with page.expect_response("**/instruments?*"):
        held.pop(0).continue_()  # the answer to a question of before
    page.keyboard.press("Enter")
    expect(submit).to_be_disabled()
    held.pop().continue_()
    expect(submit).to_have_text("Add 299 streams")
    expect(submit).to_be_enabled()
    hold(page, "**/streams", held)
    submit.click()
    expect(submit).to_be_disabled()
    asked(1)
    limit.fill("3")
    asked(2)
    held.pop(0).continue_()
    expect(page.locator("#bulk-limit-error")).to_contain_text("<= 5000")
    expect(submit).to_be_disabled()  # what it would add now is not known yet
    held.pop().continue_()
    expect(submit).to_have_text("Add 2 streams")
    expect(submit).to_be_enabled()
    assert engine.added == []


# --- knobs ------------------------------------------------------------------------------------


def test_a_switch_in_the_row_is_switched_and_stays(page: Any, engine: ScriptedEngine) -> None:
    switch = row(page, "ETHUSDT").locator("[data-knob=redis]")
    expect(switch).to_have_attribute("aria-checked", "true")
    switch.click()
    expect(switch).to_have_attribute("aria-checked", "false")
    wait_for(lambda: engine.tuned, "the PATCH")
    assert engine.tuned == [(ETH_TRADES, Knobs(redis_publishes_enabled=False))]
    page.wait_for_timeout(1500)
    expect(switch).to_have_attribute("aria-checked", "false")


def test_flush_knobs_are_set_and_go_back_to_the_default(page: Any, engine: ScriptedEngine) -> None:
    row(page, "ETHUSDT").locator(".tune").click()
    expect(page.locator("#knobs-name")).to_have_text("ETHUSDT Trades on Binance linear")
    rows = page.locator("#knob-flush_rows")
    expect(rows).to_have_attribute("placeholder", "default: 50,000")
    expect(page.locator("#knob-flush_interval_ms-hint")).to_contain_text("1 to 60,000; empty for")
    expect(page.locator("#knob-flush_rows-default")).to_be_disabled()
    rows.fill("2000")
    page.locator("#knob-flush_interval_ms").fill("10")
    page.keyboard.press("Enter")
    expect(page.locator("#knobs-dialog")).to_be_hidden()
    assert engine.tuned == [(ETH_TRADES, Knobs(True, True, 2000, 10, None))]
    expect(row(page, "ETHUSDT").locator(".tune")).to_have_attribute("data-tuned", "true")
    row(page, "ETHUSDT").locator(".tune").click()
    expect(rows).to_have_value("2000")
    page.locator("#knob-flush_rows-default").click()
    expect(rows).to_have_value("")
    page.get_by_label("Store in the database", exact=True).uncheck()
    page.locator("#knobs-form [type=submit]").click()
    expect(page.locator("#knobs-dialog")).to_be_hidden()
    assert engine.tuned[-1] == (ETH_TRADES, Knobs(False, True, None, 10, None))


def test_a_refused_knob_is_named_beside_its_field(page: Any, engine: ScriptedEngine) -> None:
    row(page, "ETHUSDT").focus()
    page.keyboard.press("k")
    expect(page.locator("#knob-flush_rows")).to_be_focused()
    page.locator("#knob-flush_interval_ms").fill("90000")
    page.keyboard.press("Enter")
    error = page.locator("#knob-flush_interval_ms-error")
    expect(error).to_contain_text("<= 60000")
    expect(page.locator("#knob-flush_interval_ms")).to_be_focused()
    page.locator("#knob-flush_interval_ms").fill("soon")
    page.keyboard.press("Enter")
    expect(error).to_contain_text("got `str`")
    page.locator("#knob-flush_interval_ms").fill("")
    page.locator("#knob-flush_rows").fill("5000")
    page.locator("#knob-max_rows_per_copy").fill("1000")
    page.keyboard.press("Enter")
    expect(error).to_be_hidden()
    expect(page.locator("#knob-flush_rows-error")).to_contain_text("is more than")
    page.keyboard.press("Escape")
    expect(page.locator("#streams tbody tr:focus")).to_have_count(1)
    assert engine.tuned == []


# --- stopping ---------------------------------------------------------------------------------


def test_a_stream_is_stopped_after_a_second_thought(page: Any, engine: ScriptedEngine) -> None:
    row(page, "ETHUSDT").locator(".stop").click()
    expect(page.locator("#stop-names")).to_have_text("ETHUSDT Trades on Binance linear")
    page.locator("#stop-cancel").click()
    assert engine.removed == []
    row(page, "ETHUSDT").locator(".stop").click()
    page.locator("#stop-confirm").click()
    expect(page.locator("#streams tbody tr")).to_have_count(5)
    assert engine.removed == [[ETH_TRADES]]


def test_marked_streams_are_stopped_with_one_question(page: Any, engine: ScriptedEngine) -> None:
    page.locator("#filter").fill("binance btcusdt")
    page.locator("#mark-all").check()
    page.locator("#filter").fill("")
    row(page, "ETHUSDT").locator(".c-mark input").check()
    expect(page.locator("#marked-count")).to_have_text("3 marked")
    page.locator("#filter").fill("sol")
    expect(page.locator("#marked-count")).to_have_text("3 marked, 3 of them filtered out")
    page.locator("#filter").fill("")
    page.locator("#marked-stop").click()
    expect(page.locator("#stop-title")).to_have_text("Stop 3 streams?")
    expect(page.locator("#stop-names li")).to_have_count(3)
    page.locator("#stop-confirm").click()
    expect(page.locator("#streams tbody tr")).to_have_count(3)
    expect(page.locator("#marked")).to_be_hidden()
    book = StreamKey(BINANCE, "BTCUSDT", StreamKind.L2_BOOK)
    trades = StreamKey(BINANCE, "BTCUSDT", StreamKind.TRADES)
    assert [sorted(keys) for keys in engine.removed] == [[book, trades, ETH_TRADES]]


def test_marked_streams_are_paused_with_one_question(page: Any, engine: ScriptedEngine) -> None:
    page.locator("#filter").fill("binance btcusdt")
    page.locator("#mark-all").check()
    page.locator("#marked").get_by_role("button", name="Pause").click()
    expect(page.locator("#stop-title")).to_have_text("Pause 2 streams?")
    expect(page.locator("#stop-text")).to_contain_text("declared as a gap")
    page.locator("#stop-confirm").click()
    expect(page.locator("#log")).to_contain_text("Paused 2 streams")
    assert {(key.kind, knobs) for key, knobs in engine.tuned} == {
        (StreamKind.TRADES, Knobs(False, False)), (StreamKind.L2_BOOK, Knobs(False, False)),
    }  # fmt: skip
    page.locator("#marked").get_by_role("button", name="Database on").click()
    expect(page.locator("#log")).to_contain_text("Stored again: 2 streams")
    assert engine.tuned[-1][1] == Knobs(True, False)
    gone = {k: each for k, each in engine.supervisor.streams.items() if k.kind != "L2Book"}
    engine.within_loop(lambda: setattr(engine.supervisor, "streams", gone))
    page.locator("#marked").get_by_role("button", name="Resume").click()
    expect(page.locator("#log li").first).to_contain_text("Resume: 1 of 2 were refused")
    expect(page.locator("#log")).to_contain_text("Resume BTCUSDT L2Book on Binance linear: ")


# --- what there is to collect -----------------------------------------------------------------


def test_instruments_are_found_by_name_and_by_what_is_collected(
    market_of_hundreds: tuple[Any, ScriptedEngine],
) -> None:
    page, engine = market_of_hundreds
    page.get_by_role("button", name="Instruments").click()
    rows, count = page.locator("#listed tbody tr"), page.locator("#listed-count")
    expect(count).to_have_text("341 of 341, the first 300 are shown")
    page.locator("#listed-text").fill("c00")
    expect(count).to_have_text("20 of 341")
    page.locator("#listed-match").select_option("ends with")
    expect(count).to_have_text("0 of 341")
    page.locator("#listed-text").fill("1usdc")
    expect(rows.locator("th")).to_have_text(["C001USDC", "C011USDC", "C021USDC", "C031USDC"])
    page.locator("#listed-match").select_option("is")
    page.locator("#listed-text").fill("c001usdt")
    expect(rows).to_have_count(1)
    expect(rows.locator("td").nth(1)).to_have_text("perpetual")
    expect(rows).to_contain_text("Trades")
    page.locator("#listed-collected").select_option("not yet")
    expect(rows).to_have_count(0)
    page.locator("#listed-text").fill("")
    page.locator("#listed-state").select_option("settling")
    expect(rows.locator("th")).to_have_text(["OLDUSDT"])
    page.locator("#listed-state").select_option("any")
    page.locator("#listed-text").fill("C002USDT")
    page.locator("#listed-match").select_option("starts with")
    rows.get_by_role("button", name="Add a stream of C002USDT").click()
    expect(page.locator("#add-symbol")).to_have_value("C002USDT")
    page.locator("#add-dialog [type=submit]").click()
    expect(count).to_have_text("0 of 341")  # it is collected now
    assert [key.symbol for key in engine.added] == ["C002USDT"]
    engine.instruments._fetch = silent
    page.locator("#listed-refresh").click()
    expect(page.locator("#listed-error")).to_contain_text("the venue says nothing")
    expect(count).to_have_text("0 of 341")  # what was known stays
    page.go_back()
    expect(page.locator("#streams tbody tr")).to_have_count(2)


async def silent(_: Any) -> list[bytes]:
    raise VenueError("the venue says nothing")


def test_what_venues_offer_says_what_one_may_rely_on(page: Any) -> None:
    page.get_by_role("button", name="Venues").click()
    line = page.locator("#venues tbody tr").filter(has_text="OpenInterest").first
    expect(line).to_contain_text("HTTP poll every 10 s")
    expect(line).to_contain_text("sampled")
    trades = page.locator("#venues tbody tr").first
    expect(trades).to_contain_text("exact")
    expect(page.locator("#proofs dt")).to_have_count(5)
    expect(page.locator("#streams-panel")).to_be_hidden()
    page.reload()
    expect(page.locator("#venues tbody th").filter(has_text="Deribit").first).to_be_attached()


def test_marks_outlive_the_stop_of_another_stream(page: Any, engine: ScriptedEngine) -> None:
    row(page, "SOLUSDT").locator(".c-mark input").check()
    row(page, "BTCUSDT").locator(".c-mark input").check()
    row(page, "ETHUSDT").locator(".stop").click()
    page.locator("#stop-confirm").click()
    expect(page.locator("#log")).to_contain_text("Stopped ETHUSDT")
    expect(page.locator("#streams tbody tr")).to_have_count(5)
    expect(page.locator("#marked-count")).to_have_text("2 marked")
    row(page, "SOLUSDT").locator(".stop").click()
    page.locator("#stop-confirm").click()
    expect(page.locator("#marked-count")).to_have_text("1 marked")


def test_what_could_not_be_stopped_is_named(page: Any, engine: ScriptedEngine) -> None:
    row(page, "ETHUSDT").locator(".c-mark").click()
    row(page, "SOLUSDT").locator(".c-mark").click()
    gone = {key: each for key, each in engine.supervisor.streams.items() if key != ETH_TRADES}
    page.locator("#marked-stop").click()
    engine.within_loop(lambda: setattr(engine.supervisor, "streams", gone))
    page.locator("#stop-confirm").click()
    expect(page.locator("#log li").first).to_contain_text("1 of 2 were not stopped")
    expect(page.locator("#log")).to_contain_text("Stop ETHUSDT Trades")


def test_the_keyboard_reaches_everything(page: Any, engine: ScriptedEngine) -> None:
    page.locator("#filter").focus()
    page.keyboard.press("ArrowDown")
    expect(page.locator("#streams tbody tr").first).to_be_focused()
    page.keyboard.press("End")
    expect(page.locator("#streams tbody tr").last).to_be_focused()
    page.keyboard.press("ArrowUp")
    focused = page.locator("#streams tbody tr:focus .symbol-text").inner_text()
    page.keyboard.press("Enter")
    expect(page.locator("#market-title")).to_have_text(focused)
    page.keyboard.press("Space")
    page.keyboard.press("ArrowUp")
    page.keyboard.press("ArrowUp")
    page.keyboard.press("Shift+Space")
    expect(page.locator("#marked-count")).to_have_text("3 marked")
    page.keyboard.press("Control+a")
    expect(page.locator("#marked-count")).to_have_text("6 marked")
    page.keyboard.press("Escape")
    expect(page.locator("#marked")).to_be_hidden()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Space")
    wait_for(lambda: engine.tuned, "the PATCH")
    assert engine.tuned[0][1] == Knobs(db_writes_enabled=False)
    page.keyboard.press("Escape")
    stopped = page.locator("#streams tbody tr:focus .symbol-text").inner_text()
    page.keyboard.press("Delete")
    expect(page.locator("#stop-cancel")).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.locator("#stop-dialog")).to_be_hidden()
    expect(page.locator("#streams tbody tr:focus .symbol-text")).to_have_text(stopped)
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


def test_single_keys_are_listed_and_can_be_switched_off(page: Any) -> None:
    page.keyboard.press("?")
    expect(page.locator("#keys-dialog")).to_contain_text("add many streams")
    page.locator("#keys-on").uncheck()
    page.keyboard.press("Escape")
    page.reload()
    expect(page.locator("#streams tbody tr")).to_have_count(6)
    page.keyboard.press("n")
    page.locator("[data-opens=keys]").click()
    expect(page.locator("#add-dialog")).to_be_hidden()
    expect(page.locator("#keys-on")).not_to_be_checked()
