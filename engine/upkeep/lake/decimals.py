"""Mantissas of 64 bits to the 128-bit integers of a decimal column, and back, exactly.

A column of a file has one scale, while each instrument has its own decimals: a mantissa is
multiplied by the power of ten between the two. Back, the division must come out even. numpy has no
integer of 128 bits, so a number is two halves, (low, high), as in Arrow's buffers.
"""

from typing import Final

import numpy as np
import numpy.typing as npt

Int64s = npt.NDArray[np.int64]
UInt64s = npt.NDArray[np.uint64]

SHIFT_MAX: Final = 15
"""Decimals of an instrument at most (table `instrument`)."""
_HALF: Final = np.uint64(32)
_MASK: Final = np.uint64(0xFFFF_FFFF)
_ONE: Final = np.uint64(1)
_TENS: Final = np.array([10**n for n in range(SHIFT_MAX + 1)], np.uint64)
_INVERSE_OF_FIVES: Final = np.array(
    [pow(5**n, -1, 1 << 64) for n in range(SHIFT_MAX + 1)], np.uint64
)
"""What undoes the odd part of a power of ten, modulo 2 ** 64."""


def scaled(mantissas: Int64s, shift: Int64s) -> UInt64s:
    """`mantissas * 10 ** shift`, shape (n, 2): low and high half, in two's complement.
    `0 <= shift <= SHIFT_MAX`.
    """
    size = np.abs(mantissas).view(np.uint64)  # of the smallest one, too: its bits are 2 ** 63
    factor = _TENS[shift]
    size_low, size_high = size & _MASK, size >> _HALF
    factor_low, factor_high = factor & _MASK, factor >> _HALF
    low_low, low_high = size_low * factor_low, size_low * factor_high
    high_low = size_high * factor_low
    middle = (low_low >> _HALF) + (low_high & _MASK) + (high_low & _MASK)
    found = np.empty((len(mantissas), 2), np.uint64)
    found[:, 0] = (low_low & _MASK) | (middle << _HALF)
    found[:, 1] = (
        size_high * factor_high + (low_high >> _HALF) + (high_low >> _HALF) + (middle >> _HALF)
    )
    below = mantissas < 0
    negative = ~found[below]
    negative[:, 0] += _ONE
    negative[:, 1] += negative[:, 0] == 0
    found[below] = negative
    return found


def unscaled(numbers: UInt64s, shift: Int64s) -> Int64s:
    """What `scaled` was given. Raises ValueError for a number that no mantissa becomes."""
    low, high = numbers[:, 0], numbers[:, 1]
    bits = shift.astype(np.uint64)
    above = (high << _ONE) << (np.uint64(63) - bits)  # by 64 in two steps, where there is no shift
    found: Int64s = (((low >> bits) | above) * _INVERSE_OF_FIVES[shift]).view(np.int64)
    if not np.array_equal(scaled(found, shift), numbers):
        raise ValueError("a number has more digits than its instrument")
    return found
