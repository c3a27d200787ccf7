"""What a symbol's quote, funding, open interest and liquidations were last, from the rings.

Several streams can carry the same kind of record (funding is pushed, polled, and part of another
kind): the row that was received last counts, and the page is told whose it is.
"""

from collections import deque
from collections.abc import Callable, Mapping
from decimal import Decimal
from math import isfinite
from typing import Any, Final

from control.ui.digits import between, exact_text
from control.ui.followed import Followed, carrying
from engine.data.flags import Flag, Side
from engine.data.kinds import FUNDING, KINDS, LIQUIDATION, OPEN_INTEREST, QUOTE
from engine.data.layout import Layout
from engine.messages.status import StreamReport

Row = Mapping[str, Any]
Decimals = tuple[int, int]

LIQUIDATIONS_KEPT: Final = 12
_ALL_THERE_IS: Final = 1 << 20
_QUOTE_HISTORY_ROWS: Final = 1 << 14
_SIDES: Final = {int(Side.BUY): "B", int(Side.SELL): "S"}


class _Source:
    """One stream, and its newest rows."""

    def __init__(self, layout: Layout, record: str, history_rows: int, kept: int) -> None:
        self.followed = Followed(layout, record, history_rows)
        self.rows: deque[Row] = deque(maxlen=kept)
        self._names = KINDS[record].dtype.names or ()

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

    def __init__(
        self, layout: Layout, record: str, history_rows: int = _ALL_THERE_IS, kept: int = 1
    ) -> None:
        self._layout = layout
        self._record = record
        self._history_rows, self._kept = history_rows, kept
        self._sources: dict[tuple[str, str], _Source] = {}
        self._has_changed = False

    def look(self, reports: list[StreamReport]) -> None:
        """See which streams there are, and where."""
        wanted = {(each.kind, each.transport): each for each in carrying(reports, self._record)}
        for key in self._sources.keys() - wanted.keys():
            self._sources.pop(key).followed.close()
            self._has_changed = True
        for key, report in wanted.items():
            source = self._sources.get(key)
            if source is None:
                source = _Source(self._layout, self._record, self._history_rows, self._kept)
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
        return found[-self._kept :]

    def describe(self) -> list[dict[str, Any]]:
        """For the page."""
        found = [source.followed.describe() for source in self._sources.values()]
        return [each for each in found if each is not None]

    def close(self) -> None:
        """Let go of the rings."""
        for source in self._sources.values():
            source.followed.close()


class NewestOfSymbol:
    """Quote, funding, open interest and liquidations together."""

    def __init__(self, layout: Layout) -> None:
        self._by_kind = {
            QUOTE.name: Newest(layout, QUOTE.name, _QUOTE_HISTORY_ROWS),
            FUNDING.name: Newest(layout, FUNDING.name),
            OPEN_INTEREST.name: Newest(layout, OPEN_INTEREST.name),
            LIQUIDATION.name: Newest(
                layout, LIQUIDATION.name, kept=LIQUIDATIONS_KEPT
            ),
        }  # fmt: skip

    def look(self, reports: list[StreamReport]) -> None:
        """See which streams there are, and where."""
        for newest in self._by_kind.values():
            newest.look(reports)

    def describe(self) -> dict[str, list[dict[str, Any]]]:
        """The streams behind each kind, for the page."""
        return {kind: newest.describe() for kind, newest in self._by_kind.items()}

    def changes(self, decimals: Decimals) -> list[tuple[str, dict[str, Any]]]:
        """Event and body of each kind that has something new."""
        return [
            (kind, _body(kind, newest.rows(), decimals))
            for kind, newest in self._by_kind.items()
            if newest.poll()
        ]

    def close(self) -> None:
        """Let go of the rings."""
        for newest in self._by_kind.values():
            newest.close()


def _body(kind: str, rows: list[tuple[Row, str]], decimals: Decimals) -> dict[str, Any]:
    if kind == LIQUIDATION.name:
        return {"rows": [_liquidation(row, decimals) for row, _ in rows]}
    if not rows:
        return {}
    row, source = rows[-1]
    times = {"source": source, "time_ms": row["ts_event"] // 1_000_000}
    return times | _SHOWN[kind](row, decimals)


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


def _open_interest(row: Row, decimals: Decimals) -> dict[str, Any]:
    return {"qty": exact_text(row["qty"], decimals[1])}


def _liquidation(row: Row, decimals: Decimals) -> list[Any]:
    prices, sizes = decimals
    return [
        row["ts_event"] // 1_000_000, _SIDES.get(row["side"], "-"),
        exact_text(row["price"], prices), exact_text(row["qty"], sizes),
        exact_text(row["avg_price"], prices), exact_text(row["filled_qty"], sizes),
    ]  # fmt: skip


_SHOWN: Final[Mapping[str, Callable[[Row, Decimals], dict[str, Any]]]] = {
    QUOTE.name: _quote,
    FUNDING.name: _funding,
    OPEN_INTEREST.name: _open_interest,
}


def percent(rate: float) -> str:
    """A rate in percent with all its digits, at least four decimals."""
    if not isfinite(rate):
        return str(rate)  # no digits to keep, and no reason to end the tape
    exact = Decimal(repr(rate)).scaleb(2)
    places = max(4, -int(exact.normalize().as_tuple().exponent))
    return f"{exact:.{places}f}"
