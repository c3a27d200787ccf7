"""Numbers that a venue computes: as a double, with the knowledge whether that is what it wrote.

What is traded has the instrument's decimals, so few digits that a double proves them, and its
decoder pays nothing for that (`engine.writer.rows.exact`). Rates, mark and index prices, average
prices and open interest are computed by the venue and come with any number of digits, also with the
noise of its own floating point ("12345.678900000001"). They are few, so their text is looked at:

- of more than 15 significant digits, or 15 decimals, the first 15 are taken (half to even): as many
  as a double holds for certain, and as the database has columns for;
- `is_exact` tells whether that is still the number as it was written. Where it is not, the row is
  flagged `INEXACT`, by whatever way a reader comes to it.
"""

import re
from collections.abc import Callable
from decimal import ROUND_HALF_EVEN, Context, Decimal
from typing import Any, ClassVar, Final, TypeVar

import msgspec

_Message = TypeVar("_Message")

_DIGITS: Final = 15
_FINEST: Final = Decimal(1).scaleb(-_DIGITS)
_ROUND: Final = Context(prec=_DIGITS, rounding=ROUND_HALF_EVEN, traps=[])
_PLAIN: Final = re.compile(r"-?[0-9]{1,400}(?:\.[0-9]{1,400})?(?:[eE][+-]?[0-9]{1,3})?")
_SHORT: Final = re.compile(r"-?[0-9]+\.[0-9]+|[0-9]{1,15}")
_SHORT_CHARS: Final = 16
"""With a point no more than 15 digits: no closer look is needed, nor Decimal's microseconds."""


class Computed:
    """A number the venue computes, zero or more: a price, an amount."""

    __slots__ = ("is_exact", "value")
    low: ClassVar = 0.0
    high: ClassVar = 1e15
    empty: ClassVar[float | None] = None
    """What an empty text stands for, where one is allowed."""

    def __init__(self, value: float, is_exact: bool) -> None:
        self.value = value
        self.is_exact = is_exact


class ComputedRate(Computed):
    """A fraction an interval, if there is one."""

    low: ClassVar = -1e3
    high: ClassVar = 1e3
    empty: ClassVar[float | None] = float("nan")

    @property
    def rate(self) -> float | None:
        """The rate, if there is one."""
        return self.value if self.value == self.value else None


class ComputedOrEmpty(Computed):
    """The same as `Computed`; an empty text says that there is none (`value` is then 0)."""

    empty: ClassVar[float | None] = 0.0


def decoder(message: type[_Message]) -> Callable[[bytes | msgspec.Raw], _Message]:
    """Decodes messages that may have such fields, written as texts or as numbers."""
    return msgspec.json.Decoder(message, strict=False, dec_hook=read_number, float_hook=str).decode


def read_number(kind: type, said: Any) -> Any:
    """`dec_hook` of such decoders. Raises ValueError for what no market can mean."""
    assert issubclass(kind, Computed), kind
    if said == "" and kind.empty is not None:
        return kind(kind.empty, is_exact=True)
    if type(said) not in (str, int):
        raise ValueError("Expected a number")
    value, is_exact = read_decimal(str(said))
    if not kind.low <= value <= kind.high:
        raise ValueError(f"Expected a number from {kind.low:g} to {kind.high:g}")
    return kind(value, is_exact)


def read_decimal(text: str) -> tuple[float, bool]:
    """(value, whether it is exactly what `text` says). Raises ValueError for no plain number."""
    if len(text) <= _SHORT_CHARS and _SHORT.fullmatch(text):
        return float(text), True
    if not _PLAIN.fullmatch(text):
        raise ValueError("Expected a plain decimal number")
    written = Decimal(text)
    rounded = _ROUND.create_decimal(written)
    exponent = rounded.as_tuple().exponent
    assert isinstance(exponent, int)
    if exponent < -_DIGITS:
        rounded = rounded.quantize(_FINEST, context=_ROUND)
    return float(rounded), rounded == written


DECIMALS_MAX: Final = _DIGITS
"""As many as a double can prove (`sql/0002_instruments.sql`)."""


def decimals_of(step: str) -> int:
    """Decimal places a step size allows: `0.00100` and `1e-3` are 3, `1` and `10` are 0. More than
    the database takes are cut, so that a nonsense of the venue's costs exactness and no row.
    """
    mantissa, _, exponent = step.lower().partition("e")
    fraction = mantissa.partition(".")[2].rstrip("0")
    return min(max(len(fraction) - int(exponent or 0), 0), DECIMALS_MAX)
