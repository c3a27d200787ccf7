"""WebSocket frames, and the vectorised rendering of many trades into one buffer.

A row of a block is a few segments of text. Each segment is built for all rows at once, padded to
one width, and pasted at its row's byte offset through a window view of the buffer whose stride is
one byte: numpy copies whole segments, so variable-width rows cost no per-byte mask. The padding of
a segment is overwritten by the next one, therefore the order of pastes matters: a row's last
segment goes first, because its padding falls on the start of the following row.
"""

import json
from collections.abc import Callable, Mapping
from struct import pack
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "PAD",
    "PriceTexts",
    "TextTable",
    "compact",
    "decimal_columns",
    "extended_header",
    "hex_columns",
    "paste",
    "payload_of",
    "text_frame",
]

PAD = 64
"""Spare bytes a buffer needs after its last row, for the padding of the segments there."""

_SHORT_PAYLOAD = 125
_LONG_PAYLOAD = 65535
_PRICE_MARGIN = 400

Bytes: TypeAlias = NDArray[np.uint8]
Texts: TypeAlias = NDArray[np.void]

_DECIMAL = np.frombuffer(b"".join(b"%04d" % value for value in range(10_000)), "<u4")
_HEX = np.frombuffer(b"".join(b"%04x" % value for value in range(65_536)), "<u4")


def text_frame(payload: bytes, opcode: int = 1) -> bytes:
    """Make one final, unmasked frame."""
    size = len(payload)
    if size <= _SHORT_PAYLOAD:
        return pack("!BB", 0x80 | opcode, size) + payload
    if size <= _LONG_PAYLOAD:
        return pack("!BBH", 0x80 | opcode, 126, size) + payload
    return pack("!BBQ", 0x80 | opcode, 127, size) + payload


def payload_of(frame: bytes) -> bytes:
    """Take the header off one frame of at most 64 KiB."""
    return frame[2:] if frame[1] <= _SHORT_PAYLOAD else frame[4:]


def compact(value: Mapping[str, object] | list[object]) -> bytes:
    """Print JSON without blanks, as venues do."""
    return json.dumps(value, separators=(",", ":")).encode()


def extended_header(size: int) -> bytes:
    """Make the header of a text frame whose payload takes the 16-bit length form."""
    assert _SHORT_PAYLOAD < size <= _LONG_PAYLOAD
    return pack("!BBH", 0x81, 126, size)


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


def decimal_columns(values: NDArray[np.int64], width: int) -> Bytes:
    """Render integers below 10**16 as `width` digits, one row each."""
    high = values // 100_000_000
    low = values - high * 100_000_000
    digits = np.empty((len(values), 4), "<u4")
    for column, half in ((0, high), (2, low)):
        upper = half // 10_000
        digits[:, column] = _DECIMAL[upper]
        digits[:, column + 1] = _DECIMAL[half - upper * 10_000]
    return digits.view(np.uint8)[:, 16 - width :]


def hex_columns(values: NDArray[np.int64]) -> Bytes:
    """Render integers below 2**32 as eight lower-case hexadecimal digits, one row each."""
    digits = np.empty((len(values), 2), "<u4")
    digits[:, 0] = _HEX[values >> 16]
    digits[:, 1] = _HEX[values & 0xFFFF]
    return digits.view(np.uint8)
