"""What an engine lets itself spend of a venue: its numbers, whatever window they are for."""

import dataclasses
import json

import pytest

from engine.limits.budget import Budget, Waiter
from engine.messages.settings import (
    HeldLimitSettings,
    LimitOverride,
    LimitSettings,
    VenueSettings,
)
from shards.venues import VENUES, raised_limits, venue_limits
from shards.venues.budgets import REST_POLLS, limits_of, raised, with_limits
from shards.venues.kit import (
    CONNECTS,
    MESSAGES,
    REST_WEIGHT,
    SOCKETS,
    SUBSCRIPTIONS,
    Limit,
    Places,
    limit_of,
    limited_as,
    places_of,
)
from tests.shards.venues.recorded import DATA, UNDER_TEST


@pytest.mark.parametrize("name", list(UNDER_TEST))
def test_a_venue_is_asked_for_no_more_than_it_allows(name: str) -> None:
    venue = UNDER_TEST[name]
    said = json.loads((DATA / name / "budgets.json").read_text(encoding="utf-8"))
    expected = [
        (HeldLimitSettings if "count" in each else LimitSettings)(limited_as(venue), **each)
        for each in said
    ]
    assert limits_of(venue) == expected


def test_venues_of_one_server_have_its_limits_once() -> None:
    """Else each would spend all of what the address may."""
    shared = [venue for venue in VENUES.values() if venue.limits_with]
    assert shared
    for venue in shared:
        assert venue.limits == VENUES[venue.limits_with].limits
    limits = venue_limits()
    assert len({(limit.venue, limit.pool) for limit in limits}) == len(limits)
    assert {limit.venue for limit in limits} <= {limited_as(venue) for venue in VENUES.values()}


def test_what_one_market_of_futures_used_does_not_stop_the_other() -> None:
    """The venue's counter is of both: to a budget of its own, one would look used up by others."""
    linear, inverse = VENUES["binance_linear"], VENUES["binance_inverse"]
    budgets = {
        limited_as(venue): Budget(limit.budget, limit.window_s)
        for venue in (linear, inverse)
        for limit in limits_of(venue)
        if isinstance(limit, LimitSettings) and limit.pool == REST_WEIGHT
    }
    for venue, weight in ((linear, 1000.0), (inverse, 20.0)):
        budgets[limited_as(venue)].ask(Waiter("shard", 1, weight))
        assert budgets[limited_as(venue)].grant(0.0)
    ours = budgets[limited_as(inverse)]
    ours.venue_says(1020.0, 1.0)
    ours.ask(Waiter("shard", 2, 20.0))
    assert ours.fitting(1.0) == 20.0


def test_limits_of_ones_own_are_shared_out_like_the_venues() -> None:
    venue = VENUES["hyperliquid_perp"]
    limits = {
        REST_WEIGHT: LimitOverride(600, 30), MESSAGES: LimitOverride(1000),
        SOCKETS: LimitOverride(4),
    }  # fmt: skip
    tuned = with_limits(venue, limits)
    known, found = ({each.pool: each for each in limits_of(every)} for every in (venue, tuned))
    name = limited_as(venue)
    assert found[REST_WEIGHT] == LimitSettings(name, REST_WEIGHT, 480.0, 30)
    assert found[REST_POLLS] == LimitSettings(name, REST_POLLS, 288.0, 30)
    assert found[SOCKETS] == HeldLimitSettings(name, SOCKETS, 4)
    assert found[CONNECTS] == known[CONNECTS]
    assert places_of(tuned, SOCKETS) == 4
    assert raised(venue, limits) == [], "all of it is less"
    assert with_limits(venue, {}) is venue


def test_what_no_venue_could_mean_is_no_limit() -> None:
    venue = VENUES["hyperliquid_perp"]
    for limits, error in (
        ({"rest_wait": LimitOverride(5)}, KeyError),
        ({SOCKETS: LimitOverride(1.5)}, ValueError),
        ({SOCKETS: LimitOverride(2, 60)}, ValueError),
        ({MESSAGES: LimitOverride(1)}, ValueError),
    ):
        with pytest.raises(error):
            with_limits(venue, limits)


def test_a_limit_above_the_known_one_is_named() -> None:
    venue = VENUES["hyperliquid_perp"]
    weight = limit_of(venue, REST_WEIGHT)
    assert weight is not None
    longer = {REST_WEIGHT: LimitOverride(weight.units, weight.window_s / 2)}
    for limits in (longer, {SOCKETS: LimitOverride(1 + (places_of(venue, SOCKETS) or 0))}):
        (warning,) = raised(venue, limits)
        assert warning.startswith(next(iter(limits)))
    settings = {venue.name: VenueSettings(limits=longer)}
    (line,) = raised_limits(settings)
    assert line.startswith(f"venues.{venue.name}.limits.rest_weight: more than the ")


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
