"""WebSocket frames, numbers as texts, and trades rendered one at a time or thousands at once.

Both ways of rendering give the same bytes; one at a time is cheaper below a few dozen rows. What a
row looks like is the venue's to say: as a text of one trade, and as the parts of the rows of a
block.

Each part of a block is built for all rows at once, padded to one width, and pasted at its row's
byte offset through a window view of the buffer whose stride is one byte: numpy copies whole
segments, so variable-width rows cost no per-byte mask. The padding of a segment is overwritten by
the next one, therefore the order of pastes matters: a row's last segment goes first, because its
padding falls on the start of the following row.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from itertools import count, repeat
from struct import pack
from typing import NamedTuple, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "Bytes",
    "Integers",
    "Part",
    "PriceTexts",
    "TextTable",
    "Trade",
    "TradeRows",
    "Trades",
    "compact",
    "decimal_columns",
    "decimal_text",
    "hex_columns",
    "iso_text",
    "render",
    "signed_text",
    "text_frame",
    "trimmed_text",
]

PAD = 64
"""Spare bytes a buffer needs after its last row, for the padding of the segments there."""

_SHORT_PAYLOAD = 125
_LONG_PAYLOAD = 65535
_PRICE_MARGIN = 400
_PLAIN_ROWS = 40
_HEADER = b"\x81\x7e\x00\x00"
"""Of a text frame whose length takes the 16-bit form, the length still to be filled in."""

Bytes: TypeAlias = NDArray[np.uint8]
Integers: TypeAlias = NDArray[np.int64]
Texts: TypeAlias = NDArray[np.void]

_DECIMAL = np.frombuffer(b"".join(b"%04d" % value for value in range(10_000)), "<u4")
_HEX = np.frombuffer(np.arange(65_536, dtype=">u2").tobytes().hex().encode(), "<u4")


def text_frame(payload: bytes, opcode: int = 1) -> bytes:
    """Make one final, unmasked frame."""
    size = len(payload)
    if size <= _SHORT_PAYLOAD:
        return pack("!BB", 0x80 | opcode, size) + payload
    if size <= _LONG_PAYLOAD:
        return pack("!BBH", 0x80 | opcode, 126, size) + payload
    return pack("!BBQ", 0x80 | opcode, 127, size) + payload


def compact(value: Mapping[str, object] | list[object]) -> bytes:
    """Print JSON without blanks, as venues do."""
    return json.dumps(value, separators=(",", ":")).encode()


def decimal_text(mantissa: int, decimals: int) -> str:
    """Print `mantissa / 10**decimals` with exactly that many decimals."""
    if decimals == 0:
        return str(mantissa)
    digits = str(mantissa)
    if len(digits) <= decimals:
        digits = digits.zfill(decimals + 1)
    return f"{digits[:-decimals]}.{digits[-decimals:]}"


def signed_text(mantissa: int, decimals: int) -> str:
    """Print a number that may be below zero."""
    text = decimal_text(abs(mantissa), decimals)
    return "-" + text if mantissa < 0 else text


def trimmed_text(mantissa: int, decimals: int) -> str:
    """Print a price as Hyperliquid does: no trailing zeros, but always one decimal."""
    text = decimal_text(mantissa, decimals)
    if "." not in text:
        return text + ".0"
    text = text.rstrip("0")
    return text + "0" if text.endswith(".") else text


@lru_cache(1024)
def iso_text(at_us: int) -> str:
    """Print a time as text: of UTC, with all its microseconds."""
    seconds, fraction = divmod(at_us, 1_000_000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{fraction:06d}Z"


class TextTable:
    """Texts of different lengths, padded to one width, to be gathered by row number."""

    __slots__ = ("lengths", "rows")

    def __init__(self, texts: list[bytes]) -> None:
        """Pad to at least 16 bytes: numpy copies those faster than odd small widths."""
        self.lengths = np.array([len(text) for text in texts], np.int64)
        width = max(16, int(self.lengths.max()))
        assert width <= PAD
        self.rows: Texts = np.array([text.ljust(width) for text in texts], f"V{width}")


class PriceTexts:
    """Texts of the prices around the market, rebuilt when the market walks out of the window."""

    __slots__ = ("_first", "_texts", "_to_text", "table")

    def __init__(self, to_text: Callable[[int], str]) -> None:
        self._to_text = to_text
        self._first = 0
        self._texts: list[bytes] = []
        self.table = TextTable([b""])

    def rows_of(self, ticks: NDArray[np.int64]) -> NDArray[np.int64]:
        """Give the table rows of these prices."""
        rows = ticks - self._first
        if int(rows.min()) < 0 or int(rows.max()) >= len(self._texts):
            self._rebuild(int(ticks.min()), int(ticks.max()))
            rows = ticks - self._first
        return rows

    def _rebuild(self, low: int, high: int) -> None:
        self._first = max(0, low - _PRICE_MARGIN)
        window = range(self._first, high + _PRICE_MARGIN)
        self._texts = [self._to_text(tick).encode() for tick in window]
        self.table = TextTable(self._texts)


def paste(buffer: Bytes, offsets: NDArray[np.int64], segments: Texts) -> None:
    """Copy one fixed-width segment to each offset; later rows win where they overlap."""
    windows = np.ndarray(
        (buffer.size - segments.dtype.itemsize + 1,), segments.dtype, buffer, 0, (1,)
    )
    windows[offsets] = segments


def decimal_columns(values: Integers, width: int) -> Texts:
    """Render integers of at most `width` digits as just so many, one element each."""
    groups = -(-width // 4)
    digits = np.empty((len(values), groups), "<u4")
    for column in range(groups - 1, 0, -1):
        rest = values // 10_000
        digits[:, column] = _DECIMAL.take(values - rest * 10_000)
        values = rest
    digits[:, 0] = _DECIMAL.take(values)
    return _elements(digits.view(np.uint8)[:, 4 * groups - width :])


def hex_columns(values: Integers) -> Texts:
    """Render integers below 2**32 as eight lower-case hexadecimal digits, one element each."""
    digits = np.empty((len(values), 2), "<u4")
    digits[:, 0] = _HEX.take(values >> 16)
    digits[:, 1] = _HEX.take(values & 0xFFFF)
    return _elements(digits.view(np.uint8))


def _elements(matrix: Bytes) -> Texts:
    """See each row of a byte matrix as one element, which numpy copies in one go."""
    return matrix.view(f"V{matrix.shape[1]}")[:, 0]


Part: TypeAlias = "bytes | Texts | tuple[TextTable, Integers]"
"""A piece of all rows: the same text in each, an element of one width for each, or a table of texts
of different lengths and which of them each row has. The texts of a table may differ in length by
less than what follows them up to the next table."""


class Trade(NamedTuple):
    """One trade. Price in ticks; `size` counts in the market's size table."""

    ts_ms: int
    serial: int
    id: int
    tick: int
    size: int
    buy: bool
    first_raw: int
    last_raw: int
    sent: bool = True


@dataclass(slots=True, eq=False)
class Trades:
    """Consecutive trades of one symbol, all of one millisecond."""

    ts_ms: int
    serial: int
    """Position of the first in the symbol's tape."""
    ids: Integers
    ticks: Integers
    size: Integers
    buy: NDArray[np.bool_]
    first_raw: Integers
    last_raw: Integers
    sent: bool = True
    """Whether somebody got them."""
    _listed: list[Trade] | None = None

    @property
    def few(self) -> bool:
        """Whether it is cheaper to go through them one by one."""
        return len(self.ids) <= _PLAIN_ROWS

    def each(self) -> list[Trade]:
        """Give them one by one."""
        if self._listed is None:
            self._listed = list(
                map(
                    Trade, repeat(self.ts_ms), count(self.serial), self.ids.tolist(),
                    self.ticks.tolist(), self.size.tolist(), self.buy.tolist(),
                    self.first_raw.tolist(), self.last_raw.tolist(),
                )
            )  # fmt: skip
        return self._listed


class TradeRows(Protocol):
    """How a venue writes the trades of one symbol on one grid."""

    close: bytes = b""
    rows_per_frame: int = 1
    """At most; with `head` they must keep a frame's length in the 16-bit form."""

    @property
    def head(self) -> bytes:
        """What a frame begins with, before its rows."""
        return b""

    def row(self, trade: Trade) -> str:
        """Write one trade."""

    def parts(self, trades: Trades) -> Sequence[Part] | None:
        """Give the parts of the rows of a block; None if this one has to be written row by row."""
        return None


def render(rows: TradeRows, trades: Trades, wrap: tuple[bytes, bytes]) -> bytes | memoryview:
    """Write all trades as frames, in order, each between the two texts of `wrap`."""
    head, close = wrap[0] + rows.head, rows.close + wrap[1]
    if not trades.few and (parts := rows.parts(trades)) is not None:
        return _block(parts, len(trades.ids), head, close, rows.rows_per_frame)
    texts = [rows.row(trade).encode() for trade in trades.each()]
    return b"".join(
        text_frame(head + b",".join(texts[at : at + rows.rows_per_frame]) + close)
        for at in range(0, len(texts), rows.rows_per_frame)
    )


class _Segment(NamedTuple):
    """Parts that follow each other, as one element a row."""

    texts: Texts
    widths: Integers | int
    """One number where all rows have the same."""


def _segments(parts: Iterable[Part], count: int) -> list[_Segment]:
    """Join neighbours of fixed width: a segment costs by its number more than by its width."""
    found: list[_Segment] = []
    fixed: list[bytes | Texts] = []
    for part in parts:
        if isinstance(part, tuple):
            if fixed:
                found.append(_joined(fixed, count))
                fixed = []
            table, chosen = part
            found.append(_Segment(table.rows.take(chosen), table.lengths.take(chosen)))
        else:
            fixed.append(part)
    return [*found, _joined(fixed, count)] if fixed else found


def _joined(parts: Sequence[bytes | Texts], count: int) -> _Segment:
    widths = [len(part) if isinstance(part, bytes) else part.itemsize for part in parts]
    width = sum(widths)
    blank = b"".join(part if isinstance(part, bytes) else bytes(part.itemsize) for part in parts)
    texts: Texts = np.empty(count, f"V{width}")
    texts[:] = np.frombuffer(blank, texts.dtype)
    matrix = _bytes_of(texts)
    at = 0
    for part, size in zip(parts, widths, strict=True):
        if not isinstance(part, bytes):
            _elements(matrix[:, at : at + size])[:] = part
        at += size
    return _Segment(texts, width)


def _bytes_of(texts: Texts) -> Bytes:
    return texts.view(np.uint8).reshape(len(texts), -1)


def _block(
    parts: Sequence[Part], count: int, head: bytes, close: bytes, per_frame: int
) -> memoryview:
    """Lay all rows into one buffer, with frames around them and commas between them."""
    lead = _HEADER + head
    alone = per_frame == 1  # then what a frame begins with is one more part of its row
    segments = _segments([lead, *parts] if alone else [*parts, b","], count)
    offsets: list[Integers | int] = [0]
    for segment in segments:
        offsets.append(offsets[-1] + segment.widths)
    lengths = np.full(count, len(close) if alone else 0, np.int64) + offsets.pop()
    ends = lengths.cumsum()
    starts = ends - lengths
    if alone:
        leads, sizes, frame_ends = segments[0].texts, lengths, ends
    else:
        firsts = np.arange(0, count, per_frame)
        lasts = np.minimum(firsts + per_frame, count) - 1
        # Of each frame the last comma gives way.
        frames = np.arange(len(firsts)).repeat(per_frame)[:count]
        between = frames * (len(lead) + len(close) - 1) + len(lead)
        starts += between
        frame_starts = starts[firsts] - len(lead)
        frame_ends = ends[lasts] + between[lasts] + (len(close) - 1)
        leads, sizes = _joined([lead], len(firsts)).texts, frame_ends - frame_starts
    _bytes_of(leads)[:, 2:4].view(">u2")[:, 0] = sizes - len(_HEADER)

    total = int(frame_ends[-1])
    buffer = np.empty(total + PAD, np.uint8)
    _lay(buffer, starts, segments, offsets)
    if not alone:
        paste(buffer, frame_starts, leads)
    for place, byte in enumerate(close, -len(close)):
        buffer[frame_ends + place] = byte
    return buffer.data[:total]


def _lay(
    buffer: Bytes, starts: Integers, segments: Sequence[_Segment], offsets: Sequence[Integers | int]
) -> None:
    """Copy the segments, those first whose padding falls on what others write."""
    order = list(zip(segments, offsets, strict=True))
    if not isinstance(segments[-1].widths, int):  # its padding falls on the next row
        order.insert(0, order.pop())
    for segment, offset in order:
        paste(buffer, starts + offset, segment.texts)
