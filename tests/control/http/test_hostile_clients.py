"""Real sockets: what drips, lies, floods and never reads. The others must not notice."""

import asyncio
import contextlib
import json
import random
import socket
from collections import Counter
from typing import Any

import pytest
import uvloop

from control.api.routes import health
from control.http.protocol import Limits
from control.state.exposition import Exposition
from tests.control.api.api_rig import Rig, served
from tests.control.api.hostile_requests import (
    CLOSE,
    DISHONEST,
    GOOD,
    HOSTILE,
    connect,
    exchange,
    post,
    status_of,
)

pytestmark = pytest.mark.whole

QUICK = Limits(headers_s=0.3, body_s=0.4, write_s=0.4)


def serve(scenario: Any, limits: Limits = QUICK, **options: Any) -> None:
    """Run `scenario(port, rig)` against a served rig, on the loop that production uses."""

    async def main() -> None:
        rig = Rig(**options)
        async with served(rig, limits) as port:
            await scenario(port, rig)

    uvloop.run(main())


def body_of(answer: bytes) -> Any:
    return json.loads(answer.partition(b"\r\n\r\n")[2])


@pytest.mark.fault("A08")
@pytest.mark.parametrize(
    "parts",
    [
        [],
        [b"GET /streams HT"],
        [b"GET /streams HTTP/1.1\r\n", *([b"X-Drip: 1\r\n"] * 20)],
        [post(b"", b"Content-Length: 100")],
        [post(b"", b"Content-Length: 100"), *([b" "] * 20)],
        [post(b"", b"Transfer-Encoding: chunked"), *([b"1\r\n \r\n"] * 20)],
    ],
    ids=["silent", "half a line", "dripped header", "no body", "dripped body", "dripped chunks"],
)
def test_a_client_that_drips_is_cut_off(parts: list[bytes]) -> None:
    async def scenario(port: int, rig: Rig) -> None:
        reader, writer = await connect(port)
        reading = asyncio.create_task(reader.read())
        answer = b""
        async with asyncio.timeout(30):
            for part in parts:
                if not reading.done():
                    writer.write(part)
                await asyncio.wait([reading], timeout=0.05)
            # What drips into a connection that is cut off resets it; the answer may go with that.
            with contextlib.suppress(ConnectionResetError):
                answer = await reading
        writer.close()
        if answer or len(parts) <= 1:
            assert status_of(answer) == 408
            assert body_of(answer)["kind"] == "too_slow"
        assert rig.supervisor.received == []

    serve(scenario)


def test_a_dripped_second_request_is_cut_off_too_and_an_idle_connection_is_not() -> None:
    async def scenario(port: int, _: Rig) -> None:
        reader, writer = await connect(port)
        writer.write(GOOD)
        await reader.readuntil(b"}")
        await asyncio.sleep(QUICK.headers_s * 2)  # idle between requests: keep-alive
        writer.write(GOOD)
        assert (await reader.readuntil(b"}")).startswith(b"HTTP/1.1 200")
        writer.write(b"GET /str")
        async with asyncio.timeout(30):
            rest = await reader.read()
        assert b" 408 " in rest
        writer.close()

    serve(scenario)


def test_who_has_left_before_his_turn_costs_nobody_anything(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As scrapes that were given up while control was away, and wait in the queue of the socket."""
    encoded = []

    class Counted(Exposition):
        def encode(self, accept: str | None) -> tuple[bytes, str]:
            encoded.append(accept)
            return super().encode(accept)

    monkeypatch.setattr(health, "Exposition", Counted)
    asked = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n"

    async def scenario(port: int, _: Rig) -> None:
        for _number in range(20):  # without a pause: nobody listens meanwhile
            with socket.create_connection(("127.0.0.1", port)) as impatient:
                impatient.sendall(asked)
        reader, writer = await connect(port)
        writer.write(asked)
        async with asyncio.timeout(30):
            assert (await reader.readuntil(b"fts_")).startswith(b"HTTP/1.1 200")
        writer.close()
        assert len(encoded) == 1

    serve(scenario)


def test_pipelined_requests_are_answered_in_order() -> None:
    async def scenario(port: int, _: Rig) -> None:
        reader, writer = await connect(port)
        writer.write(GOOD * 3)
        async with asyncio.timeout(30):
            for _number in range(3):
                assert (await reader.readuntil(b"}")).lstrip().startswith(b"HTTP/1.1 200")
        writer.close()

    serve(scenario)


@pytest.mark.fault("A12")
def test_a_client_that_never_reads_is_dropped() -> None:
    async def scenario(port: int, rig: Rig) -> None:
        reader, writer = await connect(port)
        transport: Any = writer.transport
        transport.pause_reading()
        for _ in range(200):  # more than the socket buffers hold
            writer.write(b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await asyncio.sleep(QUICK.write_s * 3)
        assert status_of(await exchange(port, GOOD.replace(b"\r\n\r\n", CLOSE))) == 200
        transport.resume_reading()
        with contextlib.suppress(ConnectionError, RuntimeError):
            async with asyncio.timeout(30):
                while await reader.read(1 << 16):
                    pass
        writer.close()

    serve(scenario)


@pytest.mark.fault("A03")
def test_oversized_bodies_are_refused_without_being_read() -> None:
    async def scenario(port: int, _: Rig) -> None:
        huge = await exchange(port, post(b"", b"Content-Length: 100000000"))
        assert status_of(huge) == 413
        chunk = b"10000\r\n" + b" " * 65_536 + b"\r\n"
        chunked = await exchange(port, post(b"", b"Transfer-Encoding: chunked"), *([chunk] * 40))
        assert status_of(chunked) in (0, 413)  # 0: reset while we still sent
        assert status_of(await exchange(port, GOOD.replace(b"\r\n\r\n", CLOSE))) == 200

    serve(scenario, Limits(headers_s=1.0, body_s=2.0))


@pytest.mark.fault("A11")
@pytest.mark.parametrize(
    ("raw", "statuses"),
    DISHONEST,
)
def test_bytes_that_are_no_honest_request(raw: bytes, statuses: set[int]) -> None:
    async def scenario(port: int, rig: Rig) -> None:
        answer = await exchange(port, raw)
        assert status_of(answer) in statuses | {0}, answer[:200]
        assert rig.supervisor.received == [], "nothing was smuggled through"
        assert status_of(await exchange(port, GOOD.replace(b"\r\n\r\n", CLOSE))) == 200

    serve(scenario)


@pytest.mark.fault("A04")
@pytest.mark.parametrize(
    "path",
    [
        "/../../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd", "//etc/passwd", "/ui/../../etc/passwd",
        "/docs/%2e%2e%2fmain.py", "/%00", "/docs%00.html", "/streams/%2e%2e", "/..;/", "/\\etc",
        "/http://evil.example/", "/%c0%ae%c0%ae/etc/passwd",
    ],
)  # fmt: skip
def test_paths_out_of_bounds_lead_nowhere(path: str) -> None:
    async def scenario(port: int, _: Rig) -> None:
        raw = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode()
        answer = await exchange(port, raw)
        assert status_of(answer) in (400, 404)
        assert b"root:" not in answer

    serve(scenario)


@pytest.mark.fault("A08")
def test_one_clients_idle_sockets_do_not_lock_the_others_out() -> None:
    limits = Limits(headers_s=1.0, connections_per_client=20)

    async def scenario(port: int, _: Rig) -> None:
        idle = [await connect(port) for _ in range(20)]
        refused = await exchange(port)
        assert status_of(refused) == 429
        assert b"\r\nRetry-After: 1\r\n" in refused
        async with asyncio.timeout(30):
            for reader, _writer in idle:
                await reader.read()  # each is cut off in turn
        assert status_of(await exchange(port, GOOD.replace(b"\r\n\r\n", CLOSE))) == 200
        for _reader, writer in idle:
            writer.close()

    serve(scenario, limits)


@pytest.mark.fault("A09")
@pytest.mark.timeout(120)
def test_ten_thousand_hostile_requests_are_no_server_error() -> None:
    """64 clients at a time; every answer is read to its end."""
    seed = random.Random(7)
    orders = [seed.choice(HOSTILE) for _ in range(10_000)]
    seen: Counter[int] = Counter()

    async def client(port: int, work: "asyncio.Queue[bytes]") -> None:
        while not work.empty():
            raw = work.get_nowait().replace(b"\r\n\r\n", CLOSE, 1)
            seen[status_of(await exchange(port, raw))] += 1

    async def scenario(port: int, rig: Rig) -> None:
        work: asyncio.Queue[bytes] = asyncio.Queue()
        for raw in orders:
            work.put_nowait(raw)
        await asyncio.gather(*(client(port, work) for _ in range(64)))
        assert seen.total() == 10_000
        assert {status for status in seen if status >= 500} == set(), seen
        assert seen[201] == 1, "repeats are conflicts"
        assert len(rig.supervisor.streams) == 1
        assert status_of(await exchange(port, GOOD.replace(b"\r\n\r\n", CLOSE))) == 200

    serve(scenario, Limits(), admission="any", timeout_s=30.0)  # a loaded machine is no error
