"""Elements sent with one value that no client can read (fault `unreadable`), beside good ones.

They happen in the market like any other and take their place in its ids. The ledger has them in a
file of their own: sent, and not to be stored, but declared.
"""

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import cycle
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from shards.simulator.core.sessions import Topic
    from shards.simulator.core.symbol import SymbolState
    from shards.simulator.core.venue import SimVenue

__all__ = ["FRAME_VALUES", "REST_VALUES", "Spoiler", "push_rows", "push_spoiled_trade"]

REST_VALUES = {
    "nan": b'"NaN"', "negative": b'"-1"', "absurd": b'"1e30"', "empty": b'""', "object": b"{}",
    "list": b"[]", "bool": b"true", "infinite": b'"Infinity"',
}  # fmt: skip
FRAME_VALUES = {
    **REST_VALUES,
    "deep": b"[" * 100_000 + b"]" * 100_000,
    "bad_utf8": b'"\xff\xfe"',
    "unquoted": b"NaN",
}
"""What takes the value's place, by variant."""

_NUMBER = rb'"[^"]*"|-?[0-9][-+.0-9Ee]*'


class Spoiler:
    """What is still to be spoiled of one venue, by kind of row, symbol and way of delivery."""

    def __init__(self, members: Mapping[str, Sequence[str]]) -> None:
        """`members` are an encoder's `spoiled`."""
        self._members = members
        self._patterns = {
            kind: re.compile(rb'("(?:%b)":\[*)(?:%b)' % ("|".join(names).encode(), _NUMBER))
            for kind, names in members.items()
        }
        self._due: Counter[tuple[str, str, bool]] = Counter()
        self._values: dict[tuple[str, str, bool], Iterator[bytes]] = {}
        self.sent_count = 0

    @property
    def due_count(self) -> int:
        """How many have been asked for and not been sent yet."""
        return self._due.total()

    def plan(self, kind: str, symbol: str, count: int, variant: str, *, rest: bool) -> None:
        """Spoil the next `count` elements: with one value, or with all in turn."""
        values = REST_VALUES if rest else FRAME_VALUES
        chosen = list(values.values()) if variant == "all" else [values[variant]]
        self._due[kind, symbol, rest] += count
        self._values[kind, symbol, rest] = cycle(chosen)

    def is_due(self, kind: str, symbol: str) -> bool:
        """Whether the next pushed element shall be spoiled."""
        return bool(self._due) and self._due[kind, symbol, False] > 0

    def frame(self, kind: str, symbol: str, payload: bytes) -> bytes | None:
        """The message with one value replaced; None when it shall be sent as it is."""
        if not self.is_due(kind, symbol) or not self._patterns[kind].search(payload):
            return None
        value = self._take((kind, symbol, False))
        return self._patterns[kind].sub(lambda found: found[1] + value, payload, count=1)

    def answer(self, kind: str, symbol: str, answer: dict[str, object]) -> bool:
        """Replace one value of a REST answer, if that is due; tell whether it was."""
        if not self._due or self._due[kind, symbol, True] <= 0:
            return False
        name = next(name for name in self._members[kind] if name in answer)
        answer[name] = json.loads(self._take((kind, symbol, True)))
        return True

    def _take(self, place: tuple[str, str, bool]) -> bytes:
        self._due[place] -= 1
        self.sent_count += 1
        return next(self._values[place])


def push_rows(venue: "SimVenue", state: "SymbolState", texts: Sequence[bytes]) -> bool:
    """Push trades in one frame."""
    name = venue.encoder.topic("trade", state.grid.symbol)
    topic, rows = venue.trade_topic(state.index), state.trade_rows
    payload = rows.head + b",".join(texts) + rows.close
    return name is not None and topic is not None and topic.push(name, payload)


def push_spoiled_trade(venue: "SimVenue", topic: "Topic", state: "SymbolState", at_ms: int) -> None:
    """Push trades in one frame, the middle one of which nobody can read."""
    count = venue.encoder.spoiled_among
    parts = [state.trade(1, at_ms) for _ in range(count)]
    texts = [state.trade_rows.row(one).encode() for part in parts for one in part.each()]
    spoiled = venue.hub.spoiler.frame("trade", state.grid.symbol, texts[count // 2])
    assert spoiled is not None
    texts[count // 2] = spoiled
    sent = push_rows(venue, state, texts)
    lost = parts.pop(count // 2)
    state.unsent(lost)
    venue.record_trades(state, parts, sent=sent)
    if sent:
        venue.unreadable("trade", state, (at_ms, int(lost.ids[0])), 1)
