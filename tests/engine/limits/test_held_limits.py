"""HeldLimit: never more than the limit, and nobody loses what he holds."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.limits.held_limits import HeldLimit

CLIENTS = "abcd"
STEPS = st.lists(st.tuples(st.sampled_from(CLIENTS), st.integers(0, 12) | st.none()), max_size=60)


@pytest.mark.fault("H07")
@given(st.integers(1, 10), STEPS)
def test_seats_are_never_more_than_the_limit_and_none_stays_free_that_is_wanted(
    limit: int, steps: list[tuple[str, int | None]]
) -> None:
    places = HeldLimit(limit)
    wanted: dict[str, int] = {}
    held: dict[str, int] = {}
    """As the clients know it."""
    for request_id, (client, count) in enumerate(steps):
        before = dict(held)
        if count is None:
            wanted.pop(client, None)
            held.pop(client, None)
            told = places.forget_client(client)
        else:
            wanted[client] = count
            told = places.want(client, request_id, count)
            assert client in told
            assert places.held_by(client)[0] == request_id
        for each in told:
            held[each] = places.held_by(each)[1]
        for each, had in before.items():
            if each != client:
                assert held[each] >= had, "nobody takes what another one holds"
        assert all(held[each] <= wanted[each] for each in held)
        assert sum(held.values()) == places.held_count == min(limit, sum(wanted.values()))
        assert places.waiting_count == sum(wanted.values()) - places.held_count


def test_who_came_first_is_served_first() -> None:
    places = HeldLimit(3)
    assert places.want("a", 1, 3) == {"a"}
    assert places.want("b", 1, 2) == {"b"}
    assert places.want("c", 1, 2) == {"c"}
    assert places.want("a", 2, 0) == {"a", "b", "c"}
    assert [places.held_by(client) for client in "abc"] == [(2, 0), (1, 2), (1, 1)]
    assert places.forget_client("b") == {"c"}
    assert places.held_by("c") == (1, 2)
