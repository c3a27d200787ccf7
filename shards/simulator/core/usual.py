"""What many venues have alike: how requests are read, rows written, and what comes first."""

import json
from collections.abc import Callable, Mapping
from typing import Any

from shards.simulator.core.encoder import Answer, BookMessage, Query, ServedCall
from shards.simulator.core.frames import TradeRows
from shards.simulator.core.limits import now_ms
from shards.simulator.core.market import Grid
from shards.simulator.core.sessions import Session
from shards.simulator.core.symbol import ALL_LEVELS, SymbolState
from shards.simulator.core.venue import SimVenue

__all__ = [
    "RowByRow", "UndatedWholes", "bad_trades", "book_now", "calls_under", "listed_grids",
    "read_object", "send_whole", "tell_past",
]  # fmt: skip

_PAST_MS, _FIRST_PAST = 20_000, 10


class RowByRow(TradeRows):
    """Writes the trades of one symbol on one grid, one by one, which is fast enough for most."""

    def __init__(self, state: SymbolState, price_text: Callable[[int], str]) -> None:
        self.symbol, self.price_text = state.grid.symbol, price_text
        self.sizes = [state.qty_text(qty) for qty in state.market.sizes.tolist()]


def read_object(text: str | bytes) -> dict[str, Any]:
    """Read what a client says; nothing, where it is no JSON object."""
    try:
        request = json.loads(text)
    except ValueError:
        return {}
    return request if isinstance(request, dict) else {}


def listed_grids(
    table: "tuple[tuple[str, float, int, int, int], ...]", count: int,
    made_up: Callable[[int], tuple[str, float, int, int, int]],
) -> list[Grid]:  # fmt: skip
    """List the first `count` instruments of a table, and past its end synthetic ones by number. A
    row is symbol, start price, decimals of prices, tick in units of the last, decimals of
    quantities.
    """
    rows = [*table[:count], *map(made_up, range(len(table), count))]
    return [Grid.around(row[0], row[1], row[2:], rank) for rank, row in enumerate(rows)]


def calls_under(
    path: str, calls: Mapping[str, Callable[[SimVenue, Query], Answer]]
) -> Mapping[str, ServedCall]:
    """Serve calls of one weight below a path."""
    return {f"{path}/{name}": ServedCall(answer) for name, answer in calls.items()}


def bad_trades(
    envelope: str, fields: Mapping[str, str], changes: Mapping[str, Mapping[str, str]]
) -> Mapping[str, bytes]:
    """Write messages of one trade that is none, by variant: `fields` as JSON text, some changed, in
    the place of `%s` in the envelope.
    """
    rows = {
        variant: ",".join(f'"{name}":{value}' for name, value in {**fields, **changed}.items())
        for variant, changed in changes.items()
    }
    return {variant: (envelope % f"{{{row}}}").encode() for variant, row in rows.items()}


def book_now(state: SymbolState, stream: str) -> BookMessage:
    """Take the whole book of this moment."""
    sides = state.top(ALL_LEVELS)
    return BookMessage(stream, now_ms(), 0, state.last_update, 0, *sides)


def send_whole(venue: SimVenue, session: Session, state: SymbolState, event: BookMessage) -> None:
    """Send a new subscriber a whole book; if it was sent, it is in the ledger."""
    if session.send_text(venue.encoder.whole(state, event)):
        venue.record_book(state, event, whole=True)


class UndatedWholes:
    """Whole books that were sent and say no time. The next change tells it: then they are put into
    the ledger, at its time and the number before its own.
    """

    def __init__(self) -> None:
        self._sent: dict[int, list[tuple[SimVenue, Session, str, BookMessage]]] = {}
        """By symbol, since its last change."""

    def add(
        self, venue: SimVenue, session: Session, state: SymbolState, topic: str, event: BookMessage
    ) -> None:
        """Keep one that a session got on a topic."""
        self._sent.setdefault(state.index, []).append((venue, session, topic, event))

    def date(self, state: SymbolState, change: BookMessage) -> None:
        """Note those that the next change goes to as well."""
        for venue, session, topic, whole in self._sent.pop(state.index, ()):
            if topic in session.names and session in venue.hub.sessions:
                dated = whole._replace(
                    ts_ms=change.ts_ms, last=change.last - 1, early_ns=change.early_ns
                )
                venue.record_book(state, dated, whole=True)


def tell_past(
    venue: SimVenue, session: Session, state: SymbolState, count: int,
    write: Callable[[bytes], bytes], *, newest_first: bool = False,
) -> None:  # fmt: skip
    """Repeat the last trades to a new subscriber."""
    past = state.first_past(now_ms(), _PAST_MS, _FIRST_PAST)
    trades = [one for each in past for one in each.each()] or state.newest_sent(count)
    texts = [state.trade_rows.row(one) for one in trades]
    said = ",".join(reversed(texts) if newest_first else texts)
    venue.record_trades(state, past, sent=session.send_text(write(said.encode())))
