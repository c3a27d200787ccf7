"""Prices and sizes as exact decimal text, for a page whose language knows only floats."""

from decimal import Decimal


def exact_text(value: float, decimals: int) -> str:
    """`value` with the instrument's number of decimals; with more where those would lie."""
    text = f"{value:.{decimals}f}"
    if float(text) == value:
        return text
    return format(Decimal(repr(value)), "f")


def between(bid: str, ask: str) -> tuple[str, str, float]:
    """Middle, spread, and the spread in basis points of the middle."""
    low, high = Decimal(bid), Decimal(ask)
    middle, spread = (low + high) / 2, high - low
    basis_points = float(spread / middle) * 10_000 if middle else 0.0
    return format(middle, "f"), format(spread, "f"), round(basis_points, 3)
