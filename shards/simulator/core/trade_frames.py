"""The two venues' trade messages, rendered one at a time or thousands at once.

Both ways give the same bytes. One at a time is cheaper below a few dozen rows.
"""

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from shards.simulator.core.frames import (
    PAD,
    PriceTexts,
    TextTable,
    decimal_columns,
    hex_columns,
    paste,
    text_frame,
)
from shards.simulator.core.instruments import Grid, decimal_text, trimmed_text

__all__ = [
    "ROWS_PER_FRAME",
    "AggTradeRenderer",
    "AggTrades",
    "CoinTradeRenderer",
    "CoinTrades",
    "size_text",
]

ROWS_PER_FRAME = 50
"""Trades in one Hyperliquid frame at most; keeps its length in the 16-bit form."""

_PLAIN_ROWS = 40
_ROW_ENDS = ord("]"), ord("}")

Integers: TypeAlias = NDArray[np.int64]


@dataclass(slots=True)
class AggTrades:
    """Consecutive aggregate trades of one Binance symbol, all of one millisecond."""

    ts_ms: int
    first_id: int
    ticks: Integers
    size: Integers
    buy: NDArray[np.bool_]
    first_raw: Integers
    last_raw: Integers


class AggTradeRenderer:
    """Renders `aggTrade` frames of one symbol, bare or in the combined-stream wrapper."""

    def __init__(
        self, instrument: Grid, sizes: Integers, plain_sizes: Integers, *, combined: bool
    ) -> None:
        symbol = instrument.symbol
        stream = f'{{"stream":"{symbol.lower()}@aggTrade","data":' if combined else ""
        self._head = stream + '{"e":"aggTrade","E":'
        self._symbol = f',"s":"{symbol}","a":'
        close = "}" if combined else ""
        self._tails = (f'false,"st":1}}{close}', f'true,"st":1}}{close}')
        self._tail_table = TextTable([text.encode() for text in self._tails])
        decimals = instrument.qty_decimals
        self._sizes = [
            f'","q":"{decimal_text(qty, decimals)}","nq":"{decimal_text(plain, decimals)}","f":'
            for qty, plain in zip(sizes.tolist(), plain_sizes.tolist(), strict=True)
        ]
        self._size_table = TextTable([text.encode() for text in self._sizes])
        scale, price_decimals = instrument.tick, instrument.price_decimals

        def price_text(tick: int) -> str:
            return decimal_text(tick * scale, price_decimals)

        self._price_text = price_text
        self._prices = PriceTexts(self._price_text)

    def render(self, trades: AggTrades) -> bytes | memoryview:
        """Render every trade as a frame of its own, in order."""
        if len(trades.ticks) <= _PLAIN_ROWS:
            return self._render_each(trades)
        last_id = trades.first_id + len(trades.ticks) - 1
        widths_vary = (
            len(str(trades.first_id)) != len(str(last_id))
            or len(str(trades.first_raw[0])) != len(str(trades.first_raw[-1]))
            or len(str(trades.last_raw[0])) != len(str(trades.last_raw[-1]))
        )
        return self._render_each(trades) if widths_vary else self._render_block(trades)

    def _render_each(self, trades: AggTrades) -> bytes:
        frames = []
        head = f"{self._head}{trades.ts_ms}{self._symbol}"
        price_text, sizes, tails = self._price_text, self._sizes, self._tails
        columns = zip(
            trades.ticks.tolist(),
            trades.size.tolist(),
            trades.buy.tolist(),
            trades.first_raw.tolist(),
            trades.last_raw.tolist(),
            strict=True,
        )
        for trade_id, (tick, size, buy, first, last) in enumerate(columns, trades.first_id):
            # "m" says that the buyer was the maker: true when the taker sold.
            payload = (
                f'{head}{trade_id},"p":"{price_text(tick)}{sizes[size]}{first},"l":{last},'
                f'"T":{trades.ts_ms},"m":{tails[not buy]}'
            )
            frames.append(text_frame(payload.encode()))
        return b"".join(frames)

    def _render_block(self, trades: AggTrades) -> memoryview:
        count = len(trades.ticks)
        id_width = len(str(trades.first_id))
        raw_width, last_width = len(str(trades.first_raw[0])), len(str(trades.last_raw[0]))
        before_id = f"\x7e\x7e\x7e\x7e{self._head}{trades.ts_ms}{self._symbol}".encode()
        head = np.frombuffer(before_id + b"0" * id_width + b',"p":"', np.uint8)
        foot_text = f'{"0" * raw_width},"l":{"0" * last_width},"T":{trades.ts_ms},"m":'
        foot = np.frombuffer(foot_text.encode(), np.uint8)
        maker = (~trades.buy).astype(np.int64)
        price_rows = self._prices.rows_of(trades.ticks)
        prices = self._prices.table
        price_end = head.size + prices.lengths[price_rows]
        size_end = price_end + self._size_table.lengths[trades.size]
        foot_end = size_end + foot.size
        lengths = foot_end + self._tail_table.lengths[maker]
        ends = lengths.cumsum()
        starts = ends - lengths

        heads = np.empty((count, head.size), np.uint8)
        heads[:] = head
        heads[:, 0], heads[:, 1] = 0x81, 126
        payloads = lengths - 4
        heads[:, 2], heads[:, 3] = payloads >> 8, payloads & 0xFF
        ids = np.arange(trades.first_id, trades.first_id + count)
        heads[:, len(before_id) : len(before_id) + id_width] = decimal_columns(ids, id_width)
        feet = np.empty((count, foot.size), np.uint8)
        feet[:] = foot
        feet[:, :raw_width] = decimal_columns(trades.first_raw, raw_width)
        last_at = raw_width + 5
        feet[:, last_at : last_at + last_width] = decimal_columns(trades.last_raw, last_width)

        total = int(ends[-1])
        buffer = np.empty(total + PAD, np.uint8)
        paste(buffer, starts + foot_end, self._tail_table.rows[maker])
        paste(buffer, starts, _segments(heads))
        paste(buffer, starts + head.size, prices.rows[price_rows])
        paste(buffer, starts + price_end, self._size_table.rows[trades.size])
        paste(buffer, starts + size_end, _segments(feet))
        return buffer.data[:total]


@dataclass(slots=True)
class CoinTrades:
    """Trades of one Hyperliquid coin, all of one millisecond."""

    ts_ms: int
    ticks: Integers
    size: Integers
    buy: NDArray[np.bool_]
    tid: Integers
    """Fifteen digits each."""
    serial: Integers
    """Position in the coin's tape; picks hash and users."""


class CoinTradeRenderer:
    """Renders Hyperliquid `trades` rows and frames of one coin."""

    FRAME_HEAD = b'{"channel":"trades","data":['

    def __init__(self, instrument: Grid, sizes: Integers, rng: np.random.Generator) -> None:
        decimals = instrument.price_decimals

        def price_text(tick: int) -> str:
            return trimmed_text(tick, decimals)

        self._price_text = price_text
        self._prices = PriceTexts(self._price_text)
        self._coin = f'{{"coin":"{instrument.symbol}","side":"'
        self._sizes = [
            f'","sz":"{size_text(qty, instrument.qty_decimals)}' for qty in sizes.tolist()
        ]
        self._size_table = TextTable([text.encode() for text in self._sizes])
        self._hashes = [rng.bytes(28).hex() for _ in range(256)]
        traders = [rng.bytes(20).hex() for _ in range(64)]
        pairs = rng.integers(0, 64, (256, 2)).tolist()
        self._users = [f'"0x{traders[buyer]}","0x{traders[seller]}"' for buyer, seller in pairs]
        self._hash_rows = np.array([text.encode() for text in self._hashes], "V56")
        self._user_rows = np.array([text.encode() for text in self._users], "V89")

    def rows(self, trades: CoinTrades) -> list[bytes]:
        """Render every trade as a JSON object of its own."""
        columns = zip(
            trades.ticks.tolist(),
            trades.size.tolist(),
            trades.buy.tolist(),
            trades.tid.tolist(),
            trades.serial.tolist(),
            strict=True,
        )
        return [
            (
                f'{self._coin}{"B" if buy else "A"}","px":"{self._price_text(tick)}'
                f'{self._sizes[size]}","time":{trades.ts_ms},'
                f'"hash":"0x{serial & 0xFFFFFFFF:08x}{self._hashes[serial & 255]}",'
                f'"tid":{tid},"users":[{self._users[serial & 255]}]}}'
            ).encode()
            for tick, size, buy, tid, serial in columns
        ]

    @classmethod
    def frame(cls, rows: list[bytes]) -> bytes:
        """Put rows into one frame."""
        return text_frame(cls.FRAME_HEAD + b",".join(rows) + b"]}")

    def render(self, trades: CoinTrades, keep: int) -> tuple[bytes | memoryview, list[bytes]]:
        """Render all trades as frames; give the last `keep` rows back as well."""
        if len(trades.ticks) <= _PLAIN_ROWS:
            rows = self.rows(trades)
            return self.frame(rows), rows[-keep:]
        return self._render_block(trades, keep)

    def _feet(self, trades: CoinTrades) -> NDArray[np.uint8]:
        text = f'","time":{trades.ts_ms},"hash":"0x'
        blank = f'{text}{"0" * 64}","tid":{"0" * 15},"users":[{"0" * 89}]}},'
        feet = np.empty((len(trades.ticks), len(blank)), np.uint8)
        feet[:] = np.frombuffer(blank.encode(), np.uint8)
        at = len(text)
        feet[:, at : at + 8] = hex_columns(trades.serial & 0xFFFFFFFF)
        pool = trades.serial & 255
        feet[:, at + 8 : at + 64] = self._hash_rows[pool].view(np.uint8).reshape(-1, 56)
        at += 64 + len('","tid":')
        feet[:, at : at + 15] = decimal_columns(trades.tid, 15)
        at += 15 + len(',"users":[')
        feet[:, at : at + 89] = self._user_rows[pool].view(np.uint8).reshape(-1, 89)
        return feet

    def _render_block(self, trades: CoinTrades, keep: int) -> tuple[memoryview, list[bytes]]:
        count = len(trades.ticks)
        head = np.frombuffer(f'{self._coin}B","px":"'.encode(), np.uint8)
        heads = np.empty((count, head.size), np.uint8)
        heads[:] = head
        heads[:, len(self._coin)] = np.where(trades.buy, ord("B"), ord("A"))
        feet = self._feet(trades)
        price_rows = self._prices.rows_of(trades.ticks)
        prices = self._prices.table
        price_end = head.size + prices.lengths[price_rows]
        size_end = price_end + self._size_table.lengths[trades.size]
        lengths = size_end + feet.shape[1]

        # Between frames: one byte "}" that closes the last, then header and start of the next.
        first_rows = np.arange(0, count, ROWS_PER_FRAME)
        frame_count = len(first_rows)
        head_size = 4 + len(self.FRAME_HEAD)
        frame_of_row = np.arange(count) // ROWS_PER_FRAME
        starts = lengths.cumsum() - lengths + (frame_of_row + 1) * head_size + frame_of_row
        payloads = np.add.reduceat(lengths, first_rows) + len(self.FRAME_HEAD) + 1
        frame_heads = np.empty((frame_count, head_size), np.uint8)
        frame_heads[:] = np.frombuffer(b"\x81\x7e\x00\x00" + self.FRAME_HEAD, np.uint8)
        frame_heads[:, 2], frame_heads[:, 3] = payloads >> 8, payloads & 0xFF

        total = int(starts[-1] + lengths[-1]) + 1
        buffer = np.empty(total + PAD, np.uint8)
        paste(buffer, starts, _segments(heads))
        paste(buffer, starts + head.size, prices.rows[price_rows])
        paste(buffer, starts + price_end, self._size_table.rows[trades.size])
        paste(buffer, starts + size_end, _segments(feet))
        frame_starts = starts[first_rows] - head_size
        paste(buffer, frame_starts, _segments(frame_heads))
        closes = frame_starts + 4 + payloads - 2
        buffer[closes], buffer[closes + 1] = _ROW_ENDS
        view = buffer.data[:total]
        last = zip(starts[-keep:].tolist(), lengths[-keep:].tolist(), strict=True)
        return view, [bytes(view[at : at + size - 1]) for at, size in last]


def size_text(mantissa: int, decimals: int) -> str:
    """Print a size as Hyperliquid does: szDecimals decimals, but always at least one."""
    return decimal_text(mantissa, decimals) if decimals else f"{mantissa}.0"


def _segments(matrix: NDArray[np.uint8]) -> NDArray[np.void]:
    """See each row of a byte matrix as one element."""
    return matrix.view(f"V{matrix.shape[1]}")[:, 0]
