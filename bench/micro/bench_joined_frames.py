"""Would frames be cheaper that are joined into one list and decoded together, when a socket is
behind? Binance's trades, with today's decoder; no feed and no ring.
"""

import time
from typing import Any, Final

import msgspec
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bench.frames import binance_trades
from shards.venues.binance.decode import _FuturesMessage
from shards.venues.digits import read_number

pytestmark = pytest.mark.benchmark(timer=time.thread_time)
_OPTIONS: Final[dict[str, Any]] = {"strict": False, "dec_hook": read_number, "float_hook": str}
_one: Final = msgspec.json.Decoder(_FuturesMessage, **_OPTIONS).decode
_many: Final = msgspec.json.Decoder(list[_FuturesMessage], **_OPTIONS).decode


def alone(frames: list[bytes]) -> list[Any]:
    """Frame by frame, as a shard does."""
    return [_one(frame) for frame in frames]


def together(frames: list[bytes]) -> list[Any]:
    """All as one list."""
    found: list[Any] = _many(b"[" + b",".join(frames) + b"]")
    return found


@pytest.mark.parametrize("count", [10, 100, 500])
@pytest.mark.parametrize("way", [alone, together])
def test_joined(benchmark: BenchmarkFixture, way: Any, count: int) -> None:
    frames = [binance_trades(number, 1) for number in range(1, count + 1)]
    benchmark.group = f"decode {count} trades"
    benchmark.extra_info["items"] = count
    found = benchmark.pedantic(way, (frames,), rounds=200, warmup_rounds=5)
    assert [each.a for each in found] == list(range(1, count + 1))
