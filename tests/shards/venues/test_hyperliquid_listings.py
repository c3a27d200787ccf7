"""What Hyperliquid lists is read over two lists, or two answers, that name each other by index."""

import json
from typing import Any

import pytest

from engine.data.instrument import Instrument
from shards.venues import VENUES
from shards.venues.listing import Listing
from tests.shards.venues.recorded import DATA

BUILDER, SPOT = VENUES["hyperliquid_builder"], VENUES["hyperliquid_spot"]
METAS = (DATA / "hyperliquid_builder" / "instruments.json").read_bytes()
SPOT_META = (DATA / "hyperliquid_spot" / "instruments.json").read_bytes()


def spot_meta(**changes: Any) -> Listing:
    return SPOT.listing.read([json.dumps({**json.loads(SPOT_META), **changes}).encode()])


def token(index: int, **changes: Any) -> dict[str, Any]:
    return {"name": f"T{index}", "szDecimals": 2, "index": index, **changes}


def test_coins_of_builders_are_margined_in_the_token_that_the_other_answer_names() -> None:
    tokens = [token(235, name="USDE"), token(0, name="USDC")]
    answer = json.dumps({"universe": [], "tokens": tokens}).encode()
    listed = BUILDER.listing.read([METAS, answer])
    assert {name: (each.quote, each.settle) for name, each in listed.known.items()} == {
        "xyz:TSLA": ("USDC", "USDC"), "xyz:OLD": ("USDC", "USDC"), "hyna:BTC": ("USDE", "USDE"),
    }  # fmt: skip
    assert (listed.unreadable, listed.nameless) == ({}, 0)


def test_a_token_that_nobody_names_leaves_the_coins_without_a_quote_and_guesses_none() -> None:
    metas = [None, {"universe": [{"name": "a:B", "szDecimals": 1}]}]
    answer = json.dumps({"universe": [], "tokens": [token(0, name="USDC")]}).encode()
    for body in (json.dumps(metas).encode(), METAS.replace(b"235", b"77")):
        listed = BUILDER.listing.read([body, answer])
        assert {each.quote for each in listed.known.values()} <= {"", "USDC"}
    found: Instrument = BUILDER.listing.read([json.dumps(metas).encode(), answer]).known["a:B"]
    assert (found.quote, found.settle, found.base) == ("", "", "B")


def test_the_tokens_are_asked_for_beside_the_metas() -> None:
    (call,) = BUILDER.listing.others
    assert json.loads(call.body) == {"type": "spotMeta"}


@pytest.mark.parametrize(
    ("tokens", "why"),
    [
        ([token(0)], "tokens: none that can be read has index 150"),
        ([token(0), token(150, szDecimals=9)], "tokens: none that can be read has index 150"),
        ([token(0), token(150, name="a\x00b")], "tokens: none that can be read has index 150"),
        ([token(0), "T150"], "tokens: none that can be read has index 150"),
    ],
)
def test_a_token_that_cannot_be_read_costs_its_pairs_alone(tokens: list[Any], why: str) -> None:
    universe = [{"name": "@107", "tokens": [150, 0]}, {"name": "@9", "tokens": [0, 0]}]
    listed = spot_meta(universe=universe, tokens=tokens)
    assert listed.known.keys() == {"@9"}
    assert listed.unreadable == {"@107": why}


def test_places_in_the_lists_mean_nothing() -> None:
    meta = json.loads(SPOT_META)
    listed = spot_meta(universe=meta["universe"][::-1], tokens=meta["tokens"][::-1])
    assert dict(listed.known) == dict(SPOT.listing.read([SPOT_META]).known)
