"""Placement: balanced, stable, a symbol's streams together."""

from hypothesis import given
from hypothesis import strategies as st

from engine.data.names import StreamKey, StreamKind
from engine.messages.streams import StreamSpec
from engine.streams.placement import spread

SYMBOLS = st.lists(st.sampled_from("ABCDEFGHIJKLMNOP"), unique=True, min_size=1)


def specs(symbols: list[str]) -> list[StreamSpec]:
    keys = [StreamKey("v", symbol, kind) for symbol in symbols for kind in StreamKind]
    return [StreamSpec(slot, key) for slot, key in enumerate(keys)]


@given(SYMBOLS, st.integers(1, 5))
def test_every_stream_has_one_shard_and_symbols_stay_together(
    symbols: list[str], count: int
) -> None:
    shards = spread(specs(symbols), count)
    assert sorted(s.slot for shard in shards for s in shard) == list(
        range(len(StreamKind) * len(symbols))
    )
    homes = [{s.key.symbol for s in shard} for shard in shards]
    assert sum(map(len, homes)) == len(symbols)
    assert max(map(len, shards)) - min(map(len, shards)) <= len(StreamKind)


@given(SYMBOLS, st.integers(1, 5))
def test_order_of_the_configuration_does_not_matter(symbols: list[str], count: int) -> None:
    streams = specs(symbols)
    assert spread(streams, count) == spread(list(reversed(streams)), count)
