"""What is suggested for a symbol nobody lists is what was meant, or nothing."""

import pytest

from engine.streams.near_names import near_names

LISTED = (
    "BTCUSDT", "BTCUSDC", "BTCUSDT_260327", "BTCDOMUSDT", "ETHUSDT", "ETHBTC", "SOLUSDT",
    "LTCUSDT", "DOGEUSDT", "1000PEPEUSDT", "1000000MOGUSDT", "kPEPE", "SOL", "币安人生USDT",
)  # fmt: skip


@pytest.mark.parametrize(
    ("symbol", "meant"),
    [
        ("btcusdt", ["BTCUSDT"]),
        ("BTC-USDT", ["BTCUSDT"]),
        ("sol/usdt", ["SOLUSDT"]),
        ("KPEPE", ["kPEPE"]),
        ("PEPEUSDT", ["1000PEPEUSDT"]),
        ("MOGUSDT", ["1000000MOGUSDT"]),
        ("BTCUSD", ["BTCUSDC", "BTCUSDT", "BTCUSDT_260327"]),
        ("BTC", ["BTCUSDC", "BTCUSDT", "BTCDOMUSDT"]),
        ("SOLUSD", ["SOLUSDT"]),
        ("SOL-PERP", ["SOL"]),
        ("BTCUSTD", ["BTCUSDT", "BTCUSDC"]),
        ("ETHUSTD", ["ETHUSDT"]),
        ("DOGUSDT", ["DOGEUSDT"]),
        ("PEPE", ["kPEPE"]),
        ("币安人生", ["币安人生USDT"]),
        ("XRPUSDT", []),
        ("NOTHING", []),
        ("---", []),
    ],
)  # fmt: skip
def test_what_was_meant_comes_first_and_nothing_else(symbol: str, meant: list[str]) -> None:
    assert near_names(symbol, LISTED) == meant
