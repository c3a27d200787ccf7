"""Shares of the configured streams: each stream of one engine, and few that move."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.base.errors import ConfigError
from engine.data.names import StreamKey, StreamKind
from engine.start.stream_share import StreamShare

names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)


def owner(key: StreamKey, total: int) -> int:
    (found,) = [each for each in range(total) if StreamShare(each, total).has(key)]
    return found


@given(venue=names, symbol=names, total=st.integers(1, 20))
def test_one_engine_has_a_symbol_and_one_more_takes_it_or_leaves_it(
    venue: str, symbol: str, total: int
) -> None:
    before = {owner(StreamKey(venue, symbol, kind), total) for kind in StreamKind}
    assert len(before) == 1
    after = owner(StreamKey(venue, symbol, StreamKind.TRADES), total + 1)
    assert after in (*before, total)


def test_every_version_shares_alike() -> None:
    """Engines are replaced one after the other; with two opinions a stream would have no engine."""
    symbols = ("BTCUSDT", "ETHUSDT", "SOLUSDT", "BTC-27MAR26", "한국")
    owners = [owner(StreamKey("acme", each, StreamKind.TRADES), 5) for each in symbols]
    assert owners == [2, 1, 4, 1, 0]


@pytest.mark.parametrize(
    "text", ["", "1", "1/0", "3/3", "-1/3", "1/3 ", " 1/3", "1/3/3", "a/b", "1/10000", "\u0661/3"]
)
def test_what_is_no_share_is_refused_by_name(text: str) -> None:
    with pytest.raises(ConfigError, match=r"^here: "):
        StreamShare.parse(text, "here")
