"""The dashboard against a whole engine: real shards, writer, control process and database."""

from collections.abc import Callable
from typing import Any

import pytest

from engine.data.layout import open_layout
from engine.process import instance
from tests.control.ui.chromium import (
    ARGUMENTS,
    CHROMIUM,
    NOTHING,
    artefact,
    expect,
    needs_chromium,
    open_page,
    row,
    sync_api,
)
from tests.flow.rig import Rig

pytestmark = [pytest.mark.flow, pytest.mark.timeout(180), needs_chromium]
SLOW = 60_000
"""Milliseconds that real connections may take."""


def test_a_trader_sets_up_watches_and_clears_an_engine(
    make_rig: Callable[..., Rig], tmp_path: Any
) -> None:
    rig = make_rig(
        symbols=3,
        rate="300",
        settings="[control]\nadmission = 'any'\n[database]\nflush_rows = 4321",
    )
    rig.start()
    note = instance.read_note(open_layout(rig.directory / "state"))
    assert note is not None
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        page, complaints = open_page(browser, note.control_url)
        expect(page.locator("#stream-count")).to_have_text(str(rig.stream_count), timeout=SLOW)
        add_many(page, "Ticker")
        add_many(page, "Funding")
        watch(page, rig)
        tune(page)
        artefact(page, "dashboard-engine", tmp_path)
        clear(page)
        browser.close()
    assert complaints.unexpected == []


def add_many(page: Any, kind: str) -> None:
    page.keyboard.press("m")
    page.locator("#bulk-kind").select_option(kind)
    expect(page.locator("#bulk-submit")).to_have_text("Add 3 streams", timeout=SLOW)
    page.locator("#bulk-submit").click()
    expect(page.locator("#bulk-summary")).to_have_text("3 created, 0 existed already, 0 refused")
    page.locator("#bulk-done").click()
    state = row(page, "BTCUSDT", kind).locator(".c-state .word")
    expect(state).to_have_text("live", timeout=SLOW)


def watch(page: Any, rig: Rig) -> None:
    """Every figure arrives, and the book comes back after updates were lost."""
    row(page, "BTCUSDT", "Ticker").locator(".c-symbol").click()
    expect(page.locator("#book-state")).to_have_text("live", timeout=SLOW)
    expect(page.locator("#tape li")).not_to_have_count(0)
    for name in ("last", "mid", "spread", "bid", "ask", "mark", "index", "rate"):
        value = page.locator(f"[data-figure={name}] b")
        expect(value).not_to_have_text(NOTHING, timeout=SLOW)
    expect(page.locator("[data-figure=interest]")).to_be_hidden()
    gaps = row(page, "BTCUSDT", "L2Book").locator(".c-gaps")
    expect(gaps).to_have_text("0")
    rig.fault(fault="gap", venue="binance_linear", symbol="BTCUSDT", kind="book", count=3)
    expect(gaps).not_to_have_text("0", timeout=SLOW)
    expect(page.locator("#book-state")).to_have_text("live", timeout=SLOW)


def tune(page: Any) -> None:
    row(page, "BTCUSDT", "Ticker").locator(".tune").click()
    rows = page.locator("#knob-flush_rows")
    expect(rows).to_have_attribute("placeholder", "default: 4,321")
    rows.fill("1000")
    page.keyboard.press("Enter")
    tune_button = row(page, "BTCUSDT", "Ticker").locator(".tune")
    expect(tune_button).to_have_attribute("data-tuned", "true")
    tune_button.click()
    page.locator("#knob-flush_rows-default").click()
    page.keyboard.press("Enter")
    expect(tune_button).to_have_attribute("data-tuned", "false")


def clear(page: Any) -> None:
    page.locator("#mark-all").check()
    page.locator("#marked-stop").click()
    page.locator("#stop-confirm").click()
    expect(page.locator("#streams-empty")).to_contain_text("Nothing is collected yet")
