"""Float prices and sizes as exact integer mantissas, with the proof.

A venue sends a decimal string, msgspec makes it the nearest double `x`. With `d` decimals the
mantissa is `n = rint(x * 10**d)`, and it is exact if and only if `n / 10**d == x`: for |n| < 2**52
and d <= 22 both operands are exact doubles, so the division gives the double nearest to the decimal
`n / 10**d`, and that is what the venue's string became. Below 2**52 no other decimal of `d` places
has that nearest double (from there on two may), and among those of at most 15 significant digits no
other of any length: for them the proof is complete. What is traded has few digits by its
instrument's steps; of what a venue computes the text is looked at (`shards.venues.digits`), cut to
15 digits, and flagged before it gets here.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

DECIMALS_MAX: Final = 15
MANTISSA_LIMIT: Final = float(2**52)
"""Below it a double tells each integer, and each decimal of the same places, from every other."""
STORABLE_LIMIT: Final = float(2**63)
"""At or above it a mantissa does not fit the column at all."""
RAISE_LIMIT: Final = 1e15
"""Decimals are raised only for values of at most 15 digits. A sum that went wrong in the last bit
(8.000000000000002) has 16, and would cost every later price its head room."""

POWERS_OF_TEN: Final[FloatArray] = np.array([float(10**d) for d in range(DECIMALS_MAX + 1)])


@dataclass(slots=True)
class Buffers:
    """Room for the proof of as many values as it was made for: who proves chunk after chunk need
    not ask for memory each time. Valid until the next proof."""

    scaled: FloatArray
    spare: FloatArray
    exact: BoolArray

    @classmethod
    def of(cls, count: int) -> "Buffers":
        """Buffers for at most `count` values."""
        return cls(np.empty(count), np.empty(count), np.empty(count, np.bool_))


def prove(
    values: FloatArray, scale: FloatArray | np.float64, into: Buffers | None = None
) -> tuple[FloatArray, BoolArray]:
    """Return (mantissas f8[n], exact bool[n]) of `values` f8[n] at `scale` = 10**d (per row, or
    one). Mantissas are whole numbers; where not exact, the nearest, whether it fits 64 bits or not.
    """
    buffers, count = into or Buffers.of(len(values)), len(values)
    scaled, spare, exact = buffers.scaled[:count], buffers.spare[:count], buffers.exact[:count]
    with np.errstate(invalid="ignore", over="ignore"):
        np.multiply(values, scale, out=scaled)
        np.rint(scaled, out=scaled)
        np.divide(scaled, scale, out=spare)
        np.equal(spare, values, out=exact)
        np.abs(scaled, out=spare)
        if not spare.max(initial=0.0) < MANTISSA_LIMIT:  # NaN is not, either
            exact &= spare < MANTISSA_LIMIT
    return scaled, exact


def mantissas(
    values: FloatArray, decimals: npt.NDArray[np.integer] | int
) -> tuple[IntArray, BoolArray]:
    """Return (mantissas i8[n], exact bool[n]) of `values` f8[n] at `decimals` (per row, or one).

    Rows that are not exact hold the nearest mantissa; those that are not finite or do not fit 64
    bits hold 0.
    """
    scaled, exact = prove(values, POWERS_OF_TEN[decimals])
    fits = np.abs(scaled) < STORABLE_LIMIT  # False for NaN and infinities, too
    return np.where(fits, scaled, 0.0).astype(np.int64), exact


def storable(values: FloatArray, scale: FloatArray | np.float64) -> BoolArray:
    """Whether the mantissas of `values` at `scale` = 10**d are finite and fit 64 bits."""
    with np.errstate(invalid="ignore", over="ignore"):
        fits: BoolArray = np.abs(values * scale) < STORABLE_LIMIT
    return fits


def raised_decimals(values: FloatArray, current: int) -> int:
    """Decimals that prove as many of `values` as can be proven; `current` if that is the best.

    One hopeless value does not keep the others from their proof: each value's need is found alone,
    and the largest is taken that leaves every value of the batch at most 15 digits.
    """
    finite = values[np.isfinite(values)]
    if finite.size == 0:
        return current
    largest = float(np.abs(finite).max())
    _, exact = mantissas(finite, current)
    open_values = np.unique(finite[~exact])
    best = current
    for decimals in range(current + 1, DECIMALS_MAX + 1):
        if open_values.size == 0 or largest * 10.0**decimals >= RAISE_LIMIT:
            break
        _, exact = mantissas(open_values, decimals)
        if exact.any():
            best = decimals
            open_values = open_values[~exact]
    return best
