"""HeldLimit: never more than the limit, and nobody loses what he holds."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.limits.held_limits import HeldLimit, Holder

HOLDERS: list[Holder] = [(client, "acme") for client in "abcd"]
STEPS = st.lists(st.tuples(st.sampled_from(HOLDERS), st.integers(0, 12) | st.none()), max_size=60)


@pytest.mark.fault("H07")
@given(st.integers(1, 10), STEPS)
def test_seats_are_never_more_than_the_limit_and_none_stays_free_that_is_wanted(
    limit: int, steps: list[tuple[Holder, int | None]]
) -> None:
    places = HeldLimit(limit)
    wanted: dict[Holder, int] = {}
    held: dict[Holder, int] = {}
    """As the holders know it."""
    for request_id, (holder, count) in enumerate(steps):
        before = dict(held)
        if count is None:
            wanted.pop(holder, None)
            held.pop(holder, None)
            told = places.forget_client(holder[0])
        else:
            wanted[holder] = count
            told = places.want(holder, request_id, count)
            assert holder in told
            assert places.held_by(holder)[0] == request_id
        for each in told:
            held[each] = places.held_by(each)[1]
        for each, had in before.items():
            if each != holder:
                assert held[each] >= had, "nobody takes what another one holds"
        assert all(held[each] <= wanted[each] for each in held)
        assert sum(held.values()) == places.held_count == min(limit, sum(wanted.values()))
        assert places.waiting_count == sum(wanted.values()) - places.held_count


def test_who_came_first_is_served_first() -> None:
    places = HeldLimit(3)
    a, b, c, _ = HOLDERS
    assert places.want(a, 1, 3) == {a}
    assert places.want(b, 1, 2) == {b}
    assert places.want(c, 1, 2) == {c}
    assert places.want(a, 2, 0) == {a, b, c}
    assert [places.held_by(each) for each in (a, b, c)] == [(2, 0), (1, 2), (1, 1)]
    assert places.forget_client("b") == {c}
    assert places.held_by(c) == (1, 2)


def test_all_that_a_client_holds_is_free_when_it_ends() -> None:
    places = HeldLimit(5)
    one, two, other = ("a", "perp"), ("a", "spot"), ("b", "perp")
    assert places.want(one, 1, 2) == {one}
    assert places.want(two, 1, 2) == {two}
    assert places.want(other, 1, 4) == {other}
    assert [places.held_by(each)[1] for each in (one, two, other)] == [2, 2, 1]
    assert places.forget_client("a") == {other}
    assert places.held_by(other) == (1, 4)
