"""What venues send of one market, of any size: the same trades and levels in the words of each.

Numbers have as many digits as a busy market's of that venue. Messages are numbered and timed as its
decoder wants them, so that nothing but the common case is measured.
"""

import json
import zlib
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

import numpy as np

BEGIN_MS: Final = 1_795_000_000_000
_ORDER: Final = "27fff20b-af29-4f45-8744-56dd1ef57dc0"
Side = list[tuple[float, float]]


class Market(NamedTuple):
    """A market and its messages: `trades` (number of the first, how many), `book` (number of the
    message from 1 on, levels), of which the first is whole.
    """

    venue: str
    symbol: str
    trades: Callable[[int, int], bytes]
    book: Callable[[int, int], bytes]
    batch: int = 10
    """Trades of a message that has many; 1 where the venue never sends several."""
    levels_max: int = 100


def compact(message: Any) -> bytes:
    """JSON without blanks, as venues write it."""
    return json.dumps(message, separators=(",", ":")).encode()


def moment(number: int) -> str:
    """A time of its own for each number, to the µs."""
    minutes, us = divmod(number, 60_000_000)
    return f"2026-11-22T10:{minutes:02d}:{us // 1_000_000:02d}.{us % 1_000_000:06d}Z"


def sides(number: int, levels: int) -> tuple[Side, Side]:
    """Bids and asks: so many levels together, with quantities that the number changes."""
    bids = [(81234.5 - i, 0.001 * (1 + i + number % 500)) for i in range((levels + 1) // 2)]
    asks = [(81235.5 + i, 0.001 * (1 + i + number % 500)) for i in range(levels // 2)]
    return bids, asks


def texts(side: Side, decimals: tuple[int, int], *more: str) -> list[list[str]]:
    """Levels as lists of texts."""
    return [[f"{p:.{decimals[0]}f}", f"{q:.{decimals[1]}f}", *more] for p, q in side]


def binance_trades(first: int, count: int) -> bytes:
    assert count == 1
    return (
        b'{"e":"aggTrade","E":1795000000120,"s":"BTCUSDT","a":%d,"p":"81234.50","q":"0.250",'
        b'"nq":"0.200","f":8100000101,"l":8100000104,"T":1795000000015,"m":true,"st":1}' % first
    )


def binance_book(number: int, levels: int) -> bytes:
    bids, asks = (texts(side, (2, 3)) for side in sides(number, levels))
    return compact(
        {
            "e": "depthUpdate", "E": 1795000000130, "T": 1795000000128, "s": "BTCUSDT",
            "U": number * 10, "u": number * 10 + 9, "pu": number * 10 - 1,
            "b": bids, "a": asks, "st": 1,
        }
    )  # fmt: skip


def hyperliquid_trades(first: int, count: int) -> bytes:
    rows = ",".join(
        '{"coin":"BTC","side":"B","px":"81234.0","sz":"0.01250","time":1795000000123,'
        f'"hash":"0x{"0" * 64}","tid":{tid * 7919},"users":["0x{"a" * 40}","0x{"b" * 40}"]}}'
        for tid in range(first, first + count)
    )
    return b'{"channel":"trades","data":[%b]}' % rows.encode()


def hyperliquid_book(number: int, levels: int) -> bytes:
    said = [
        [{"px": p, "sz": q, "n": 4} for p, q in texts(side, (1, 5))]
        for side in sides(number, levels)
    ]
    data = {"coin": "BTC", "time": BEGIN_MS + number, "levels": said}
    return compact({"channel": "l2Book", "data": data})


def bybit_trades(first: int, count: int) -> bytes:
    def row(number: int) -> str:
        text = np.random.default_rng(number).bytes(16).hex()
        name = "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))
        return (
            f'{{"T":{BEGIN_MS},"s":"BTCUSDT","S":"Buy","v":"0.010","p":"81234.50",'
            f'"L":"ZeroPlusTick","i":"{name}","BT":false,"RPI":false,"seq":530400001240}}'
        )

    rows = ",".join(row(number) for number in range(first, first + count))
    head = f'{{"topic":"publicTrade.BTCUSDT","type":"snapshot","ts":{BEGIN_MS},"data":['
    return f"{head}{rows}]}}".encode()


def bybit_book(number: int, levels: int) -> bytes:
    bids, asks = (texts(side, (2, 3)) for side in sides(number, levels))
    data = {"s": "BTCUSDT", "b": bids, "a": asks, "u": number, "seq": 530400001234}
    form = "snapshot" if number == 1 else "delta"
    message = {"topic": "orderbook.1000.BTCUSDT", "type": form, "ts": BEGIN_MS, "data": data}
    return compact({**message, "cts": BEGIN_MS})


def kraken_spot_trades(first: int, count: int) -> bytes:
    rows = ",".join(
        '{"symbol":"BTC/USD","side":"buy","price":81234.1,"qty":0.01250000,"ord_type":"market",'
        f'"trade_id":{number},"timestamp":"{moment(number)}"}}'
        for number in range(first, first + count)
    )
    return b'{"channel":"trade","type":"update","data":[%b]}' % rows.encode()


def kraken_spot_book(number: int, levels: int) -> bytes:
    """Changes from the touch on, with the checksum that the book has then: of four messages one
    removes a level, and the next one puts it back.
    """
    qty, steps = 12_500_000 + number % 1000, 100 if number == 1 else (levels + 1) // 2
    bids = {812341 - step: qty for step in range(steps)}
    asks = {812342 + step: 2 * qty for step in range(100 if number == 1 else levels // 2)}
    if number % 4 == 2:
        bids[812341 - steps + 1] = 0
    said = [
        ",".join(f'{{"price":{p / 10:.1f},"qty":{q / 1e8:.8f}}}' for p, q in side.items())
        for side in (bids, asks)
    ]
    whole_bids = {812341 - step: 12_500_001 for step in range(20 + steps)} | bids
    whole_asks = {812342 + step: 25_000_002 for step in range(20)} | asks
    left = [(price, size) for price, size in whole_bids.items() if size]
    best = [*sorted(whole_asks.items())[:10], *sorted(left, reverse=True)[:10]]
    checksum = zlib.crc32("".join(f"{price}{size}" for price, size in best).encode())
    form = "snapshot" if number == 1 else "update"
    return (
        f'{{"channel":"book","type":"{form}","data":[{{"symbol":"BTC/USD","bids":[{said[0]}],'
        f'"asks":[{said[1]}],"checksum":{checksum},"timestamp":"{moment(number)}"}}]}}'
    ).encode()


def kraken_futures_trades(first: int, count: int) -> bytes:
    assert count == 1
    return (
        b'{"feed":"trade","product_id":"PF_XBTUSD","uid":"%b","side":"sell","type":"fill",'
        b'"seq":%d,"time":1795000000111,"qty":0.5,"price":81230.0}' % (_ORDER.encode(), first)
    )


def kraken_futures_book(number: int, levels: int) -> bytes:
    if number == 1:
        return (
            b'{"feed":"book_snapshot","product_id":"PF_XBTUSD","timestamp":1795000000111,"seq":1,'
            b'"tickSize":null,"bids":[],"asks":[]}'
        )
    assert levels == 1
    return (
        b'{"feed":"book","product_id":"PF_XBTUSD","side":"buy","seq":%d,"price":81230.0,'
        b'"qty":6.385,"timestamp":1795000000112}' % number
    )


def coinbase_message(number: int, channel: str, event: object) -> bytes:
    head = {"channel": channel, "client_id": "", "timestamp": moment(number)}
    return compact({**head, "sequence_num": number, "events": [event]})


def coinbase_trades(first: int, count: int) -> bytes:
    rows = [
        {"trade_id": str(number), "product_id": "BTC-USD", "price": "81234.50",
         "size": "0.00150000", "side": "BUY", "time": moment(number)}
        for number in range(first, first + count)
    ]  # fmt: skip
    event = {"type": "update", "trades": rows}
    return coinbase_message(1 + first // count, "market_trades", event)


def coinbase_book(number: int, levels: int) -> bytes:
    updates = [
        {"side": word, "event_time": moment(number), "price_level": p, "new_quantity": q}
        for word, side in zip(("bid", "offer"), sides(number, levels), strict=True)
        for p, q in texts(side, (2, 8))
    ]
    form = "snapshot" if number == 1 else "update"
    event = {"type": form, "product_id": "BTC-USD", "updates": updates}
    return coinbase_message(number, "l2_data", event)


def exchange_trades(first: int, count: int) -> bytes:
    assert count == 1
    return compact(
        {
            "type": "match", "trade_id": first, "maker_order_id": _ORDER, "taker_order_id": _ORDER,
            "side": "sell", "size": "0.0100", "price": "81234.50", "product_id": "BTC-USD",
            "sequence": 98000000123, "time": moment(first),
        }
    )  # fmt: skip


def exchange_book(number: int, levels: int) -> bytes:
    if number == 1:
        return compact({"type": "snapshot", "product_id": "BTC-USD", "bids": [], "asks": []})
    changes = [
        [word, p, q]
        for word, side in zip(("buy", "sell"), sides(number, levels), strict=True)
        for p, q in texts(side, (2, 8))
    ]
    head = {"type": "l2update", "product_id": "BTC-USD", "changes": changes}
    return compact({**head, "time": moment(number)})


def deribit_message(channel: str, data: object) -> bytes:
    params = {"channel": f"{channel}.BTC-PERPETUAL.100ms", "data": data}
    return compact({"jsonrpc": "2.0", "method": "subscription", "params": params})


def deribit_trades(first: int, count: int) -> bytes:
    rows = [
        {"trade_seq": number, "trade_id": str(number), "timestamp": BEGIN_MS, "tick_direction": 1,
         "price": 81234.5, "mark_price": 81236.1, "instrument_name": "BTC-PERPETUAL",
         "index_price": 81240.2, "direction": "buy", "contracts": 5.0, "amount": 50.0}
        for number in range(first, first + count)
    ]  # fmt: skip
    return deribit_message("trades", rows)


def deribit_book(number: int, levels: int) -> bytes:
    bids, asks = (
        [["change", p, 10.0 * (i + 1)] for i, (p, _) in enumerate(side)]
        for side in sides(number, levels)
    )
    data = {
        "type": "change" if number > 1 else "snapshot", "timestamp": BEGIN_MS,
        "instrument_name": "BTC-PERPETUAL", "change_id": number, "prev_change_id": number - 1,
        "bids": bids, "asks": asks,
    }  # fmt: skip
    return deribit_message("book", data)


def okx_trades(first: int, count: int) -> bytes:
    rows = [
        {"instId": "BTC-USDT-SWAP", "tradeId": str(number), "px": "81234.5", "sz": "3",
         "side": "buy", "ts": str(BEGIN_MS), "count": "1", "source": "0", "seqId": 7700012345}
        for number in range(first, first + count)
    ]  # fmt: skip
    return compact({"arg": {"channel": "trades", "instId": "BTC-USDT-SWAP"}, "data": rows})


def okx_book(number: int, levels: int) -> bytes:
    bids, asks = (texts(side, (1, 2), "0", "3") for side in sides(number, levels))
    row = {
        "asks": asks, "bids": bids, "ts": str(BEGIN_MS), "checksum": 0, "seqId": number,
        "prevSeqId": number - 1 if number > 1 else -1,
    }  # fmt: skip
    return compact(
        {
            "arg": {"channel": "books", "instId": "BTC-USDT-SWAP"},
            "action": "update" if number > 1 else "snapshot",
            "data": [row],
        }
    )


def markets() -> Sequence[Market]:
    """One of each venue, Binance's first: the others are held against it."""
    return (
        Market("binance_linear", "BTCUSDT", binance_trades, binance_book, batch=1),
        Market("binance_spot", "BTCUSDT", binance_trades, binance_book, batch=1),
        Market("hyperliquid_perp", "BTC", hyperliquid_trades, hyperliquid_book),
        Market("bybit_linear", "BTCUSDT", bybit_trades, bybit_book),
        Market("okx", "BTC-USDT-SWAP", okx_trades, okx_book, batch=1),
        Market("deribit", "BTC-PERPETUAL", deribit_trades, deribit_book),
        Market("kraken_spot", "BTC/USD", kraken_spot_trades, kraken_spot_book),
        Market(
            "kraken_futures", "PF_XBTUSD", kraken_futures_trades, kraken_futures_book,
            batch=1, levels_max=1,
        ),
        Market("coinbase", "BTC-USD", coinbase_trades, coinbase_book),
        Market("coinbase_exchange", "BTC-USD", exchange_trades, exchange_book, batch=1),
    )  # fmt: skip
