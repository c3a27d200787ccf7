"""The vectorised renderer writes exactly what a plain JSON printer would."""

import json
from collections.abc import Callable
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from shards.simulator.core.frames import Trades, decimal_text, render, text_frame, trimmed_text
from shards.simulator.core.market import SIZE_COUNT, Grid
from shards.simulator.venues.binance.linear import Binance
from shards.simulator.venues.binance.markets import BinanceInverse, BinanceSpot
from shards.simulator.venues.hyperliquid import CoinTradeRows, Hyperliquid, size_text
from shards.simulator.venues.listed import hyperliquid_instruments

MARKETS = [
    (encoder, grid)
    for encoder in (Binance(), BinanceInverse(), BinanceSpot())
    for grid in encoder.grids(60)
]
COINS = hyperliquid_instruments(60)
SEEDS = st.integers(0, 2**32)
COUNTS = st.sampled_from([1, 2, 40, 41, 49, 50, 51, 99, 100, 101, 257])
TIMES = st.integers(10**12, 10**13 - 1)


def sizes(rng: np.random.Generator) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    plain = rng.integers(1, 10 ** rng.integers(1, 8), SIZE_COUNT)
    return plain + rng.integers(0, 5, SIZE_COUNT), plain


def state(
    encoder: Binance | Hyperliquid, grid: Grid, all_qty: NDArray[np.int64],
    plain: NDArray[np.int64],
) -> Any:  # fmt: skip
    """What of a symbol its rows are made of."""
    market = SimpleNamespace(sizes=all_qty, plain_sizes=plain)
    texts = {"qty_text": lambda qty: encoder.qty_text(grid, qty)}
    return SimpleNamespace(grid=grid, market=market, rng=np.random.default_rng(7), **texts)


def prices(encoder: Binance | Hyperliquid, grid: Grid) -> Callable[[int], str]:
    return lambda tick: encoder.price_text(grid, tick)


def compact(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(MARKETS), SEEDS, COUNTS, TIMES, st.integers(9, 11), st.booleans())
def test_a_block_of_agg_trades_equals_frames_printed_by_json(
    market: tuple[Binance, Grid], seed: int, count: int, ts_ms: int, digits: int, combined: bool
) -> None:
    encoder, instrument = market
    rng = np.random.default_rng(seed)
    all_qty, plain_qty = sizes(rng)
    first_id = int(rng.integers(10**digits - 60, 10**digits + 60))
    fills = rng.integers(1, 9, count)
    last_raw = first_id * 2 + fills.cumsum() - 1
    trades = Trades(
        ts_ms=ts_ms,
        serial=0,
        ids=np.arange(first_id, first_id + count),
        ticks=rng.integers(instrument.low_ticks, instrument.low_ticks + 3000, count),
        size=rng.integers(0, SIZE_COUNT, count),
        buy=rng.random(count) < 0.5,
        first_raw=last_raw - fills + 1,
        last_raw=last_raw,
    )
    expected = b""
    for row in range(count):
        size = trades.size[row]
        data: dict[str, Any] = {
            "e": "aggTrade",
            "E": ts_ms,
            "s": instrument.symbol,
            "a": first_id + row,
            "p": decimal_text(int(trades.ticks[row]) * instrument.tick, instrument.price_decimals),
            "q": decimal_text(int(all_qty[size]), instrument.qty_decimals),
            "nq": decimal_text(int(plain_qty[size]), instrument.qty_decimals),
            "f": int(trades.first_raw[row]),
            "l": int(trades.last_raw[row]),
            "T": ts_ms,
            "m": not trades.buy[row],
        }
        match encoder:
            case BinanceSpot():
                del data["nq"]
                data |= {name: f"{Decimal(data[name]):.8f}" for name in ("p", "q")} | {"M": True}
            case BinanceInverse():
                del data["nq"]
                data["st"] = 2
            case _:
                data["st"] = 1
        wrapped = {"stream": f"{instrument.symbol.lower()}@aggTrade", "data": data}
        expected += text_frame(compact(wrapped if combined else data).encode())
    symbol = state(encoder, instrument, all_qty, plain_qty)
    rows = encoder.trade_rows(symbol, prices(encoder, instrument))
    stream = f'{{"stream":"{instrument.symbol.lower()}@aggTrade","data":'.encode()
    wrap = (stream, b"}") if combined else (b"", b"")
    assert bytes(render(rows, trades, wrap)) == expected


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(COINS), SEEDS, COUNTS, TIMES)
def test_a_block_of_coin_trades_equals_frames_printed_by_json(
    instrument: Grid, seed: int, count: int, ts_ms: int
) -> None:
    rng = np.random.default_rng(seed)
    all_qty, plain_qty = sizes(rng)
    trades = Trades(
        ts_ms=ts_ms,
        serial=int(rng.integers(0, 2**40)),
        ids=rng.integers(10**14, 10**15, count),
        ticks=rng.integers(instrument.low_ticks, instrument.low_ticks + 3000, count),
        size=rng.integers(0, SIZE_COUNT, count),
        buy=rng.random(count) < 0.5,
        first_raw=np.arange(count),
        last_raw=np.arange(count),
    )
    encoder = Hyperliquid()
    symbol = state(encoder, instrument, all_qty, plain_qty)
    writer = CoinTradeRows(symbol, prices(encoder, instrument))
    frames = render(writer, trades, (b"", b""))
    payloads = [json.loads(payload) for payload in split_frames(bytes(frames))]
    assert all(len(payload["data"]) <= writer.rows_per_frame for payload in payloads)
    rows = [row for payload in payloads for row in payload["data"]]
    assert b"".join(text_frame(compact(payload).encode()) for payload in payloads) == frames
    assert [json.loads(writer.row(trade)) for trade in trades.each()] == rows
    assert len(rows) == count
    for number, row in enumerate(rows):
        assert list(row) == ["coin", "side", "px", "sz", "time", "hash", "tid", "users"]
        assert row["coin"] == instrument.symbol
        assert row["side"] == ("B" if trades.buy[number] else "A")
        assert row["px"] == trimmed_text(int(trades.ticks[number]), instrument.price_decimals)
        assert row["sz"] == size_text(int(all_qty[trades.size[number]]), instrument.qty_decimals)
        assert (row["time"], row["tid"]) == (ts_ms, trades.ids[number])
        assert len(bytes.fromhex(row["hash"][2:])) == 32
        assert [len(bytes.fromhex(user[2:])) for user in row["users"]] == [20, 20]


def split_frames(content: bytes) -> list[bytes]:
    payloads = []
    while content:
        assert content[0] == 0x81
        size, start = content[1], 2
        if size == 126:
            size, start = int.from_bytes(content[2:4], "big"), 4
        payloads.append(content[start : start + size])
        content = content[start + size :]
    return payloads


def test_hyperliquid_prices_keep_five_significant_figures_and_the_decimals_rule() -> None:
    for coin in COINS:
        for ticks in (coin.low_ticks - 700, coin.start_ticks, coin.high_ticks + 700):
            text = trimmed_text(ticks, coin.price_decimals)
            value = Decimal(text)
            if value == int(value):
                continue
            assert len(value.normalize().as_tuple().digits) <= 5, text
            assert -int(value.normalize().as_tuple().exponent) <= 6 - coin.qty_decimals, text
    assert trimmed_text(81234, 0) == "81234.0"
    assert trimmed_text(31230, 1) == "3123.0"
    assert size_text(1250, 5) == "0.01250"
