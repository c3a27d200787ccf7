"""Spans: every row is in one, a busy stream claims seldom, and of a rare one they are precise."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from engine.data.flags import Flag
from engine.data.kind import Kind, RecordArray
from engine.data.kinds import BOOK, TRADE
from engine.writer.rows.spans import SNAPSHOTS, SPAN_MAX_NS, Claims, RowSpans

START_NS = 1_780_000_000_000_000_000
SECOND_NS = 1_000_000_000
IDS = np.array([7, 3, 11], np.int32)
"""Stream ids, by slot."""

Span = tuple[int, int, int]


def records(rows: list[tuple[int, int]], spec: Kind = TRADE) -> RecordArray:
    """Of (slot, ns after the start)."""
    found = np.zeros(len(rows), spec.dtype)
    found["stream"] = [slot for slot, _ in rows]
    found["ts_event"] = [START_NS + at for _, at in rows]
    return found


def claim(spans: RowSpans, rows: RecordArray, *, commits: bool = True) -> list[Span]:
    """(stream id, from, to) of the new spans of trades."""
    found = list(spans.claims("trade", rows, IDS))
    if commits:
        spans.keep(found)
    return [span for _, claims in found for span in spans_of(claims)]


def spans_of(claims: Claims) -> list[Span]:
    return list(
        zip(claims.stream_ids.tolist(), claims.from_ns.tolist(), claims.to_ns.tolist(), strict=True)
    )


batch = st.tuples(
    st.lists(
        st.tuples(st.integers(0, 2), st.integers(-(10**11), 3 * 10**11)), min_size=1, max_size=40
    ),
    st.booleans(),
)


@given(st.lists(batch, max_size=8))
def test_every_row_is_in_a_span_of_its_stream_that_is_stored_with_it_or_before(
    batches: list[tuple[list[tuple[int, int]], bool]],
) -> None:
    spans, stored = RowSpans(), list[Span]()
    for rows, commits in batches:
        found = claim(spans, records(rows), commits=commits)
        assert all(0 < to - since <= SPAN_MAX_NS for _, since, to in found)
        assert all(since % 1000 == to % 1000 == 0 for _, since, to in found)
        if not commits:
            continue
        stored += found
        times = {(int(IDS[slot]), START_NS + at) for slot, at in rows}
        assert all(
            any(i == stream and since <= at < to for i, since, to in stored) for stream, at in times
        )
        starts = {(stream, at // 1000 * 1000) for stream, at in times}
        assert {(stream, since) for stream, since, _ in found} <= starts, "begins with a row"


def test_a_busy_stream_claims_about_once_a_minute() -> None:
    spans = RowSpans()
    count = sum(
        len(claim(spans, records([(slot, at * SECOND_NS // 10) for slot in (0, 1)])))
        for at in range(36_000)
    )
    assert count < 2 * (3600 / 64 + 6)


def test_all_busy_streams_claim_at_the_same_time() -> None:
    spans = RowSpans()
    claiming = [
        bool(claim(spans, records([(slot, at * SECOND_NS + slot * 1000) for slot in range(3)])))
        for at in range(3600)
    ]
    assert sum(claiming[300:]) <= 3300 / 64 + 1


def test_a_rare_stream_claims_a_second_for_each_of_its_rows() -> None:
    spans = RowSpans()
    for minute in range(60):
        at = minute * 60 * SECOND_NS
        since = (START_NS + at) // 1000 * 1000
        assert claim(spans, records([(1, at)])) == [(3, since, since + SECOND_NS)]


def test_what_is_not_committed_is_claimed_again_and_so_is_all_of_a_new_session() -> None:
    spans, rows = RowSpans(), records([(0, 0)])
    first = claim(spans, rows, commits=False)
    assert first == claim(spans, rows)
    assert not claim(spans, rows)
    spans.forget()
    assert claim(spans, rows) == first


def test_a_late_row_has_a_span_of_its_own_and_changes_no_newer_one() -> None:
    spans = RowSpans()
    claim(spans, records([(0, 100 * SECOND_NS)]))
    late = claim(spans, records([(0, 0)]))
    assert late == [(7, START_NS, START_NS + SECOND_NS)]
    assert not claim(spans, records([(0, 100 * SECOND_NS + 5)]))


def test_snapshots_of_books_have_spans_of_their_own() -> None:
    spans, rows = RowSpans(), records([(0, 0), (0, 5), (1, 7)], BOOK)
    rows["flags"][1] = Flag.SNAPSHOT | Flag.FIRST_IN_EVENT
    found = {kind: spans_of(claims) for kind, claims in spans.claims("book", rows, IDS)}
    assert {stream for stream, _, _ in found["book"]} == {7, 3}
    assert found[SNAPSHOTS] == [(7, START_NS, START_NS + SECOND_NS)]
