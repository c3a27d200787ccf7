"""The feeds over real sockets: what viewers get, and what they may cost."""

import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from control.state.health import HealthLight
from control.ui.state import DashboardLimits
from control.ui.status_feed import STREAM_COLUMNS, StatusFeed
from engine.data.kinds import TRADE
from engine.data.names import StreamKind
from engine.messages.streams import Knobs
from tests.control.ui.rings import ShardRing, describe
from tests.control.ui.scripted_engine import ScriptedEngine, serving, stream
from tests.control.ui.sockets import Viewer
from tests.waiting import wait_for

LIMITS = DashboardLimits(
    viewers_max=3, viewer_buffer_bytes=300_000, status_interval_s=0.02, trades_interval_s=0.02,
    book_interval_s=0.02, keep_alive_s=0.2,
)  # fmt: skip
TAPE = "/ui/tape?exchange=BinanceLinear&symbol=BTCUSDT"


@pytest.fixture
def engine(tmp_path: Path) -> ScriptedEngine:
    streams = [stream(0, "BTCUSDT"), stream(1, "BTCUSDT", "L2Book")]
    engine = ScriptedEngine(tmp_path, streams, limits=LIMITS)
    describe(engine.layout, [("BTCUSDT", StreamKind.TRADES), ("BTCUSDT", StreamKind.L2_BOOK)])
    return engine


@pytest.fixture
def port(engine: ScriptedEngine) -> Iterator[int]:
    with serving(engine, unread_s=1.0):
        yield engine.port


def open_descriptors(suffix: str) -> int:
    """Files of this process, the server's included, whose name ends like this."""
    return sum(entry.path.endswith(suffix) for entry in psutil.Process().memory_maps(grouped=False))


def test_the_status_has_everything_the_page_shows(engine: ScriptedEngine, port: int) -> None:
    engine.health.shown["db"] = HealthLight("red", "the database is down: refused")
    engine.told.writer.received_rows = {"trade": 7, "book": 30}
    engine.told.writer.dropped_rows = {"trade": 2}
    engine.told.writer.database.missed_rows = {"trade": 5}
    engine.told.writer.sink("redis").missed_rows = {"book": 11}
    engine.say([stream(0, "BTCUSDT", row_count=7, gap_count=1, knobs=Knobs(False, True, 100))])
    with Viewer(port, "/ui/events") as viewer:
        status, headers = viewer.head()
        assert status == 200
        assert headers["content-type"].startswith("text/event-stream")
        assert headers["cache-control"] == "no-store"
        hello = viewer.next_event("hello")
        body = viewer.next_event("status")
    assert hello["stream_columns"] == list(STREAM_COLUMNS)
    assert hello["knob_ranges"]["flush_interval_ms"] == {"min": 1, "max": 60_000, "default": 50}
    assert sorted(hello["knob_ranges"]) == ["flush_interval_ms", "flush_rows", "max_rows_per_copy"]
    row = dict(zip(STREAM_COLUMNS, body["streams"][0], strict=True))
    shown = ("symbol", "rows", "gaps", "db", "redis", "flush_rows", "flush_interval_ms")
    assert [row[name] for name in shown] == ["BTCUSDT", 7, 1, False, True, 100, None]
    assert body["lights"]["db"] == {"status": "red", "reason": "the database is down: refused"}
    assert body["said"] == {"status": "green", "reason": ""}
    assert body["verdict"] == {"status": "red", "reason": "the database is down: refused"}
    assert body["writer"]["received"] == 37
    assert [body["writer"][name] for name in ("dropped", "lost", "overrun")] == [2, 5, 11]
    assert body["limiters"][0]["pool"] == "rest_weight"
    assert body["storage"][0]["tables"][0]["bytes_a_row"] == 13.3


def test_a_new_status_arrives_and_an_old_one_is_not_repeated_at_once(
    engine: ScriptedEngine, port: int
) -> None:
    with Viewer(port, "/ui/events") as viewer:
        viewer.head()
        viewer.next_event("status")
        engine.say([stream(9, "NEW")])
        body = viewer.next_event("status", lambda found: len(found["streams"]) == 1)
        assert body["streams"][0][2] == "NEW"


def test_a_status_is_encoded_once_for_all_viewers(engine: ScriptedEngine) -> None:
    feed = StatusFeed(engine.backend, LIMITS)
    first = feed.frame(0.0)
    assert feed.frame(0.5) is first
    engine.say()
    assert feed.frame(0.5) is not first


def test_before_the_first_status_the_page_knows_that_it_starts(
    engine: ScriptedEngine, port: int
) -> None:
    engine.backend.status = None
    with Viewer(port, "/ui/events") as viewer:
        viewer.head()
        body = viewer.next_event("status")
    assert (body["phase"], body["streams"], body["writer"]) == ("starting", [], None)


def test_the_tape_is_live_and_its_ring_is_let_go_with_the_viewer(
    engine: ScriptedEngine, port: int
) -> None:
    ring = ShardRing(engine.layout, TRADE.name)
    mapped = open_descriptors("shard-0.trade.ring")
    with Viewer(port, TAPE) as viewer:
        viewer.head()
        assert viewer.next_event("stream")["price_decimals"] == 2
        ring.trade(0, 67412.5, 0.25)
        assert viewer.next_event("trades")["rows"][0][2:4] == ["67412.50", "0.250"]
        assert open_descriptors("shard-0.trade.ring") == mapped + 1
    wait_for(lambda: open_descriptors("shard-0.trade.ring") == mapped, "the tap is closed")
    ring.close()


@pytest.mark.parametrize(
    ("path", "status", "kind"),
    [
        ("/ui/tape", 400, "invalid_argument"),
        ("/ui/tape?exchange=x", 400, "invalid_argument"),
        (f"/ui/tape?exchange=x&symbol={'A' * 65}", 400, "invalid_argument"),
        ("/ui/tape?exchange=binance_linear&symbol=NOPE", 404, "stream_not_found"),
        ("/ui/none.js", 404, "not_found"),
        ("/ui/..%2f..%2fpages.py", 404, "not_found"),
    ],
)
def test_what_is_not_there_is_refused_in_json(port: int, path: str, status: int, kind: str) -> None:
    with Viewer(port, path) as viewer:
        found, headers = viewer.head()
        body = viewer.body(int(headers["content-length"]))
    assert found == status
    assert kind in body.decode()


def test_only_so_many_may_watch_and_a_seat_comes_free(port: int) -> None:
    seated = [Viewer(port, "/ui/events") for _ in range(LIMITS.viewers_max)]
    for viewer in seated:
        assert viewer.head()[0] == 200
    with Viewer(port, "/ui/events") as late:
        status, headers = late.head()
        assert (status, headers["retry-after"]) == (503, "5")
    seated.pop().close()

    def is_let_in() -> bool:
        with Viewer(port, "/ui/events") as again:
            return again.head()[0] == 200

    wait_for(is_let_in, "the seat to come free")
    for viewer in seated:
        viewer.close()


@pytest.mark.fault("A12")
def test_a_viewer_that_never_reads_is_dropped_and_others_get_their_data(
    engine: ScriptedEngine, port: int
) -> None:
    """500 streams make a status of 70 kB; a deaf viewer lets them pile up."""
    deaf = Viewer(port, "/ui/events", receive_buffer=4096)
    rounds = iter(range(1_000_000))
    done = threading.Event()

    def talk() -> None:
        while not done.wait(0.01):
            count = next(rounds)
            engine.say([stream(slot, f"S{slot}", row_count=count) for slot in range(500)])

    talker = threading.Thread(target=talk)
    talker.start()
    try:
        wait_for(lambda: server_sockets(port) == 1, "the deaf viewer's connection")
        with Viewer(port, "/ui/events") as reader:
            reader.head()
            reader.next_event("status", lambda body: len(body["streams"]) == 500)
            # Gone for good: the kernel gave up on what it could not deliver.
            wait_for(lambda: drain(reader) and server_sockets(port) == 1, "the drop", 30)
            last = reader.next_event("status")["streams"][0]
            reader.next_event("status", lambda body: body["streams"][0] != last)
    finally:
        done.set()
        talker.join()
        deaf.close()


def drain(reader: Viewer) -> bool:
    reader.next_event("status")
    return True


def server_sockets(port: int) -> int:
    """Accepted connections that are still open on the server's side."""
    return sum(
        found.status == psutil.CONN_ESTABLISHED and found.laddr.port == port
        for found in psutil.Process().net_connections("tcp")
    )


def test_a_quiet_feed_says_that_it_is_alive(engine: ScriptedEngine, port: int) -> None:
    with Viewer(port, TAPE) as viewer:
        viewer.head()
        viewer.sock.settimeout(5)
        received = b""
        while b": still here" not in received:
            received += viewer.sock.recv(4096)


@pytest.mark.parametrize("path", ["/ui/events", TAPE])
def test_feeds_end_in_order_with_the_engine(engine: ScriptedEngine, port: int, path: str) -> None:
    with Viewer(port, path) as viewer:
        assert viewer.head()[0] == 200
        engine.told.phase = "draining"
        engine.say()
        events = list(viewer.events())
    if path == "/ui/events":
        assert events[-1][1]["phase"] == "draining"


@pytest.mark.parametrize("path", ["/ui/events", TAPE])
def test_a_head_request_does_not_begin_a_feed(port: int, path: str) -> None:
    with socket.create_connection(("127.0.0.1", port), 5) as sock:
        sock.sendall(
            f"HEAD {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode()
        )
        answer = b""
        while part := sock.recv(4096):
            answer += part
    assert answer.startswith(b"HTTP/1.1 200")
    assert answer.endswith(b"\r\n\r\n")
