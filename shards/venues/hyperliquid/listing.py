"""What Hyperliquid lists: the coins of its own dex, those of builders' dexes, and pairs of tokens.

There is no fixed tick: prices have five significant figures, and decimals that follow from
`szDecimals`, so `tick_size` stays empty. All are sold by the coin: a contract is one of it.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import msgspec

from engine.data.instrument import Instrument, InstrumentKind, InstrumentState, SizeUnit
from shards.venues.bad_frames import BAD_FRAME
from shards.venues.hyperliquid.messages import (
    PERP_DECIMALS,
    SPOT_DECIMALS,
    Coin,
    Pair,
    PerpMeta,
    SpotMeta,
    Token,
    Universe,
)
from shards.venues.kit import ListingCalls, RestCall
from shards.venues.listing import Listing, RowReader, joined

PERP_NAME: Final = "hyperliquid_perp"
BUILDER_NAME: Final = "hyperliquid_builder"
SPOT_NAME: Final = "hyperliquid_spot"

_USDC: Final = "USDC"
_DEX_SEPARATOR: Final = ":"
_decode_meta = msgspec.json.Decoder(Universe).decode
_decode_perp_metas = msgspec.json.Decoder(list[PerpMeta | None]).decode
_decode_spot_meta = msgspec.json.Decoder(SpotMeta).decode
_decode_token = msgspec.json.Decoder(Token).decode
_coins = RowReader(Coin, "name")
_pairs = RowReader(Pair, "name")


def _info(kind: str) -> RestCall:
    return RestCall("POST", "/info", weight=20, body=f'{{"type":"{kind}"}}')


_SPOT_META: Final = _info("spotMeta")


def parse_meta(body: bytes) -> Listing:
    """Coins of the venue's own dex, by name."""
    rows = _decode_meta(body).universe
    return _coins.read(rows, lambda coin: _perpetual(PERP_NAME, coin, coin.name, _USDC))


def parse_perp_metas(body: bytes) -> Listing:
    """Coins of builders' dexes, by name; what they are margined in says another answer."""
    return _of_builders(_decode_perp_metas(body), {})


def parse_builders(pages: Sequence[bytes]) -> Listing:
    """The same with the tokens: answers to `allPerpMetas` and `spotMeta`."""
    metas, spot_meta = pages
    tokens = _tokens(_decode_spot_meta(spot_meta).tokens)
    return _of_builders(_decode_perp_metas(metas), tokens)


def _of_builders(metas: Iterable[PerpMeta | None], tokens: Mapping[int, Token]) -> Listing:
    return joined(_of_dex(meta, tokens) for meta in metas if meta is not None)


def _of_dex(meta: PerpMeta, tokens: Mapping[int, Token]) -> Listing:
    """Coins of one dex; none of the first, whose names have no dex before them."""
    token = tokens.get(-1 if meta.collateralToken is None else meta.collateralToken)
    margin = token.name if token is not None else ""

    def make(coin: Coin) -> Instrument:
        base = coin.name.partition(_DEX_SEPARATOR)[2]
        return _perpetual(BUILDER_NAME, coin, base, margin)

    found = _coins.read(meta.universe, make)
    known = {name: each for name, each in found.known.items() if _DEX_SEPARATOR in name}
    unreadable = {name: why for name, why in found.unreadable.items() if _DEX_SEPARATOR in name}
    return Listing(known, unreadable, found.nameless)


def parse_spot_meta(body: bytes) -> Listing:
    """Pairs by the name that the wire has: `@107`, and `PURR/USDC` of the one that has another."""
    meta = _decode_spot_meta(body)
    tokens = _tokens(meta.tokens)
    return _pairs.read(meta.universe, lambda pair: _pair(pair, tokens))


def _tokens(rows: Iterable[msgspec.Raw]) -> dict[int, Token]:
    """Tokens by index. One that cannot be read costs the pairs it is in."""
    found = {}
    for row in rows:
        try:
            token = _decode_token(row)
        except BAD_FRAME:
            continue
        found[token.index] = token
    return found


def _pair(pair: Pair, tokens: Mapping[int, Token]) -> Instrument:
    base, quote = (_token(index, tokens) for index in pair.tokens)
    return Instrument(
        venue=SPOT_NAME,
        symbol=pair.name,
        price_decimals=SPOT_DECIMALS - base.szDecimals,
        qty_decimals=base.szDecimals,
        base=base.name,
        quote=quote.name,
        lot_size=_lot(base.szDecimals),
        # A pair has no status: those that are listed trade.
        state=InstrumentState.TRADING,
        kind=InstrumentKind.SPOT,
        settle=quote.name,
        contract_unit=SizeUnit.BASE,
    )


def _token(index: int, tokens: Mapping[int, Token]) -> Token:
    token = tokens.get(index)
    if token is None:
        raise ValueError(f"tokens: none that can be read has index {index}")
    return token


def _perpetual(venue: str, coin: Coin, base: str, margin: str) -> Instrument:
    return Instrument(
        venue=venue,
        symbol=coin.name,
        price_decimals=PERP_DECIMALS - coin.szDecimals,
        qty_decimals=coin.szDecimals,
        base=base,
        quote=margin,
        lot_size=_lot(coin.szDecimals),
        status="DELISTED" if coin.isDelisted else "TRADING",
        state=InstrumentState.DELISTED if coin.isDelisted else InstrumentState.TRADING,
        kind=InstrumentKind.PERPETUAL,
        settle=margin,
        contract_unit=SizeUnit.BASE,
    )


def _lot(decimals: int) -> str:
    return f"{10.0**-decimals:.{decimals}f}"


PERP_LISTING: Final = ListingCalls(_info("meta"), parse_meta)
BUILDER_LISTING: Final = ListingCalls(
    _info("allPerpMetas"), parse_perp_metas, others=(_SPOT_META,), together=parse_builders
)
SPOT_LISTING: Final = ListingCalls(_SPOT_META, parse_spot_meta)
