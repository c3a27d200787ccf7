"""Which database a stream is stored in, where there are several.

A rule names some of venue, kind and symbol. Of the rules that a stream fits, the one that names
most decides; a stream that fits none is the default database's. Two rules that name equally much
must not both fit a stream and disagree, unless a third one that names more decides between them.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import combinations, product

import msgspec

from engine.data.names import DEFAULT_DATABASE, StreamKey, StreamKind

Fit = tuple[str | None, str | None, str | None]
"""Venue, kind, symbol; None fits all."""


class Route(msgspec.Struct, frozen=True):
    """Streams that fit are stored by the sink `database`."""

    database: str
    venue: str | None = None
    kind: StreamKind | None = None
    symbol: str | None = None

    @property
    def fit(self) -> Fit:
        """What it names."""
        return self.venue, self.kind, self.symbol

    def __str__(self) -> str:
        named = zip(("venue", "kind", "symbol"), self.fit, strict=True)
        return f"{self.database} ({_in_words({n: v for n, v in named if v is not None})})"


class Routes:
    """All rules; a look-up costs the same however many there are."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self._by_fit = {route.fit: route for route in routes}

    def database(self, key: StreamKey) -> str:
        """The sink that has the rows of a stream."""
        for fit in _fits((key.venue, key.kind, key.symbol)):
            if (route := self._by_fit.get(fit)) is not None:
                return route.database
        return DEFAULT_DATABASE


def conflict(routes: Sequence[Route]) -> tuple[Route, Route] | None:
    """Two rules that name equally much, fit the same stream, and disagree; None without any."""
    by_fit: dict[Fit, Route] = {}
    for route in routes:
        other = by_fit.setdefault(route.fit, route)
        if other.database != route.database:
            return other, route
    for one, other in _pairs(by_fit):
        if one.database != other.database and not _is_decided(by_fit, one, other):
            return one, other
    return None


def _pairs(by_fit: Mapping[Fit, Route]) -> Iterator[tuple[Route, Route]]:
    """Rules that name equally much, but not the same, and have a stream in common."""
    patterns = dict.fromkeys(_named(route.fit) for route in by_fit.values())
    for first, second in combinations(patterns, 2):
        if sum(first) != sum(second):
            continue
        shared = tuple(map(min, first, second))
        places = [_by_shared(by_fit.values(), named, shared) for named in (first, second)]
        for common in places[0].keys() & places[1].keys():
            yield from product(places[0][common], places[1][common])


def _by_shared(
    routes: Iterable[Route], named: tuple[bool, ...], shared: tuple[bool, ...]
) -> dict[Fit, list[Route]]:
    """Those that name just this, by what they say of what is shared."""
    found: dict[Fit, list[Route]] = {}
    for route in routes:
        if _named(route.fit) == named:
            found.setdefault(_only(route.fit, shared), []).append(route)
    return found


def _is_decided(by_fit: Mapping[Fit, Route], one: Route, other: Route) -> bool:
    """Whether a rule that names more fits whatever both of these fit."""
    venue, kind, symbol = (
        a if a is not None else b for a, b in zip(one.fit, other.fit, strict=True)
    )
    named = _count(one.fit)
    return any(fit in by_fit and _count(fit) > named for fit in _fits((venue, kind, symbol)))


def _fits(whole: Fit) -> Iterator[Fit]:
    """What names some of this, most first."""
    masks = sorted(product((True, False), repeat=3), key=sum, reverse=True)
    return (_only(whole, mask) for mask in masks)


def _only(fit: Fit, mask: tuple[bool, ...]) -> Fit:
    venue, kind, symbol = (
        value if is_kept else None for value, is_kept in zip(fit, mask, strict=True)
    )
    return venue, kind, symbol


def _named(fit: Fit) -> tuple[bool, ...]:
    return tuple(each is not None for each in fit)


def _count(fit: Fit) -> int:
    return sum(_named(fit))


def _in_words(named: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {value}" for name, value in named.items()) or "every stream"
