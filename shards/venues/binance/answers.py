"""Binance's REST answers: snapshots, and what is polled, into feeds."""

from typing import Final

import msgspec

from shards.feeds.contracts import FundingRates, OpenInterestPoints, Payment, SettledFunding
from shards.feeds.feed import MalformedFrameError, UntakenError
from shards.venues.bad_frames import BAD_FRAME
from shards.venues.binance.messages import (
    Depth,
    FundingInfo,
    Named,
    OpenInterest,
    PremiumIndex,
    SettledRate,
)
from shards.venues.digits import decoder
from shards.venues.elements import funding_row, take_list, take_one, take_parts
from shards.venues.json_parts import elements, members, text_of
from shards.venues.kit import BookSnapshot, Feeds, OnBadFrame, Shape
from shards.venues.listing import Readings, RowReader
from shards.venues.wire import NS_PER_MS

_decode_depth = msgspec.json.Decoder(Depth, strict=False).decode
_decode_premium_index = decoder(PremiumIndex)
_decode_open_interest = decoder(OpenInterest)
_decode_settled_rate = decoder(SettledRate)
_decode_named = msgspec.json.Decoder(Named).decode
_decode_parts = msgspec.json.Decoder(list[msgspec.Raw]).decode
_funding_rows = RowReader(FundingInfo, "symbol")

PREMIUM_INDEX = Shape(FundingRates, PremiumIndex, symbol="symbol", time="time")
OPEN_INTEREST = Shape(OpenInterestPoints, OpenInterest, symbol="symbol", time="time")
SETTLED_RATE = Shape(SettledFunding, SettledRate, is_list=True, symbol="symbol", time="fundingTime")
_AHEAD_NS: Final = 3_600_000_000_000
"""No clock is so wrong that it says when funding will be paid next."""


def parse_book_snapshot(body: bytes) -> BookSnapshot:
    """`…/depth`; `T` is the matching engine's time of the snapshot, which spot does not say."""
    depth = _decode_depth(body)
    return BookSnapshot(depth.lastUpdateId, depth.T * NS_PER_MS, depth.bids, depth.asks)


def decode_premium_index(body: bytes, feeds: Feeds, ts_recv: int, on_bad_frame: OnBadFrame) -> None:
    """`…/premiumIndex`, of one symbol or of all."""

    def take(_: str | None, part: bytes) -> None:
        state = _decode_premium_index(part)
        feed = feeds.of(FundingRates).get(state.symbol)
        if feed is None:
            raise MalformedFrameError("not_subscribed")
        next_ts = state.nextFundingTime * NS_PER_MS
        row = funding_row(state.lastFundingRate, state.markPrice, state.indexPrice, next_ts)
        feed.on_funding(state.time * NS_PER_MS, ts_recv, row)

    if body.lstrip()[:1] == b"[":
        parts = [(_symbol_of(part), part) for part in _parts(body)]
        take_parts(parts, PREMIUM_INDEX, feeds, ts_recv, on_bad_frame, take)
    else:
        take_one(body, PREMIUM_INDEX, feeds, ts_recv, take)


def _parts(body: bytes) -> list[bytes]:
    try:
        return [bytes(part) for part in _decode_parts(body)]
    except BAD_FRAME:
        parts = elements(body)
        if not any(map(_symbol_of, parts)):
            raise
        return parts


def _symbol_of(part: bytes) -> str | None:
    try:
        return _decode_named(part).symbol
    except BAD_FRAME:
        return text_of(members(part).get("symbol"))


def parse_funding_intervals(body: bytes) -> Readings[int]:
    """`…/fundingInfo`: seconds by symbol."""
    return _funding_rows.read(_decode_parts(body), lambda row: row.fundingIntervalHours * 3600)


def decode_open_interest(body: bytes, feeds: Feeds, ts_recv: int, _: OnBadFrame) -> None:
    """`…/openInterest`."""

    def take(_: str | None, part: bytes) -> None:
        state = _decode_open_interest(part)
        feed = feeds.of(OpenInterestPoints).get(state.symbol)
        if feed is None:
            raise MalformedFrameError("not_subscribed")
        said = state.openInterest
        feed.on_open_interest(state.time * NS_PER_MS, ts_recv, said.value, said.is_exact)

    take_one(body, OPEN_INTEREST, feeds, ts_recv, take)


def decode_settled_rates(body: bytes, feeds: Feeds, ts_recv: int, on_bad_frame: OnBadFrame) -> None:
    """`…/fundingRate` of one symbol since its newest payment, in whatever order. One that lies
    ahead of our clock is left, for it would be the newest, and those before it would not be asked
    for any more: the answer of its time has it again.
    """
    room = feeds.of(SettledFunding)
    found: list[tuple[Payment, SettledFunding]] = []

    def take(_: str | None, part: bytes) -> None:
        said = _decode_settled_rate(part)
        feed, at = room.get(said.symbol), said.fundingTime * NS_PER_MS
        if feed is None:
            raise UntakenError(said.symbol, SettledFunding)
        if at > ts_recv + _AHEAD_NS:
            feed.duplicate_count += 1
            return
        rate, mark = said.fundingRate, said.markPrice
        price = mark.value if mark else 0.0
        is_exact = rate.is_exact and (mark is None or mark.is_exact)
        found.append((Payment(at, said.rateType, rate.value, price, is_exact), feed))

    take_list(body, SETTLED_RATE, feeds, ts_recv, on_bad_frame, take)
    for payment, payer in sorted(found, key=_when):
        payer.on_payment(payment, ts_recv)
    for feed in room.values():
        feed.answered(ts_recv)


def _when(found: tuple[Payment, SettledFunding]) -> int:
    return found[0].ts_event
