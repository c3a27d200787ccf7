"""Sockets that end: how soon the next one is there, and that nobody waits for a venue to answer."""

import asyncio
import contextlib
import ssl
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import uvloop

from engine.base.clock import monotonic_s
from engine.messages.streams import StreamState
from shards.transport.hangups import MOMENT_S
from tests.shards.doubles import spec_of
from tests.shards.fake_venue import (
    CLOSE,
    PING,
    PONG,
    FakeRig,
    FakeVenue,
    agg_trade,
    frame,
    running,
    serving,
)

pytestmark = pytest.mark.whole

NAMES = [f"S{number}USDT" for number in range(30)]


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For localhost, with its key."""
    path = tmp_path_factory.mktemp("tls") / "venue.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj",
         "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-keyout", str(path),
         "-out", str(path.with_suffix(".crt"))],
        check=True, capture_output=True,
    )  # fmt: skip
    path.write_text(path.read_text() + path.with_suffix(".crt").read_text())
    return path


@contextlib.asynccontextmanager
async def _sockets(tls: Path | None, tmp_path: Path) -> AsyncIterator[tuple[FakeRig, FakeVenue]]:
    """A session whose sockets go to a venue that may speak TLS."""
    context = None
    if tls is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(tls)
    async with (
        serving(context) as venue,
        running(tmp_path, ws_url=venue.ws_url, streams_per_connection=1) as rig,
    ):
        yield rig, venue


@pytest.mark.fault("N30")
@pytest.mark.parametrize("goes_on", [False, True], ids=["silent", "sending"])
@pytest.mark.parametrize("way", ["plain", "tls"])
def test_a_venue_that_closes_after_a_short_life_is_back_soon(
    tmp_path: Path,
    certificate: Path,
    monkeypatch: pytest.MonkeyPatch,
    way: str,
    goes_on: bool,
) -> None:
    """However often it does so, and though it never ends the connection itself."""
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate.with_suffix(".crt")))
    lives = 7 if way == "plain" else 2

    async def body() -> None:
        async with _sockets(certificate if way == "tls" else None, tmp_path) as (rig, venue):
            rig.session.start([spec_of(symbol=NAMES[0])])
            socket = await venue.socket()
            for life in range(lives):
                socket.send(agg_trade(NAMES[0], life + 1))
                await rig.until(lambda count=life + 1: len(rig.double.rows("trade")) == count)
                socket.raw(frame(CLOSE, b"\x03\xe9bye"))
                began_s = monotonic_s()
                sending = asyncio.create_task(_keep_sending(socket.raw)) if goes_on else None
                socket = await venue.socket()
                took_s = monotonic_s() - began_s
                if sending is not None:
                    sending.cancel()
                assert took_s <= 5.0, f"life {life} of {lives}"
            assert rig.double.rows("gap").size == 0

    uvloop.run(body())


async def _keep_sending(raw: object) -> None:
    while True:
        raw(frame(1, b"{}"))  # type: ignore[operator]
        await asyncio.sleep(0.005)


@pytest.mark.fault("N30")
@pytest.mark.parametrize("way", ["plain", "tls"])
def test_many_sockets_end_at_once(
    tmp_path: Path, certificate: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate.with_suffix(".crt")))

    async def body() -> None:
        async with _sockets(certificate if way == "tls" else None, tmp_path) as (rig, venue):
            rig.session.start([spec_of(n, symbol=name) for n, name in enumerate(NAMES)])
            sockets = [await venue.socket() for _ in NAMES]
            for socket, name in zip(sockets, NAMES, strict=True):
                socket.send(agg_trade(name, 1))
            began_s = monotonic_s()
            await rig.session.close()
            took_s = monotonic_s() - began_s
            assert took_s < MOMENT_S * len(NAMES) / 2, "one after the other"
            states = {stream.state for stream in rig.session.streams}
            assert states == {StreamState.STOPPED}

    uvloop.run(body())


@pytest.mark.fault("N12")
def test_pings_are_answered_through_tls_as_long_as_the_venue_reads(
    tmp_path: Path, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate.with_suffix(".crt")))

    async def body() -> None:
        async with _sockets(certificate, tmp_path) as (rig, venue):
            rig.session.start([spec_of(symbol=NAMES[0])])
            socket = await venue.socket()
            socket.raw(frame(PING, b"a"))
            await rig.until(lambda: (PONG, b"a") in list(socket.received._queue))  # type: ignore[attr-defined]
            (connection,) = rig.session.connections
            assert connection._socket is not None
            unsent = connection._socket.transport.underlying_transport.get_write_buffer_size
            socket.pause()
            for _ in range(100):
                socket.raw(frame(PING, b"x" * 125) * 1000)
                await socket.writer.drain()
            socket.send(agg_trade(NAMES[0], 1))
            await rig.until(lambda: len(rig.double.rows("trade")) == 1)
            assert unsent() < 1 << 20
            assert connection.connect_count == 1

    uvloop.run(body())


@pytest.mark.fault("N30")
def test_a_socket_nobody_needs_ends_whether_the_venue_answers_or_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shards.transport.sockets._LINGER_S", 0.1)

    async def body() -> None:
        async with _sockets(None, tmp_path) as (rig, venue):
            rig.session.start([spec_of(symbol=NAMES[0])])
            socket = await venue.socket()
            rig.session.stop([3])
            await rig.until(socket.ended.is_set, within_s=3)

    uvloop.run(body())
