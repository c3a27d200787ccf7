"""Which database a stream is stored in: the most specific rule decides, in whatever order they are
written, and rules that do not decide are found.
"""

import random
from collections.abc import Sequence
from itertools import product

from hypothesis import given
from hypothesis import strategies as st

from engine.data.names import DEFAULT_DATABASE, StreamKey, StreamKind, is_database
from engine.data.routes import Route, Routes, conflict

VENUES = ("acme", "bolt", "other")
KINDS = (StreamKind.TRADES, StreamKind.L2_BOOK, StreamKind.FUNDING)
SYMBOLS = ("BTC", "ETH", "SOL")
KEYS = [StreamKey(*names) for names in product(VENUES, SYMBOLS, KINDS)]
"""The last of each no rule names: what holds for it holds for all that are not named."""

rules = st.lists(
    st.builds(
        Route,
        st.sampled_from(["database", "databases.a", "databases.b"]),
        st.sampled_from([None, *VENUES[:-1]]),
        st.sampled_from([None, *KINDS[:-1]]),
        st.sampled_from([None, *SYMBOLS[:-1]]),
    ),
    max_size=8,
)


def named(route: Route) -> int:
    return sum(each is not None for each in route.fit)


def candidates(routes: Sequence[Route], key: StreamKey) -> set[str]:
    """Databases of the rules that fit a stream and name most, one by one."""
    fitting = [
        route
        for route in routes
        if route.venue in (None, key.venue)
        and route.kind in (None, key.kind)
        and route.symbol in (None, key.symbol)
    ]
    most = max(map(named, fitting), default=0)
    return {route.database for route in fitting if named(route) == most}


@given(rules)
def test_rules_contradict_where_two_that_name_most_disagree_of_a_stream(
    routes: list[Route],
) -> None:
    doubtful = any(len(candidates(routes, key)) > 1 for key in KEYS)
    assert (conflict(routes) is not None) == doubtful


@given(rules, st.randoms())
def test_the_rule_that_names_most_decides_in_any_order(
    routes: list[Route], chance: random.Random
) -> None:
    if conflict(routes) is not None:
        return
    shuffled = sorted(routes, key=lambda _: chance.random())
    for key in KEYS:
        (wanted,) = candidates(routes, key) or {DEFAULT_DATABASE}
        assert Routes(routes).database(key) == Routes(shuffled).database(key) == wanted
    assert conflict(shuffled) is None


def test_both_of_two_that_contradict_are_told() -> None:
    rules = [Route("databases.a", venue="acme"), Route("databases.b", kind=StreamKind.TRADES)]
    found = conflict(rules)
    assert found is not None
    assert list(map(str, found)) == [
        "databases.a (venue acme)",
        "databases.b (kind Trades)",
    ]
    decided = [*rules, Route("databases.b", venue="acme", kind=StreamKind.TRADES)]
    assert conflict(decided) is None


def test_many_symbols_are_looked_at_in_no_time() -> None:
    """Pair by pair this would be 10,000,000,000."""
    many = [Route("databases.a", "acme", None, f"S{number}") for number in range(50_000)]
    trades = StreamKind.TRADES
    many += [Route("databases.b", None, trades, f"T{number}") for number in range(50_000)]
    assert conflict(many) is None
    assert conflict([*many, Route("databases.b", None, trades, "S77")]) is not None


def test_sinks_that_are_databases_are_known_by_their_name() -> None:
    assert is_database("database")
    assert is_database("databases.archive")
    assert not is_database("redis")
