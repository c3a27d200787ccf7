"""Which coins builders' dexes list, which pairs of tokens there are, and how they are called."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from shards.simulator.core.market import Grid
from shards.simulator.venues.listed import coin_grid, coin_instrument

__all__ = [
    "DEXES",
    "Pair",
    "builder_instrument",
    "builder_instruments",
    "dex_of",
    "pair_of",
    "spot_instrument",
    "spot_instruments",
    "token_rows",
]

DEXES: Mapping[str, int] = {"": 0, "xyz": 0, "flx": 360, "hyna": 235}
"""Dexes in the order of their numbers, and the token that each is margined in."""

_QUOTES = {0: ("USDC", 8), 235: ("USDE", 2), 360: ("USDH", 2)}
"""Tokens that are a quote or a margin, by index: name and szDecimals."""

# coin, szDecimals, start price
_BUILDER_TABLE: tuple[tuple[str, int, float], ...] = (
    ("xyz:TSLA", 3, 433.77), ("flx:NVDA", 3, 220.68), ("hyna:BTC", 5, 81234.0),
    ("xyz:NVDA", 3, 220.71), ("xyz:XYZ100", 4, 25432.0), ("flx:TSLA", 3, 433.81),
    ("hyna:ETH", 4, 3123.4), ("xyz:GOLD", 4, 4123.4), ("flx:CRCL", 3, 115.81),
    ("hyna:HYPE", 2, 38.765),
)  # fmt: skip

# pair, base token, its index and szDecimals, start price, index of the quote token
_SPOT_TABLE: tuple[tuple[str, str, int, int, float, int], ...] = (
    ("@107", "HYPE", 150, 2, 38.765, 0), ("PURR/USDC", "PURR", 1, 0, 0.22695, 0),
    ("@142", "UBTC", 197, 5, 81234.0, 0), ("@151", "UETH", 221, 4, 3123.4, 0),
    ("@232", "HYPE", 150, 2, 38.754, 360), ("@156", "USOL", 254, 3, 187.42, 0),
    ("@150", "USDE", 235, 2, 0.99934, 0), ("@2", "HFUN", 2, 2, 12.345, 0),
)  # fmt: skip

_NUMBER = re.compile(r"@([1-9][0-9]{0,4})")
_FIRST_SYNTHETIC = 1000
"""Pairs and tokens from this number on are made up."""
_PERP_DECIMALS, _SPOT_DECIMALS = 6, 8
"""A price has at most so many decimals less szDecimals."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A pair by its number and the indexes of its tokens."""

    index: int
    base: str
    token: int
    quote: int


_PAIRS = {
    name: Pair(int(name.removeprefix("@")) if name[0] == "@" else 0, base, token, quote)
    for name, base, token, _, _, quote in _SPOT_TABLE
}


def dex_of(coin: str) -> str:
    """Name the dex of a coin: empty for the first one."""
    return coin.rpartition(":")[0]


def pair_of(name: str) -> Pair:
    """Tell what a name of the wire is a pair of. Raises ValueError where it is no pair's."""
    if name in _PAIRS:
        return _PAIRS[name]
    number = _NUMBER.fullmatch(name)
    if number is None or int(number[1]) < _FIRST_SYNTHETIC:
        raise ValueError(f"a new pair is called @{_FIRST_SYNTHETIC} or more, not {name!r}")
    index = int(number[1])
    return Pair(index, f"SIM{index}", index, 0)


def token_rows(names: Mapping[int, str], sizes: Mapping[int, int]) -> list[dict[str, object]]:
    """Give the tokens by index: the bases with these szDecimals, and what they are quoted in."""
    known = {index: named for index, named in _QUOTES.items() if index not in names}
    known |= {index: (name, sizes[index]) for index, name in names.items()}
    return [
        {"name": name, "szDecimals": decimals, "weiDecimals": 8, "index": index,
         "tokenId": f"0x{index:032x}", "isCanonical": index < 2, "evmContract": None,
         "fullName": None}
        for index, (name, decimals) in sorted(known.items())
    ]  # fmt: skip


def builder_instruments(count: int) -> Sequence[Grid]:
    """List the first `count` coins; past the real names, synthetic ones follow."""
    rows = list(_BUILDER_TABLE[:count])
    rows += [
        (f"xyz:SIM{number:03d}", 2, round(20.0 + (number * 7919 % 6000) / 100.0, 3))
        for number in range(len(rows), count)
    ]
    return tuple(coin_grid(row, rank, _PERP_DECIMALS) for rank, row in enumerate(rows))


def spot_instruments(count: int) -> Sequence[Grid]:
    """List the first `count` pairs; past the real ones, synthetic ones follow."""
    rows = [(name, size, price) for name, _, _, size, price, _ in _SPOT_TABLE[:count]]
    for number in range(len(rows), count):
        price = round(2.0 + (number * 7919 % 6000) / 1000.0, 4)
        rows.append((f"@{_FIRST_SYNTHETIC + number}", 1, price))
    return tuple(coin_grid(row, rank, _SPOT_DECIMALS) for rank, row in enumerate(rows))


def builder_instrument(
    coin: str, price: float, request: Mapping[str, object], now: Grid | None
) -> Grid:
    """Make the coin a request describes. Raises ValueError for a dex that nobody has."""
    if not dex_of(coin) or dex_of(coin) not in DEXES:
        raise ValueError(f"{coin!r} is of no dex; there are {', '.join(filter(None, DEXES))}")
    return coin_instrument(coin, price, request, now)


def spot_instrument(
    name: str, price: float, request: Mapping[str, object], now: Grid | None
) -> Grid:
    """Make the pair a request describes. Raises ValueError for what is no pair's name."""
    pair_of(name)
    return coin_instrument(name, price, request, now, _SPOT_DECIMALS)
