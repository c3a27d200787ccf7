"""Spans of rows stay while days have no index by stream, and the newest of a stream for ever."""

import pytest

from engine.base.clock import DAY_NS
from engine.upkeep.task import Place
from engine.upkeep.tasks.day_index import DayIndex
from engine.upkeep.tasks.row_spans import ForgetRowSpans
from tests.engine.upkeep.database_rig import (
    NOON_NS,
    TODAY,
    make_days,
    moment,
    place_in,
    put_trades,
)

pytestmark = pytest.mark.usefixtures("postgres")  # the layout of plain PostgreSQL


def spans(place: Place) -> list[tuple[int, int]]:
    """Stream and day of each."""
    found = place.session.execute(
        "SELECT stream_id, (extract(epoch FROM from_time) / 86400)::int FROM row_span"
        " WHERE kind = 'trade' ORDER BY 1, 2"
    )
    return [(stream, day) for stream, day in found.fetchall()]


def test_spans_go_once_their_days_have_an_index(database_url: str) -> None:
    with place_in(database_url) as place:
        make_days(place, "trade", *range(TODAY - 4, TODAY + 1))
        place.session.execute("SELECT begin_row_spans()")
        for day in range(TODAY - 4, TODAY + 1):
            put_trades(place.session, day + 0.1, 3, stream_id=1)
        put_trades(place.session, TODAY - 3.9, 3, stream_id=2)
        put_trades(place.session, TODAY - 2.9, 3, stream_id=2)
        place.session.execute("SELECT note_row_spans('trade', '-infinity', 'infinity')")
        every = [(1, day) for day in range(TODAY - 4, TODAY + 1)]
        assert spans(place) == [*every, (2, TODAY - 4), (2, TODAY - 3)]
        assert ForgetRowSpans().run(place) == ""
        DayIndex().run(place)
    with place_in(database_url, now_ns=NOON_NS) as place:
        assert ForgetRowSpans().run(place) == "forgot 5 spans"
        assert spans(place) == [(1, TODAY), (2, TODAY - 3)]
        assert ForgetRowSpans().run(place) == ""
        begin = "SELECT spans_from FROM row_span_begin WHERE kind = 'trade'"
        assert place.session.execute(begin).fetchall() == [(moment(TODAY - 0.5),)]


def test_a_day_that_ended_a_moment_ago_keeps_them(database_url: str) -> None:
    """Until everything that is late is in."""
    with place_in(database_url, now_ns=TODAY * DAY_NS + DAY_NS // 8) as place:
        make_days(place, "trade", TODAY - 1, TODAY)
        place.session.execute("SELECT begin_row_spans()")
        put_trades(place.session, TODAY - 0.2, 3)
        put_trades(place.session, TODAY + 0.1, 3)
        place.session.execute("SELECT note_row_spans('trade', '-infinity', 'infinity')")
        assert DayIndex().run(place) != ""
        assert ForgetRowSpans().run(place) == ""
        assert len(spans(place)) == 2
