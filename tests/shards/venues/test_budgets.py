"""What an engine lets itself spend of a venue: its numbers, whatever window they are for."""

import dataclasses

import pytest

from engine.messages.settings import HeldLimitSettings, LimitSettings
from shards.venues import VENUES
from shards.venues.budgets import limits_of
from shards.venues.kit import (
    CONNECTS,
    MESSAGES,
    REST_WEIGHT,
    SOCKETS,
    SUBSCRIPTIONS,
    Limit,
    Places,
    limit_of,
    places_of,
)

SPENT = {
    "binance_linear": [
        LimitSettings("binance_linear", "rest_weight", 1920.0, 60.0),
        LimitSettings("binance_linear", "rest_polls", 1152.0, 60.0),
        LimitSettings("binance_linear", "ws_connects", 48.0, 60.0),
        LimitSettings("binance_linear", "rest_funding", 400.0, 300.0),
    ],
    "hyperliquid_perp": [
        LimitSettings("hyperliquid_perp", "rest_weight", 960.0, 60.0),
        LimitSettings("hyperliquid_perp", "rest_polls", 576.0, 60.0),
        LimitSettings("hyperliquid_perp", "ws_connects", 20.0, 60.0),
        LimitSettings("hyperliquid_perp", "ws_messages", 1580.0, 60.0),
        HeldLimitSettings("hyperliquid_perp", "ws_subscriptions", 1000),
        HeldLimitSettings("hyperliquid_perp", "ws_sockets", 10),
    ],
}


@pytest.mark.parametrize("name", list(SPENT))
def test_a_venue_is_asked_for_no_more_than_it_allows(name: str) -> None:
    assert limits_of(VENUES[name]) == SPENT[name]


def test_limits_may_be_for_any_window_also_those_of_sockets_and_messages() -> None:
    limits = (
        Limit(REST_WEIGHT, 600, 5.0),
        Limit(CONNECTS, 500, 300.0),
        Limit(MESSAGES, 100, 10.0),
        Places(SOCKETS, 6),
    )
    venue = dataclasses.replace(VENUES["hyperliquid_perp"], limits=limits)
    assert limits_of(venue) == [
        LimitSettings(venue.name, "rest_weight", 480.0, 5.0),
        LimitSettings(venue.name, "rest_polls", 288.0, 5.0),
        LimitSettings(venue.name, "ws_connects", 400.0, 300.0),
        LimitSettings(venue.name, "ws_messages", 78.0, 10.0),  # six sockets ping twice a minute
        HeldLimitSettings(venue.name, "ws_sockets", 6),
    ]
    assert limit_of(venue, CONNECTS) == Limit(CONNECTS, 500, 300.0)
    assert places_of(venue, SOCKETS) == 6
    assert places_of(venue, SUBSCRIPTIONS) is None
    assert limit_of(venue, "rest_funding") is None


def test_a_venue_without_polls_has_no_share_for_them() -> None:
    venue = VENUES["binance_linear"]
    pushed = {key: value for key, value in venue.channels.items() if not hasattr(value, "call")}
    found = limits_of(dataclasses.replace(venue, channels=pushed))
    assert [limit.pool for limit in found] == ["rest_weight", "ws_connects", "rest_funding"]
