"""Prices of the past for charts: asked once for all who look, and never in anybody's way."""

import asyncio
from collections.abc import Sequence

from control.state.prices import BARS_MAX, Bar, Prices
from engine.base.clock import wall_ns
from engine.base.errors import DatabaseUnavailableError

BAR: Bar = (29_000_000, "1.00", "2.00", "0.50", "1.50", 3.0, 2.0)


def test_many_who_look_at_one_symbol_are_one_question() -> None:
    asked = []

    async def ask(venue: str, symbol: str, since: int, until: int) -> Sequence[Bar]:
        asked.append((venue, symbol, until - since))
        assert abs(until - wall_ns() // 60_000_000_000) <= 1
        await asyncio.sleep(0)
        return [BAR]

    async def scenario() -> None:
        prices = Prices(ask)
        found = await asyncio.gather(*(prices.last_day("acme", "BTC") for _ in range(5)))
        assert found == [([BAR], "")] * 5
        await prices.last_day("acme", "ETH")

    asyncio.run(scenario())
    assert asked == [("acme", "BTC", BARS_MAX), ("acme", "ETH", BARS_MAX)]


def test_a_database_that_is_away_is_said_and_no_error() -> None:
    async def ask(*_: object) -> Sequence[Bar]:
        raise DatabaseUnavailableError("the database is away")

    assert asyncio.run(Prices(ask).last_day("acme", "BTC")) == ([], "the database is away")


def test_without_bars_nobody_is_asked() -> None:
    assert asyncio.run(Prices().last_day("acme", "BTC")) == ([], "")
