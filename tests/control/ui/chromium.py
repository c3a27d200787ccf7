"""The dashboard's page in a real Chromium: how it is opened, and what the browser complains of."""

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from engine.messages.status import StreamReport
from engine.messages.streams import StreamState
from tests.control.ui.scripted_engine import stream

sync_api = pytest.importorskip(
    "playwright.sync_api", reason="Playwright is missing: pip install 'fintickstreams[browser]'"
)
_BUILDS = "chromium-headless-shell", "chromium", "chromium-browser"
"""The first draws as the others do, and has no windows, tabs or profile that take as much again."""
CHROMIUM = next(filter(None, map(shutil.which, _BUILDS)), None)
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on the PATH: install it")
expect = sync_api.expect
expect.set_options(timeout=15_000)  # a loaded machine is slow, not wrong

NOTHING = "\N{EN DASH}"
"""What stands where there is no value."""
HOSTILE = "<img src=x onerror=document.title='owned'>"
ARGUMENTS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip


def some_streams() -> list[StreamReport]:
    """Six, in good and in bad states."""
    return [
        stream(0, "BTCUSDT", row_count=1_284_331),
        stream(1, "BTCUSDT", "L2Book", row_count=8_114_002, gap_count=2, missing_count=31),
        stream(2, "ETHUSDT", row_count=802_114),
        stream(3, "BTC", venue="hyperliquid_perp", row_count=44_120, duplicate_count=7),
        stream(4, "SOLUSDT", state=StreamState.STALE, reason="no data for 30 s"),
        stream(5, HOSTILE, state=StreamState.FAILED, reason="<b>no</b> such symbol"),
    ]


class Complaints:
    """What the browser says that it should not have to say."""

    def __init__(self, page: Any) -> None:
        self.lines: list[str] = []
        page.on("console", self._console)
        page.on("pageerror", lambda error: self.lines.append(str(error)))

    @property
    def unexpected(self) -> list[str]:
        """Without those about refused requests: the browser notes each by itself."""
        return [line for line in self.lines if "status of" not in line]

    def _console(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            self.lines.append(message.text)


def open_page(
    browser: Any, address: str, path: str = "ui", **options: Any
) -> tuple[Any, Complaints]:
    """A page of a browser profile of its own."""
    options = {"viewport": {"width": 1700, "height": 960}} | options
    page = browser.new_context(**options).new_page()
    page.set_default_timeout(15_000)
    complaints = Complaints(page)
    page.goto(f"{address}/{path}")
    return page, complaints


def row(page: Any, symbol: str, kind: str = "Trades") -> Any:
    """A row of the table."""
    return page.locator("#streams tbody tr").filter(has_text=symbol).filter(has_text=kind).first


def artefact(page: Any, name: str, tmp_path: Path, *, full_page: bool = False) -> Path:
    """A screenshot, kept where FTS_TEST_ARTEFACTS says."""
    folder = Path(os.environ.get("FTS_TEST_ARTEFACTS", str(tmp_path)))
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.png"
    page.screenshot(path=path, full_page=full_page)
    assert path.stat().st_size > 10_000
    return path
