"""Recorded messages of Hyperliquid, single ones of 2024 to 2026."""

import json
from typing import Any

import pytest

from engine.data.names import StreamKind, Transport
from shards.venues import VENUES
from shards.venues.hyperliquid import messages as wire
from shards.venues.kit import Feeds, PollChannel
from tests.shards.doubles import MemoryRings, spec_of
from tests.shards.venues.recordings.sessions import (
    CAPTURES,
    hear,
    ignored,
    messages,
    names_in,
    needs_captures,
    taken,
)

pytestmark = needs_captures

PERP, BUILDER, SPOT = "hyperliquid_perp", "hyperliquid_builder", "hyperliquid_spot"
FOLDERS = ("hyperliquid", "hyperliquid_spot")
TS_RECV = 1_800_000_000_000_000_000
INEXACT = 32
FUNDING, OI = ("funding", "open_interest")


def frame(channel: str, data: Any) -> tuple[int, bytes]:
    return TS_RECV, json.dumps({"channel": channel, "data": data}).encode()


def body(name: str) -> bytes:
    """An answer, which may be a list."""
    return (CAPTURES / name).read_bytes()


def test_a_quote_of_a_pair_is_a_row() -> None:
    frames = [(TS_RECV, each) for each in messages("hyperliquid_spot/ws_bbo.json")]
    heard = hear(SPOT, ["@162"], [StreamKind.TICKER], frames)
    (row,) = heard.double.rows("quote")
    assert [row[name] for name in ("bid", "bid_qty", "ask", "ask_qty")] == [
        0.97925, 4144.6, 0.97934, 50.0,
    ]  # fmt: skip
    assert row["ts_event"] == 1_750_948_919_838_000_000
    assert heard.bad == []


def test_a_book_is_whole_and_best_first() -> None:
    (data,) = map(json.loads, messages("hyperliquid/ws_book_data.json"))
    heard = hear(PERP, ["BTC"], [StreamKind.L2_BOOK], [frame("l2Book", data)])
    rows = heard.double.rows("book")
    assert len(rows) == 10
    assert [(chr(row["side"]), row["price"], row["qty"]) for row in rows[[0, 4, 5, 9]]] == [
        ("b", 98450.5, 2.5), ("b", 98447.5, 1.1), ("a", 98451.0, 1.5), ("a", 98454.0, 2.8),
    ]  # fmt: skip
    assert {row["ts_event"] for row in rows} == {1_703_875_200_000_000_000}
    assert heard.bad == []


def test_an_answered_book_has_the_form_of_a_pushed_one() -> None:
    (data,) = map(json.loads, messages("hyperliquid/http_l2_book_btc.json"))
    heard = hear(PERP, ["BTC"], [StreamKind.L2_BOOK], [frame("l2Book", data)])
    rows = heard.double.rows("book")
    assert (len(rows), rows[0]["price"], rows[5]["price"]) == (10, 110427.0, 110428.0)
    assert heard.bad == []


def test_recent_trades_have_the_form_of_pushed_ones() -> None:
    """Newest first; the rows are in the order of their times."""
    data = json.loads(body("hyperliquid/http_recent_trades_btc.json"))
    heard = hear(PERP, ["BTC"], [StreamKind.TRADES], [frame("trades", data)])
    assert [
        (chr(row["side"]), row["price"], row["qty"], row["trade_id"])
        for row in heard.double.rows("trade")
    ] == [
        ("S", 104300.0, 0.005, 300001), ("B", 104310.5, 0.02, 300002),
        ("S", 104320.0, 0.015, 300003),
    ]  # fmt: skip
    assert heard.bad == []


def contexts() -> list[tuple[str, dict[str, Any]]]:
    """Recorded contexts, by the dex they are of."""
    (message,) = map(json.loads, messages("hyperliquid/ws_all_dexs_asset_ctxs.json"))
    return [(dex, each) for dex, listed in message["data"]["ctxs"] for each in listed]


def test_every_context_is_a_row_each_of_funding_and_open_interest() -> None:
    for number, (dex, ctx) in enumerate(contexts()):
        coin = f"{dex}:C{number}" if dex else f"C{number}"
        sent = frame("activeAssetCtx", {"coin": coin, "ctx": ctx})
        heard = hear(BUILDER if dex else PERP, [coin], [StreamKind.FUNDING_OPEN_INTEREST], [sent])
        (funding,), (interest,) = heard.double.rows(FUNDING), heard.double.rows(OI)
        assert heard.bad == []
        assert (funding["rate"], funding["mark"], funding["index"], interest["qty"]) == tuple(
            float(f"{float(ctx[name]):.15g}")
            for name in ("funding", "markPx", "oraclePx", "openInterest")
        )
        assert funding["interval_s"] == 3600
        digits = len(ctx["openInterest"].replace(".", "").lstrip("0"))
        assert bool(interest["flags"] & INEXACT) is (digits > 15), "the noise of the venue's sums"


def test_a_polled_answer_joins_contexts_to_names_by_position() -> None:
    venue = VENUES[PERP]
    (meta,) = map(json.loads, messages("hyperliquid/http_meta_perp_sample.json"))
    firsts = [ctx for dex, ctx in contexts() if not dex]
    answer = json.dumps([meta, firsts]).encode()
    channel = venue.channels[StreamKind.FUNDING_OPEN_INTEREST, Transport.HTTP_POLL]
    assert isinstance(channel, PollChannel)
    double, feeds, bad = MemoryRings(), Feeds(), []
    for slot, coin in enumerate(("BTC", "ETH", "ATOM"), 1):
        kind = StreamKind.FUNDING_OPEN_INTEREST
        stream = double.feed(spec_of(slot, PERP, coin, kind, Transport.HTTP_POLL), venue)
        stream.subscribed()
        feeds.add(stream)
    channel.decode(answer, feeds, TS_RECV, lambda error, _: bad.append(error))
    assert bad == []
    assert [(row["stream"], row["mark"]) for row in double.rows(FUNDING)] == [
        (1, 77562.0), (2, 2123.7), (3, 2.1315),
    ]  # fmt: skip


def test_the_context_of_a_pair_is_not_subscribed_and_has_no_row() -> None:
    frames = [
        (TS_RECV, each) for each in messages("hyperliquid_spot/ws_active_spot_asset_ctx.json")
    ]
    assert hear(SPOT, ["@2"], [StreamKind.TICKER], frames).bad == ["schema"]


def test_listings_of_all_three_markets_are_read() -> None:
    perps = VENUES[PERP].listing.read([body("hyperliquid/http_meta_perp_sample.json")])
    assert {name: each.qty_decimals for name, each in perps.known.items()} == {
        "BTC": 5, "ETH": 4, "ATOM": 2,
    }  # fmt: skip
    pages = ("all_perp_metas", "spot_meta")
    coins = VENUES[BUILDER].listing.read(
        body(f"hyperliquid/http_{page}_non_usdc_collateral.json") for page in pages
    )
    assert {name: (each.base, each.settle) for name, each in coins.known.items()} == {
        "km:US500": ("US500", "USDH"), "hyna:BTC": ("BTC", "USDE"),
    }  # fmt: skip
    pairs = VENUES[SPOT].listing.read([body("hyperliquid_spot/http_spot_meta.json")])
    (pair,) = pairs.known.values()
    assert (pair.symbol, pair.base, pair.quote) == ("PURR/USDC", "PURR", "USDC")
    assert (pair.price_decimals, pair.qty_decimals) == (8, 0)
    for listed in (perps, coins, pairs):
        assert (listed.unreadable, listed.nameless) == ({}, 0)


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_field_is_taken_or_left_for_a_reason(folder: str) -> None:
    used = taken(
        wire.Trades, wire.L2Book, wire.Bbo, wire.ActiveAssetCtx, wire.SubscriptionResponse,
        wire.Error, wire.Coin, wire.Universe, wire.PerpMeta, wire.Token, wire.Pair, wire.SpotMeta,
    )  # fmt: skip
    left = ignored("hyperliquid")
    for path in sorted((CAPTURES / folder).glob("*.json")):
        found = names_in(json.loads(path.read_bytes()))
        assert found <= used | left, path.name
