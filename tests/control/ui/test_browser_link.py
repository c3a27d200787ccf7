"""The dashboard and its engine: tokens, a lost connection, a proxy in between."""

from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.routing import Mount

from control.http import auth
from control.http.auth import COMMAND_VARIABLE, READ_VARIABLE
from engine.data.kinds import TRADE
from tests.control.ui.chromium import NOTHING, expect, needs_chromium, open_page, row, some_streams
from tests.control.ui.rings import ShardRing
from tests.control.ui.scripted_engine import ScriptedEngine, serving

pytestmark = needs_chromium

COMMAND = "c0mmand-" + "kX7pQ2mV9zR4tW8s" * 3
READ = "r3ad-" + "bN5yH1jL6fD3gK0a" * 3
TOKENS = {COMMAND_VARIABLE: COMMAND, READ_VARIABLE: READ}


def give_token(page: Any, token: str) -> None:
    expect(page.locator("#token-input")).to_be_focused()
    page.locator("#token-input").fill(token)
    page.keyboard.press("Enter")


def test_a_token_is_asked_for_and_kept_in_the_tab(browser: Any, tmp_path: Path) -> None:
    engine = ScriptedEngine(tmp_path, some_streams(), tokens=TOKENS)
    with serving(engine) as address:
        page, complaints = open_page(browser, address)
        expect(page.locator("#token-dialog")).to_be_visible()
        give_token(page, "wrong")
        expect(page.locator("#token-error")).to_have_text("This token is not accepted.")
        give_token(page, COMMAND)
        expect(page.locator("#streams tbody tr")).to_have_count(6)
        page.reload()
        expect(page.locator("#streams tbody tr")).to_have_count(6)
        expect(page.locator("#read-only")).to_be_hidden()
        assert not any(COMMAND in path for path in engine.seen_paths)
        assert COMMAND not in repr(page.context.storage_state())
        page.locator("#forget-token").click()
        expect(page.locator("#token-dialog")).to_be_visible()
        page.context.close()
    assert complaints.unexpected == []


def test_after_many_wrong_tokens_the_page_waits_and_asks_again(
    browser: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = ScriptedEngine(tmp_path, some_streams(), tokens=TOKENS)
    with serving(engine) as address:
        page, _ = open_page(browser, address)
        with monkeypatch.context() as impatient:
            impatient.setattr(auth, "_WRONG_MAX", 0)
            give_token(page, "wrong")
            expect(page.locator("#alerts")).to_contain_text("too many wrong tokens")
        expect(page.locator("#token-dialog")).to_be_visible(timeout=15_000)
        give_token(page, COMMAND)
        expect(page.locator("#streams tbody tr")).to_have_count(6)
        page.context.close()


def test_a_token_that_only_reads_shows_no_commands(browser: Any, tmp_path: Path) -> None:
    engine = ScriptedEngine(tmp_path, some_streams(), tokens=TOKENS)
    with serving(engine) as address:
        page, complaints = open_page(browser, address)
        give_token(page, READ)
        expect(page.locator("#streams tbody tr")).to_have_count(6)
        expect(page.locator("#read-only")).to_have_text("read only")
        for hidden in ("#add-open", ".tune >> nth=0", ".stop >> nth=0", "#mark-all"):
            expect(page.locator(hidden)).to_be_hidden()
        switch = row(page, "ETHUSDT").locator("[data-knob=db]")
        expect(switch).to_have_attribute("aria-readonly", "true")
        switch.click()
        page.keyboard.press("n")
        row(page, "ETHUSDT").focus()
        for key in ("k", "Delete", "Space"):
            page.keyboard.press(key)
        expect(page.locator("dialog[open]")).to_have_count(0)
        expect(page.locator("#marked")).to_be_hidden()
        page.keyboard.press("Enter")
        expect(page.locator("#market-title")).to_have_text("ETHUSDT")
        assert engine.supervisor.received == []
        page.context.close()
    assert complaints.unexpected == []


def test_a_lost_engine_is_said_and_comes_back_by_itself(
    browser: Any, engine: ScriptedEngine, market: tuple[ShardRing, ShardRing]
) -> None:
    with serving(engine) as address:
        page, _ = open_page(browser, address)
        row(page, "BTCUSDT").click()
        market[0].trade(0, 1.25)
        expect(page.locator("[data-figure=last] b")).to_have_text("1.25")
    expect(page.locator("#link .word")).to_have_text("offline")
    expect(page.locator("#alerts")).to_contain_text("the engine does not answer")
    expect(page).to_have_title("no connection · fintickstreams")
    expect(page.locator("#alerts")).to_contain_text("What is shown is from then")
    expect(page.locator("#announcement")).to_contain_text("is lost")
    expect(page.locator("#log li").first).to_contain_text("Connection")
    expect(page.locator("#streams tbody tr")).to_have_count(6)
    with serving(engine, port=engine.port):
        expect(page.locator("#link .word")).to_have_text("live")
        expect(page.locator("#alerts")).to_have_text("All healthy")
        expect(page.locator("#announcement")).to_contain_text("is back")
        market[0].trade(0, 2.5)
        expect(page.locator("[data-figure=last] b")).to_have_text("2.50")
        page.context.close()


def test_every_time_is_utc_and_has_its_date_when_it_is_not_todays(
    browser: Any, engine: ScriptedEngine, market: tuple[ShardRing, ShardRing]
) -> None:
    with serving(engine) as address:
        page, _ = open_page(browser, address, timezone_id="Asia/Tokyo")
        page.clock.set_fixed_time("2026-03-07T23:59:30Z")
        row(page, "BTCUSDT").locator("[data-knob=db]").click()
        row(page, "BTCUSDT").click()
        traded_ms = page.evaluate("Date.now() - 500")
        market[0].trade(0, 1.25, ts_event=traded_ms * 1_000_000)
        expect(page.locator("#log time")).to_have_text("23:59:30")
        expect(page.locator("#tape time")).to_have_text("23:59:29.500")
    expect(page.locator("#alerts")).to_contain_text("since 23:59:30 UTC")
    page.clock.set_fixed_time("2026-03-08T00:00:01Z")
    expect(page.locator("#log time").last).to_have_text("07 Mar 23:59:30")
    expect(page.locator("#tape time")).to_have_text("07 Mar 23:59")
    expect(page.locator("#alerts")).to_contain_text("since 07 Mar 23:59:30 UTC")
    page.context.close()


def test_behind_a_proxy_with_a_path_of_its_own_everything_works(
    browser: Any, engine: ScriptedEngine
) -> None:
    trades = ShardRing(engine.layout, TRADE.name)
    proxy = Starlette(routes=[Mount("/fts/eu-1", app=_StripPath(engine))])
    with serving(engine, app=proxy) as address:
        for path in ("ui", "ui/"):
            page, complaints = open_page(browser, f"{address}/fts/eu-1", path)
            expect(page.locator("#streams tbody tr")).to_have_count(6)
            assert page.url == f"{address}/fts/eu-1/ui"
            row(page, "BTCUSDT").click()
            trades.trade(0, 1.25)
            expect(page.locator("[data-figure=last] b")).not_to_have_text(NOTHING)
            row(page, "ETHUSDT").locator("[data-knob=db]").click()
            page.locator("#add-open").click()
            expect(page.locator("#add-kind option")).not_to_have_count(0)
            page.locator("#add-symbol").fill("sol")
            expect(page.locator("#add-options li")).to_have_count(1)
            page.context.close()
            assert complaints.lines == []
    trades.close()
    assert len(engine.tuned) == 2


class _StripPath:
    """What a proxy does: the application behind it never hears of the path before its own."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        path = scope["path"].removeprefix(scope["root_path"])
        raw_path = path.encode()
        await self._app(
            {**scope, "path": path, "raw_path": raw_path, "root_path": ""}, receive, send
        )
