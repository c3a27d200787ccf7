"""A socket's life: bytes on a real socket, a server of the test's own on a free port."""

import asyncio
import dataclasses
import os
import struct
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from socket import SO_LINGER, SOL_SOCKET

import pytest
import uvloop
from picows import WSCloseCode, WSFrame, WSListener, WSMsgType, WSTransport, ws_create_server

from engine.base.backoff import Backoff
from engine.base.clock import monotonic_s, wall_ns
from engine.data.flags import GapReason
from engine.data.kinds import TRADE
from engine.data.names import Transport
from engine.limits.leases import Lease, LeaseClient, Refusable
from engine.messages.limits import LeaseGranted, LeaseRequest, LimitFeedback
from engine.messages.pipes import FromChild
from engine.messages.settings import VenueSettings
from engine.messages.streams import StreamState
from shards.feeds.trades import ContiguousTrades
from shards.transport.connection import Connection
from shards.venues import VENUES
from shards.venues.kit import Channel, SocketGroup, Venue
from tests.shards.doubles import MemoryRings, Open, spec_of
from tests.shards.fake_venue import TEXT, frame
from tests.waiting import until

VENUE = VENUES["binance_linear"]


def trade(trade_id: int) -> bytes:
    return (
        b'{"e":"aggTrade","E":1,"s":"BTCUSDT","a":%d,"p":"10.5","q":"2","f":1,"l":1,'
        b'"T":%d,"m":false}' % (trade_id, 1_700_000_000_000 + trade_id)
    )


class Server(WSListener):
    """The venue's end of each connection, in the order in which they came."""

    def __init__(self, sockets: "asyncio.Queue[Server]") -> None:
        self._sockets = sockets
        self.received: asyncio.Queue[bytes] = asyncio.Queue()
        self.pongs: asyncio.Queue[bytes] = asyncio.Queue()

    def on_ws_connected(self, transport: WSTransport) -> None:
        self.transport = transport
        self._sockets.put_nowait(self)

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type is WSMsgType.TEXT:
            self.received.put_nowait(frame.get_payload_as_bytes())
        elif frame.msg_type is WSMsgType.PONG:
            self.pongs.put_nowait(frame.get_payload_as_bytes())
        elif frame.msg_type is WSMsgType.CLOSE:
            transport.disconnect()

    def send(self, payload: bytes) -> None:
        self.transport.send(WSMsgType.TEXT, payload)


class Rig:
    """A server, a connection to it, and one trade stream behind that."""

    def __init__(self) -> None:
        self.sockets: asyncio.Queue[Server] = asyncio.Queue()
        self.double = MemoryRings()
        self.feed = ContiguousTrades(
            spec_of(), self.double.rings[TRADE.name], self.double.gaps, None
        )
        self.published = asyncio.Event()
        self.connection: Connection | None = None
        self.venue = VENUE
        self.tries: Counter[str] = Counter()
        self.backoff: Backoff | None = None

    def open(
        self, port: int, lifetime_s: float, group: SocketGroup, connects: Refusable | None = None
    ) -> Connection:
        """The connection under test."""
        channel = VENUE.channels[self.feed.key.kind, Transport.WS]
        assert isinstance(channel, Channel)
        topic = channel.topic("BTCUSDT", VenueSettings())
        self.connection = Connection(
            self.venue, group, f"ws://127.0.0.1:{port}/market/ws", [(topic, self.feed)],
            self.publish, connects or Open(), lifetime_s=lifetime_s, tries=self.tries,
            backoff=self.backoff,
        )  # fmt: skip
        return self.connection

    def publish(self) -> None:
        self.double.rings.publish()
        self.published.set()

    async def ids(self, count: int) -> list[int]:
        """Wait until `count` rows are visible to readers."""
        while True:
            self.published.clear()
            found: list[int] = self.double.rows("trade")["trade_id"].tolist()
            if len(found) >= count:
                return found
            await asyncio.wait_for(self.published.wait(), 5)


def run(
    test: Callable[[Rig], Awaitable[None]],
    *,
    lifetime_s: float = 3600.0,
    idle_timeout_s: float = 30.0,
    ping_interval_s: float = 10.0,
    json_ping: bytes | None = None,
    venue: Venue = VENUE,
) -> None:
    """Run a test against a fresh server; everything is closed afterwards."""
    group = dataclasses.replace(
        VENUE.groups["market"],
        message_interval_s=0.01,
        idle_timeout_s=idle_timeout_s,
        ping_interval_s=ping_interval_s,
        json_ping=json_ping,
    )

    async def body() -> None:
        rig = Rig()
        rig.venue = venue
        server = await ws_create_server(
            lambda _: Server(rig.sockets), "127.0.0.1", 0, enable_auto_pong=False
        )
        port = server.sockets[0].getsockname()[1]
        task = asyncio.create_task(rig.open(port, lifetime_s, group).run())
        try:
            await asyncio.wait_for(test(rig), 20)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            server.close()
            await server.wait_closed()

    uvloop.run(body())


def test_subscribes_and_stores_what_comes() -> None:
    async def test(rig: Rig) -> None:
        server = await rig.sockets.get()
        subscribe = await server.received.get()
        assert subscribe == b'{"method":"SUBSCRIBE","params":["btcusdt@aggTrade"],"id":1}'
        server.send(b'{"result":null,"id":1}')
        assert rig.feed.status().state == StreamState.SYNCING
        for trade_id in (1, 2, 3):
            server.send(trade(trade_id))
        assert await rig.ids(3) == [1, 2, 3]
        assert rig.feed.status().state == StreamState.LIVE
        assert rig.tries == {"connects": 1, "subscribes": 1}

    run(test)


@pytest.mark.fault("D07")
def test_what_was_heard_last_may_have_been_old_when_it_was_heard() -> None:
    """A process that stood still reads what has waited; what waited behind that may be gone."""

    async def test(rig: Rig) -> None:
        server = await rig.sockets.get()
        sent_ms = wall_ns() // 1_000_000 - 7000
        server.send(trade(1).replace(b"1700000000001", b"%d" % sent_ms))
        await rig.ids(1)
        assert rig.connection is not None
        assert 7.0 <= rig.connection.silent_s < 60.0

    run(test)


class Gate(asyncio.Event):
    """A message budget that is used up until it is set."""

    async def acquire(self, units: float = 1.0) -> None:
        """Wait until then."""
        await self.wait()

    def refused(self, status: int, wait_s: float | None) -> float:
        """Never mind."""
        return 0.0


def test_a_stream_that_comes_back_before_its_turn_was_never_away() -> None:
    """Unsubscribed and subscribed again it would miss what nobody can count."""

    async def test(rig: Rig) -> None:
        server = await rig.sockets.get()
        await server.received.get()
        connection, gate = rig.connection, Gate()
        assert connection is not None
        connection._messages = gate
        other = ContiguousTrades(
            spec_of(4, symbol="ETHUSDT"), rig.double.rings[TRADE.name], rig.double.gaps, None
        )
        connection.remove(rig.feed)
        await asyncio.sleep(0.01)  # its unsubscription waits for the budget
        connection.add([("btcusdt@aggTrade", rig.feed), ("ethusdt@aggTrade", other)])
        gate.set()
        assert await server.received.get() == (
            b'{"method":"SUBSCRIBE","params":["ethusdt@aggTrade"],"id":2}'
        )
        gate.clear()
        third = spec_of(5, symbol="SOLUSDT")
        gone = ContiguousTrades(third, rig.double.rings[TRADE.name], rig.double.gaps, None)
        connection.add([("solusdt@aggTrade", gone)])
        await asyncio.sleep(0.01)
        connection.remove(gone)
        connection.remove(other)
        gate.set()
        assert await server.received.get() == (
            b'{"method":"UNSUBSCRIBE","params":["ethusdt@aggTrade"],"id":3}'
        )

    run(test)


def test_a_refused_subscription_shows_what_the_venue_said() -> None:
    async def test(rig: Rig) -> None:
        server = await rig.sockets.get()
        await server.received.get()
        for words in ("Invalid request: too many", "no such stream"):
            server.send(b'{"error":{"code":2,"msg":"%s"},"id":1}' % words.encode())
            while words not in rig.feed.status().reason:
                await asyncio.sleep(0.005)
        assert rig.feed.status().reason == (
            "subscribed, waiting for the first data; the venue said: no such stream"
        )
        server.send(trade(1))
        await rig.ids(1)
        assert rig.feed.status().reason == ""

    run(test)


@pytest.mark.fault("X11")
def test_unusable_frames_are_counted_and_the_socket_lives_on() -> None:
    async def test(rig: Rig) -> None:
        server = await rig.sockets.get()
        server.send(trade(1))
        for bad in (b"{", b"", b"\xff\xfe", b'{"e":' * 100_000, b'{"e":"aggTrade","s":1}'):
            server.send(bad)
        server.transport.send(WSMsgType.BINARY, b"\x00\x01")
        server.send(trade(2))
        assert await rig.ids(2) == [1, 2]
        assert rig.sockets.empty(), "no reconnect"
        connection = rig.connection
        assert connection is not None
        counts = connection.malformed_by_reason
        assert counts == {"json": 3, "depth": 1, "schema": 1, "binary": 1}

    run(test)


@pytest.mark.fault("X01")
@pytest.mark.parametrize("code", [1000, 1001, 1012])
def test_cut_connection_comes_back_and_declares_exactly_what_it_missed(code: int) -> None:
    async def test(rig: Rig) -> None:
        first = await rig.sockets.get()
        first.send(trade(1))
        await rig.ids(1)
        first.transport.send_close(WSCloseCode(code), b"bye")
        second = await asyncio.wait_for(rig.sockets.get(), 2)
        assert b"SUBSCRIBE" in await second.received.get()
        second.send(trade(5))
        assert await rig.ids(2) == [1, 5]
        (gap,) = rig.double.rows("gap")
        assert (gap["from_seq"], gap["to_seq"]) == (2, 4)
        assert gap["reason"] == GapReason.RECONNECT

    run(test)


@pytest.mark.fault("X01")
def test_a_socket_that_should_be_replaced_says_so_and_goes_on() -> None:
    async def test(rig: Rig) -> None:
        first = await rig.sockets.get()
        connection = rig.connection
        assert connection is not None
        first.send(b'{"e":"serverShutdown","E":1}')
        first.send(trade(1))
        await rig.ids(1)
        assert connection.due == "the venue announced a shutdown"
        connection.close_first()  # as where there is no room for another one
        second = await asyncio.wait_for(rig.sockets.get(), 5)
        second.send(trade(2))
        await rig.ids(2)
        while not connection.due:  # after lifetime_s
            await asyncio.sleep(0.01)
        assert "planned" in connection.due
        assert rig.sockets.empty()

    run(test, lifetime_s=1.0)


@pytest.mark.fault("X05")
@pytest.mark.parametrize("task", ["subscribing", "pinging"])
def test_a_fault_in_a_sockets_own_work_ends_it_with_the_reason(
    task: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Otherwise it would live on for a day, and ask for nothing that is wanted later."""
    calls: list[object] = []

    def subscribe(topics: Sequence[str], request_id: int) -> Sequence[bytes]:
        calls.append(topics)
        if task == "subscribing" and len(calls) == 1:
            raise KeyError("a bug")
        return VENUE.subscribe(topics, request_id)

    async def test(rig: Rig) -> None:
        await rig.sockets.get()
        async with asyncio.timeout(30):
            while rig.feed.state is not StreamState.BACKOFF:
                await asyncio.sleep(0.005)
        assert "this socket's work failed: " in rig.feed.reason
        second = await asyncio.wait_for(rig.sockets.get(), 5)
        assert b"SUBSCRIBE" in await second.received.get()
        assert "Traceback" in caplog.text

    run(
        test,
        venue=dataclasses.replace(VENUE, subscribe=subscribe),
        ping_interval_s=0.2 if task == "pinging" else 10.0,
        json_ping=[] if task == "pinging" else None,  # type: ignore[arg-type]
    )


@pytest.mark.fault("X03")
def test_half_open_connection_is_noticed() -> None:
    """The server never answers a ping, as behind a cable that was pulled."""

    async def test(rig: Rig) -> None:
        first = await rig.sockets.get()
        first.send(trade(1))
        await rig.ids(1)
        heard: list[float] = []
        cut = rig.feed.cut

        def note(why: str, silent_s: float = 0.0, *, blame: GapReason | None = None) -> None:
            heard.append(silent_s)
            cut(why, silent_s, blame=blame)

        rig.feed.cut = note  # type: ignore[method-assign]
        await asyncio.wait_for(rig.sockets.get(), 10)
        assert heard[0] >= 0.5, "not since the silence was noticed, but since it began"

    run(test, ping_interval_s=0.5)


@pytest.mark.fault("X02")
def test_a_reset_right_behind_data_is_noticed_and_loses_none_of_it() -> None:
    """Both lie in the kernel when the loop looks: the venue has sent, and hung up at once. Nothing
    else would tell: no ping is due, and silence may last.
    """

    async def test(rig: Rig) -> None:
        first = await rig.sockets.get()
        first.send(trade(1))
        await rig.ids(1)
        end = first.transport.underlying_transport
        venue = end.get_extra_info("socket")
        venue.setsockopt(SOL_SOCKET, SO_LINGER, struct.pack("ii", 1, 0))  # closed with a reset
        rest = b"".join(frame(TEXT, trade(number)) for number in range(2, 202))
        asyncio.get_running_loop().call_soon(os.write, venue.fileno(), rest)
        end.abort()  # right behind it
        await rig.sockets.get()
        assert await rig.ids(201) == [*range(1, 202)]

    run(test, idle_timeout_s=3600.0, ping_interval_s=3600.0)


@pytest.mark.fault("K02")
def test_what_a_process_overslept_is_no_silence_of_its_socket() -> None:
    """It stood still for longer than a socket may be silent, and finds that out before anything
    has come again.
    """

    async def test(rig: Rig) -> None:
        first = await rig.sockets.get()
        first.send(trade(1))
        await rig.ids(1)
        time.sleep(4.5)  # noqa: ASYNC251 - the fault itself: nothing is waited for
        for _ in range(3):  # all that was due meanwhile is done before
            await asyncio.sleep(0.01)
        first.send(trade(2))
        assert await rig.ids(2) == [1, 2]
        assert rig.connection is not None
        assert rig.connection.connect_count == 1

    run(test, idle_timeout_s=3.0, ping_interval_s=3600.0)


@pytest.mark.fault("X19")
def test_ping_is_answered_with_its_payload_and_hides_no_row() -> None:
    async def test(rig: Rig) -> None:
        server = await rig.sockets.get()
        await server.received.get()
        # One segment: rows, then a ping as the last frame of the read.
        server.send(trade(1))
        server.transport.send_ping(b"payload-7")
        assert await server.pongs.get() == b"payload-7"
        assert await rig.ids(1) == [1]

    run(test)


@pytest.mark.fault("X10")
def test_fragmented_frame_is_one_message() -> None:
    async def test(rig: Rig) -> None:
        server = await rig.sockets.get()
        message = trade(9)
        server.transport.send(WSMsgType.TEXT, message[:20], fin=False)
        server.transport.send(WSMsgType.CONTINUATION, message[20:50], fin=False)
        server.transport.send(WSMsgType.CONTINUATION, message[50:])
        assert await rig.ids(1) == [9]

    run(test)


@pytest.mark.fault("X12")
def test_oversized_frame_ends_the_connection_with_a_reason_and_backs_off() -> None:
    async def test(rig: Rig) -> None:
        first = await rig.sockets.get()
        first.send(b"x" * (17 << 20))
        second = await asyncio.wait_for(rig.sockets.get(), 10)
        second.send(trade(1))
        assert await rig.ids(1) == [1]

    run(test)


@pytest.mark.fault("X05")
@pytest.mark.parametrize(
    ("head", "wait_s"),
    [
        ("429 Too Many Requests\r\nRetry-After: 120", 120.0),
        ("418 I'm a teapot\r\nretry-after: 1e9", 259_200.0),
        ("429 Too Many Requests", 60.0),
        ("403 Forbidden", 600.0),
        ("451 Unavailable For Legal Reasons", 3600.0),
    ],
)
def test_a_venue_that_refuses_the_handshake_is_left_alone(head: str, wait_s: float) -> None:
    """By this process and, through the supervisor, by every other."""

    async def body() -> None:
        handshakes, told = 0, list[FromChild]()

        async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal handshakes
            handshakes += 1
            await reader.readuntil(b"\r\n\r\n")
            writer.write(f"HTTP/1.1 {head}\r\nContent-Length: 0\r\n\r\n".encode())
            await writer.drain()
            writer.close()

        def send(message: FromChild) -> None:
            told.append(message)
            if isinstance(message, LeaseRequest):
                granted = LeaseGranted(message.request_id)
                asyncio.get_running_loop().call_soon(clients.granted, granted)

        clients = LeaseClient(send)
        connects = Lease(clients, VENUE.name, "ws_connects")
        rig = Rig()
        server = await asyncio.start_server(refuse, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        connection = rig.open(port, 3600, VENUE.groups["market"], connects)
        connection._trouble._backoff = Backoff(0.01, 0.01)
        task = asyncio.create_task(connection.run())
        async with asyncio.timeout(30):
            # The second time it gets its lease it sees the ban and does not use it.
            while sum(isinstance(each, LeaseRequest) for each in told) < 2:
                await asyncio.sleep(0.005)
        assert rig.feed.state is StreamState.BACKOFF
        assert f"nobody asks for {wait_s:.0f} s" in rig.feed.reason
        status = int(head[:3])
        feedback = LimitFeedback(VENUE.name, "ws_connects", retry_after_s=wait_s, status=status)
        assert [each for each in told if isinstance(each, LimitFeedback)] == [feedback]
        assert wait_s - 10 < connects.blocked_until_s - monotonic_s() <= wait_s
        assert handshakes == 1
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        server.close()
        await server.wait_closed()

    uvloop.run(body())


@pytest.mark.fault("X05")
def test_refused_connection_is_tried_again_with_growing_delays() -> None:
    async def body() -> None:
        rig = Rig()
        server = await asyncio.start_server(_slam, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        task = asyncio.create_task(rig.open(port, 3600, VENUE.groups["market"]).run())
        while rig.feed.state is not StreamState.BACKOFF:
            await asyncio.sleep(0.01)
        assert "cannot connect" in rig.feed.reason
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        server.close()
        await server.wait_closed()

    uvloop.run(body())


async def _slam(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n")
    await writer.drain()
    writer.close()


def test_after_many_failures_a_socket_pauses_and_its_streams_say_for_how_long() -> None:
    async def body() -> None:
        rig = Rig()
        rig.backoff = Backoff(0.02, 0.02, breaks_after=2, pause_s=600.0)
        server = await asyncio.start_server(_slam, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        task = asyncio.create_task(rig.open(port, 3600, VENUE.groups["market"]).run())
        await until(lambda: "next try in" in rig.feed.reason, "the pause")
        assert rig.tries == {"connects": 2}
        assert "cannot connect" in rig.feed.reason, "and why"
        assert rig.feed.state is StreamState.BACKOFF
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        server.close()
        await server.wait_closed()

    uvloop.run(body())
