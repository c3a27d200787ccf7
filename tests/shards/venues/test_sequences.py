"""What comes twice, late, or on both of two sockets: of every kind of every venue, through its own
decoder. Nothing is raised, nothing vanishes, and no trade is stored twice.
"""

from typing import Any

import msgspec
import pytest

from engine.data.flags import GapReason
from engine.data.kinds import TRADE
from engine.data.names import StreamKind, Transport
from shards.feeds.books import BookFeed
from shards.feeds.feed import Feed
from shards.feeds.trades import ContiguousTrades
from tests.shards.venues.mutants import TIME_MS, Market, Offer, offers, row_count
from tests.shards.venues.recorded import UNDER_TEST

PUSHED = [
    pytest.param(name, offer, id=f"{name}-{offer.kind}")
    for name in UNDER_TEST
    for offer in offers(UNDER_TEST[name])
    if offer.transport is Transport.WS
]
CUT = 0
"""In place of an element: the socket ends, and the next one brings what follows."""


class Told:
    """A stream that is told the elements of these numbers, a message each."""

    def __init__(self, name: str, offer: Offer, script: list[int]) -> None:
        self.market = Market(name)
        self.offer = offer
        self.stream: Feed = self.market.streams[offer.kind, offer.transport, "S0"]
        count = max(script)
        self._texts = [msgspec.json.encode(self._element()) for _ in range(count)]
        self.sent = 0
        for number in script:
            if number == CUT:
                self.market.opened_again()
            else:
                self.sent += row_count(offer.shape, self._texts[number - 1])
                self.market.deliver(offer, [self._texts[number - 1]], "S0")
        self.market.settle()

    def _element(self) -> dict[str, Any]:
        example = self.market.next_element(self.offer, "S0")
        if "count" in example:  # of trades that were merged
            example["count"] = 1
        return example

    @property
    def accounted(self) -> int:
        of = self.stream
        return self.market.rows(of) + of.refused_count + of.duplicate_count + of.dropped_count

    @property
    def trades(self) -> list[int]:
        """The numbers of those that are stored, in their order."""
        times_ms = self.market.double.rows(TRADE.name)["ts_event"] // 1_000_000
        return [int(each) - TIME_MS - 1000 for each in times_ms]

    @property
    def gaps(self) -> list[tuple[GapReason, int]]:
        rows = self.market.gaps(self.stream)
        return [(GapReason(row["reason"]), int(row["missing"])) for row in rows]


@pytest.mark.fault("X15")
@pytest.mark.parametrize(("name", "offer"), PUSHED)
def test_what_comes_twice_is_no_other_row(name: str, offer: Offer) -> None:
    told = Told(name, offer, [1, 2, 2, 3, 3, 4])
    assert told.accounted == told.sent
    assert not told.market.connection.malformed_by_reason
    if offer.kind is StreamKind.TRADES:
        assert told.trades == [1, 2, 3, 4]
        assert told.gaps == []


@pytest.mark.fault("X15")
@pytest.mark.parametrize(("name", "offer"), PUSHED)
def test_what_comes_late_is_stored_or_declared(name: str, offer: Offer) -> None:
    told = Told(name, offer, [1, 3, 2, 4])
    assert told.accounted == told.sent
    assert not told.market.connection.malformed_by_reason
    if isinstance(told.stream, ContiguousTrades):
        assert told.trades == [1, 3, 4]
        assert told.gaps == [(GapReason.SEQUENCE, 1)]
    elif offer.kind is StreamKind.TRADES:
        assert sorted(told.trades) == [1, 2, 3, 4]
    elif isinstance(told.stream, BookFeed) and offer.shape.prev_seq:
        assert told.gaps, "the chain is broken"


@pytest.mark.fault("X01")
@pytest.mark.parametrize(("name", "offer"), PUSHED)
def test_what_both_sockets_bring_is_stored_once(name: str, offer: Offer) -> None:
    told = Told(name, offer, [1, 2, 3, CUT, 2, 3, 4])
    assert told.accounted == told.sent
    if offer.kind is StreamKind.TRADES:
        assert told.trades == [1, 2, 3, 4]
        assert [missing for _, missing in told.gaps if missing > 0] == []


@pytest.mark.fault("X14")
@pytest.mark.parametrize(("name", "offer"), PUSHED)
def test_a_hole_between_two_sockets_is_declared(name: str, offer: Offer) -> None:
    told = Told(name, offer, [1, 2, CUT, 5, 6])
    assert told.accounted == told.sent
    if isinstance(told.stream, ContiguousTrades):
        assert told.gaps == [(GapReason.RECONNECT, 2)]
    elif offer.shape.time and offer.kind not in (StreamKind.L2_BOOK, StreamKind.LIQUIDATIONS):
        # A book says it when it is whole again, liquidations when they have been heard for a while.
        assert GapReason.RECONNECT in dict(told.gaps)
