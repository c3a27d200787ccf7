"""What each kind without a panel of its own brought of a symbol last, from the rings.

Several streams can carry the same kind of record (funding is pushed, polled, and part of another
kind): the row that was received last counts, and the page is told whose it is.
"""

from collections import deque
from collections.abc import Callable, Mapping
from decimal import Decimal
from functools import partial
from math import isfinite
from typing import Any, Final

from control.ui.digits import between, exact_text
from control.ui.followed import Followed, carrying
from engine.data.flags import Flag, Side
from engine.data.kind import Kind
from engine.data.kinds import FUNDING, KINDS, LIQUIDATION, QUOTE
from engine.data.layout import Layout
from engine.data.names import TELLS_THE_PAST
from engine.messages.status import StreamReport

Row = Mapping[str, Any]
Decimals = tuple[int, int]

_ALL_THERE_IS: Final = 1 << 20
_FAST_HISTORY_ROWS: Final = 1 << 14
_SIDES: Final = {int(Side.BUY): "B", int(Side.SELL): "S"}


class _Source:
    """One stream, and its newest rows."""

    def __init__(self, layout: Layout, kind: Kind) -> None:
        history_rows = _FAST_HISTORY_ROWS if kind.is_fast else _ALL_THERE_IS
        self.followed = Followed(layout, kind, history_rows)
        self.rows: deque[Row] = deque(maxlen=kind.newest_shown)
        self._names = kind.dtype.names or ()

    def poll(self) -> bool:
        """Take in what is new; returns whether anything was."""
        found = False
        for rows in self.followed.poll():
            for row in rows[-(self.rows.maxlen or 1) :].tolist():
                self.rows.append(dict(zip(self._names, row, strict=True)))
                found = True
        return found


class Newest:
    """The newest rows of one record kind of a symbol."""

    def __init__(self, layout: Layout, kind: Kind) -> None:
        self.kind = kind
        self._layout = layout
        self._sources: dict[tuple[str, str], _Source] = {}
        self._has_changed = False

    def look(self, reports: list[StreamReport]) -> None:
        """See which streams there are, and where."""
        wanted = {
            (each.kind, each.transport): each
            for each in carrying(reports, self.kind)
            if each.kind not in TELLS_THE_PAST
        }
        for key in self._sources.keys() - wanted.keys():
            self._sources.pop(key).followed.close()
            self._has_changed = True
        for key, report in wanted.items():
            source = self._sources.get(key)
            if source is None:
                source = _Source(self._layout, self.kind)
                self._sources[key] = source
            if source.followed.look(report):
                source.rows.clear()  # what the ring still holds is read once more

    def poll(self) -> bool:
        """Take in what is new; returns whether there is something to show."""
        found = [source.poll() for source in self._sources.values()]  # each of them, not any
        changed, self._has_changed = self._has_changed or any(found), False
        return changed

    def rows(self) -> list[tuple[Row, str]]:
        """The newest rows and the kind and transport they came by, the newest last."""
        found = [
            (row, "/".join(key)) for key, source in self._sources.items() for row in source.rows
        ]
        found.sort(key=lambda each: each[0]["ts_recv"])
        return found[-self.kind.newest_shown :]

    def body(self, decimals: Decimals) -> dict[str, Any]:
        """What is shown of them."""
        rows = self.rows()
        shown: Callable[[Row, Decimals], Any]
        shown = _SHOWN.get(self.kind.name, partial(_plain, self.kind))
        if self.kind.newest_shown > 1:
            return {"rows": [shown(row, decimals) for row, _ in rows]}
        if not rows:
            return {}
        row, source = rows[-1]
        times = {"source": source, "time_ms": row["ts_event"] // 1_000_000}
        return {**times, **shown(row, decimals)}

    def describe(self) -> list[dict[str, Any]]:
        """The streams behind them, for the page."""
        found = [source.followed.describe() for source in self._sources.values()]
        return [each for each in found if each is not None]

    def close(self) -> None:
        """Let go of the rings."""
        for source in self._sources.values():
            source.followed.close()


def newest_of_each(layout: Layout) -> list[Newest]:
    """One for every kind that is shown so."""
    return [Newest(layout, kind) for kind in KINDS.values() if kind.newest_shown]


def _plain(kind: Kind, row: Row, decimals: Decimals) -> dict[str, Any]:
    """Each of its numbers with the digits it may have."""
    places = {"price": decimals[0], "qty": decimals[1]}
    return {
        column.source: exact_text(row[column.source], places.get(column.transform, column.decimals))
        for column in kind.own_columns
    }


def _quote(row: Row, decimals: Decimals) -> dict[str, Any]:
    """A side without an order is empty."""
    prices, sizes = decimals
    body: dict[str, Any] = {
        side: [exact_text(row[side], prices), exact_text(row[f"{side}_qty"], sizes)]
        if row[f"{side}_qty"] else None
        for side in ("bid", "ask")
    }  # fmt: skip
    if body["bid"] and body["ask"]:
        middle, spread, basis_points = between(body["bid"][0], body["ask"][0])
        body |= {"mid": middle, "spread": spread, "spread_bps": basis_points}
    return body


def _funding(row: Row, decimals: Decimals) -> dict[str, Any]:
    """The rate in percent. `next_ms` is 0 where the venue does not say."""
    has_rate = not row["flags"] & Flag.NO_RATE
    return {
        "rate_percent": percent(row["rate"]) if has_rate else None,
        "mark": exact_text(row["mark"], decimals[0]),
        "index": exact_text(row["index"], decimals[0]),
        "next_ms": row["next_ts"] // 1_000_000,
        "interval_s": row["interval_s"],
    }


def _liquidation(row: Row, decimals: Decimals) -> list[Any]:
    prices, sizes = decimals
    return [
        row["ts_event"] // 1_000_000, _SIDES.get(row["side"], "-"),
        exact_text(row["price"], prices), exact_text(row["qty"], sizes),
        exact_text(row["avg_price"], prices), exact_text(row["filled_qty"], sizes),
    ]  # fmt: skip


_SHOWN: Final[Mapping[str, Callable[[Row, Decimals], Any]]] = {
    QUOTE.name: _quote,
    FUNDING.name: _funding,
    LIQUIDATION.name: _liquidation,
}
"""Kinds whose panel wants more than their numbers."""


def percent(rate: float) -> str:
    """A rate in percent with all its digits, at least four decimals."""
    if not isfinite(rate):
        return str(rate)  # no digits to keep, and no reason to end the tape
    exact = Decimal(repr(rate)).scaleb(2)
    places = max(4, -int(exact.normalize().as_tuple().exponent))
    return f"{exact:.{places}f}"
