"""Listings that wait for the database: events in order, and none that vanishes unsaid."""

import pytest

from engine.data.instrument import Instrument
from engine.messages.listings import InstrumentEvent, ListingLoaded, ListingStored
from engine.streams import listing_outbox
from engine.streams.listing_outbox import ListingOutbox


def loaded(number: int) -> ListingLoaded:
    event = InstrumentEvent("acme", f"S{number}", "listed")
    return ListingLoaded("acme", [Instrument("acme", f"S{number}", 2, 3)], [event])


def test_only_the_newest_listing_is_kept_whole_and_all_events_are() -> None:
    waiting = ListingOutbox()
    names = [waiting.take(loaded(number), now_ns=5).loaded_ns for number in range(3)]
    assert names == [5, 6, 7], "a clock that stands still gives no two of them one name"
    assert [len(each.instruments) for each in waiting] == [0, 0, 1]
    assert [each.events[0].symbol for each in waiting] == ["S0", "S1", "S2"]
    waiting.saved(ListingStored("acme", 6))
    assert [each.loaded_ns for each in waiting] == [7]


def test_events_that_can_wait_no_longer_are_left_to_the_log(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(listing_outbox, "_PENDING_MAX", 2)
    waiting = ListingOutbox()
    for number in range(3):
        waiting.take(loaded(number), now_ns=5)
    assert [each.events[0].symbol for each in waiting] == ["S1", "S2"]
    assert "acme: S0 listed: not kept: the database has been away for too long" in caplog.text
