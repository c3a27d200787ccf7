"""What does a frame cost a shard before its message is decoded? That it is whole, a text and
without reserved bits, its payload as bytes, and the time.
"""

import time
from typing import Final

import pytest
from picows import WSMsgType, WSTransport
from picows.picows import _make_test_ws_frame
from pytest_benchmark.fixture import BenchmarkFixture

from bench.frames import binance_trades
from shards.transport.socket import Socket
from shards.venues.kit import FrameDecoder

COUNT: Final = 1000


class NoOwner:
    """Whose frames are all good."""

    def opened(self, socket: Socket) -> FrameDecoder:
        """It is not."""
        raise AssertionError(socket)

    def bad_frame(self, error: Exception, payload: bytes) -> None:
        """There is none."""
        raise AssertionError(payload) from error


@pytest.mark.benchmark(timer=time.thread_time)
def test_frame_alone_in_its_read(benchmark: BenchmarkFixture) -> None:
    """With what is done once a read: another look at the clock, and a call to publish."""
    taken: list[int] = []
    socket = Socket(NoOwner(), lambda: None)
    socket._decode = lambda payload, _ts_recv: taken.append(len(payload))
    payload = binance_trades(1, 1)
    frame = _make_test_ws_frame(WSMsgType.TEXT, payload, True, False)
    transport = WSTransport.__new__(WSTransport)

    def read() -> None:
        for _ in range(COUNT):
            socket.on_ws_frame(transport, frame)

    benchmark.extra_info.update(items=COUNT)
    benchmark.pedantic(read, rounds=30, warmup_rounds=3)
    assert set(taken) == {len(payload)}
