"""Plots as SVG inside a page: bars and lines, each with its numbers as text."""

from collections.abc import Mapping, Sequence
from html import escape
from math import floor, log10
from typing import Final, NamedTuple

_WIDTH: Final = 900
_ROW: Final = 24
_LABEL: Final = 240
_ROOM: Final = 270
"""For the numbers behind the bars."""
_COLOURS: Final = ("#2f6db3", "#c2571a", "#2b8a57", "#8b4fb0", "#9a7b12")
_DASHES: Final = ("", "7 4", "2 3", "9 3 2 3", "12 5")


class Bar(NamedTuple):
    """A value and what is said of it."""

    label: str
    value: float
    text: str
    is_good: bool = True
    limit: float | None = None
    """A mark on the bar: its budget."""


def bars(title: str, rows: Sequence[Bar]) -> str:
    """Values beside each other, from 0."""
    top = max([row.value for row in rows] + [row.limit or 0.0 for row in rows] + [1e-12])
    scale = (_WIDTH - _LABEL - _ROOM) / top
    parts = []
    for number, row in enumerate(rows):
        y, width = number * _ROW, max(1.0, row.value * scale)
        kind, size = "good" if row.is_good else "bad", f'width="{width:.1f}" height="16"'
        parts.append(_text(_LABEL - 8, y + 16, row.label, "end"))
        parts.append(f'<rect class="{kind}" x="{_LABEL}" y="{y + 4}" {size}/>')
        parts.append(_text(_LABEL + width + 6, y + 16, row.text, "start"))
        if row.limit is not None:
            x, ends = _LABEL + row.limit * scale, f'y1="{y + 1}" y2="{y + 23}"'
            parts.append(f'<line class="limit" x1="{x:.1f}" x2="{x:.1f}" {ends}/>')
    return _figure(title, len(rows) * _ROW + 4, parts)


def lines(title: str, places: Sequence[str], rows: Mapping[str, Sequence[float]]) -> str:
    """Values at the same places, on a scale of powers of ten."""
    values = [value for row in rows.values() for value in row if value > 0]
    if not values:
        return ""
    low, high = floor(log10(min(values))), floor(log10(max(values))) + 1
    height, left, right = 220, 70, _WIDTH - 190

    def x(place: int) -> float:
        return left + (right - left) * place / max(1, len(places) - 1)

    def y(value: float) -> float:
        return 10 + height * (high - log10(max(value, 10.0**low))) / (high - low)

    parts = []
    for power in range(low, high + 1):
        at = round(y(10.0**power), 1)
        parts.append(f'<line class="grid" x1="{left}" x2="{right}" y1="{at}" y2="{at}"/>')
        parts.append(_text(left - 8, at + 4, f"{10.0**power:g}", "end"))
    for number, place in enumerate(places):
        parts.append(_text(x(number), height + 28, place, "middle"))
    ends = sorted((y(row[-1]), name) for name, row in rows.items())
    beside = _spread([end for end, _ in ends])
    for number, (name, row) in enumerate(rows.items()):
        points = " ".join(f"{x(i):.1f},{y(value):.1f}" for i, value in enumerate(row))
        pen = f'stroke="{_COLOURS[number % 5]}" stroke-dasharray="{_DASHES[number % 5]}"'
        at = beside[[other for _, other in ends].index(name)]
        parts.append(f'<polyline points="{points}" {pen}/>')
        parts.append(_text(right + 8, at + 4, name, "start"))
    return _figure(title, height + 36, parts)


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _spread(places: Sequence[float]) -> list[float]:
    """Places of texts, none over another."""
    found: list[float] = []
    for place in places:
        found.append(max(place, found[-1] + 15) if found else place)
    return found


def _figure(title: str, height: int, parts: Sequence[str]) -> str:
    body = "".join(parts)
    return (
        f"<figure><figcaption>{escape(title)}</figcaption>"
        f'<svg viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="{escape(title)}">{body}</svg>'
        "</figure>"
    )
