"""The simulator as the demo's child: what of its data nobody has read yet."""

import contextlib
import socket
from collections.abc import Iterator

import pytest

from control.proof.simulator import SimulatorProcess
from tests.waiting import wait_for

pytestmark = pytest.mark.whole


@pytest.fixture
def simulator() -> Iterator[SimulatorProcess]:
    process = SimulatorProcess(["--port", "0", "--rate", "5000", "--symbols", "1"])
    yield process
    process.stop()


def all_is_taken(client: socket.socket, simulator: SimulatorProcess) -> bool:
    """Take what is there; whether nothing else waits."""
    with contextlib.suppress(BlockingIOError):
        client.recv(1 << 20)
    return simulator.unread_bytes() == 0


def test_bytes_that_wait_in_a_clients_socket_are_unread_until_it_takes_them(
    simulator: SimulatorProcess,
) -> None:
    at = simulator.venues()["binance_linear"].ws_url
    assert at is not None
    host, port = at.removeprefix("ws://").partition("/")[0].split(":")
    with socket.create_connection((host, int(port)), timeout=60) as client:
        client.sendall(
            b"GET /binance_linear/market/stream?streams=btcusdt@aggTrade HTTP/1.1\r\n"
            b"Host: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        )
        wait_for(lambda: simulator.unread_bytes() > 1000, "data in the socket")
        simulator.pause(60)
        unread = simulator.unread_bytes()
        assert unread > 1000
        client.setblocking(False)  # what is on its way is counted at both ends for a moment
        wait_for(lambda: all_is_taken(client, simulator), "nothing that waits")
