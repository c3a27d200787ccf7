"""A browser, and an engine for it to look at."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.data.kinds import BOOK, TRADE
from engine.data.names import StreamKind
from tests.control.ui.rings import ShardRing, describe
from tests.control.ui.scripted_engine import ScriptedEngine, serving


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium. Not for the session: while Playwright lives, its event loop runs in this thread
    and nobody else's `asyncio.run` works.
    """
    from tests.control.ui.chromium import ARGUMENTS, CHROMIUM, sync_api  # noqa: PLC0415 - may skip

    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield chromium
        chromium.close()


@pytest.fixture
def engine(tmp_path: Path) -> ScriptedEngine:
    """An engine with six streams."""
    from tests.control.ui.chromium import some_streams  # noqa: PLC0415 - may skip

    return ScriptedEngine(tmp_path, some_streams())


@pytest.fixture
def address(engine: ScriptedEngine) -> Iterator[str]:
    """Where it is served."""
    with serving(engine) as url:
        yield url


@pytest.fixture
def page(browser: Any, address: str) -> Iterator[Any]:
    """The open page; it must end without a complaint of the browser."""
    from tests.control.ui.chromium import expect, open_page  # noqa: PLC0415 - may skip

    page, complaints = open_page(browser, address)
    expect(page.locator("#streams tbody tr")).to_have_count(6)
    yield page
    page.context.close()
    assert complaints.unexpected == []


@pytest.fixture
def market(engine: ScriptedEngine) -> Iterator[tuple[ShardRing, ShardRing]]:
    """Rings of trades and books, and what is known of BTCUSDT."""
    describe(engine.layout, [("BTCUSDT", StreamKind.TRADES), ("BTCUSDT", StreamKind.L2_BOOK)])
    trades = ShardRing(engine.layout, TRADE.name)
    book = ShardRing(engine.layout, BOOK.name)
    yield trades, book
    trades.close()
    book.close()
