"""The Python of docs/sql.md brings what the database has."""

from typing import Any

import polars as pl
import pytest

from tests.engine.upkeep.lake.lake_rig import fill
from tests.pages import python_examples
from tests.stores import execute, select

TRADES = """
    SELECT time, side, price, quantity FROM trades
    WHERE venue = 'binance_linear' AND symbol = 'BTCUSDT'
"""


def test_frames_are_as_exact_as_the_page_says(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With numbers of all sizes, more digits than a double has among them."""
    fill(database_url, 300)
    execute(
        database_url,
        "UPDATE instrument SET venue = 'binance_linear' WHERE venue = 'acme'",
        "UPDATE instrument SET symbol = 'BTCUSDT' WHERE symbol = 'BTC'",
    )
    monkeypatch.setenv("FTS_DATABASE_URL", database_url)
    [block] = python_examples("docs/sql.md")
    found: dict[str, Any] = {}
    exec(compile(block, "example", "exec"), found)  # noqa: S102 - our own page
    exact: pl.DataFrame = found["exact"]
    doubles: pl.DataFrame = found["doubles"]
    stored = select(database_url, TRADES)
    assert sorted(exact.rows()) == sorted(stored)
    assert sorted(doubles.rows()) == sorted(
        (time, side, float(price), float(quantity)) for time, side, price, quantity in stored
    )
    assert any(float(price) != price for _, _, price, _ in stored)
