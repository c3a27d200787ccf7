"""Publishing goes on: whatever Redis refuses or loses, it comes back, and each row counts once."""

import asyncio
import json
import logging
import os
import signal
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from redis import Redis

from engine.base.backoff import Backoff
from engine.base.clock import monotonic_s
from engine.base.redis_link import parse_redis_url
from engine.data.kind import RecordArray
from engine.data.kinds import GAP
from engine.data.layout import Layout, SourceKey
from engine.data.names import StreamKey, StreamKind
from engine.data.slots import Slots
from engine.messages.streams import Knobs
from engine.servers.valkey import PrivateValkey
from engine.writer.live import Live
from engine.writer.rows.knob_table import KnobTable
from engine.writer.rows.slice import Batch
from engine.writer.sinks.redis.sink import RedisSink
from engine.writer.sinks.sink import Cursor, Promise, Sink, Taken
from tests.engine.writer.conftest import MakeSettings, MakeTrades
from tests.engine.writer.ring_bench import Bench, assert_counted_once, deliver
from tests.waiting import until

MB = 1 << 20
UNPUBLISHED = Knobs(redis_publishes_enabled=False)
STREAMS = [f"fts:trades:acme:S{number}" for number in range(4)]


@pytest.fixture
def bench(layout: Layout, slots: Slots) -> Iterator[Bench]:
    del slots
    bench = Bench(layout)
    yield bench
    bench.close()


@pytest.fixture
def server(redis_url: str, valkey: PrivateValkey) -> Iterator[Redis]:
    """The operator's own connection. What was set here is nobody else's."""
    client = Redis.from_url(redis_url)
    yield client
    client.close()
    valkey.restart()


Make = Callable[..., Live]
Through = Callable[..., tuple["Proxy", Live]]


@pytest.fixture
def make(bench: Bench, layout: Layout, redis_url: str, make_settings: MakeSettings) -> Make:
    """Make a delivery that tries again quickly."""

    def make(deadline_s: float = 1.0, **changes: object) -> Live:
        settings = make_settings(redis_url=redis_url, **changes)
        sink = RedisSink(settings, Slots(layout.slots), deadline_s)
        return Live(bench.sources, sink, KnobTable(settings), Backoff(0.02, 0.2))

    return make


def held_ids(server: Redis) -> list[int]:
    """Of every trade in the streams that Redis holds."""
    ids: list[int] = []
    for key in STREAMS:
        if server.type(key) == b"stream":
            entries: Any = server.xrange(key)
            ids += [each["id"] for _, entry in entries for each in json.loads(entry[b"events"])]
    return ids


# -- each way to be refused, and what becomes of it ----------------------------------------------


@dataclass(frozen=True)
class Fault:
    """How to break a server that runs, how to mend it, and what is told meanwhile."""

    break_it: Callable[[Redis], object]
    mend_it: Callable[[Redis], object]
    told: str


def _cannot_log_in(server: Redis) -> None:
    server.acl_setuser("default", enabled=True, reset_passwords=True, passwords=["+other"])
    server.client_kill_filter(_type="normal", skipme=True)


def _is_busy(server: Redis) -> None:
    server.config_set("busy-reply-threshold", 10)
    endless = "redis.call('PING') while true do end"
    connection = server.connection_pool.get_connection()
    connection.send_command("EVAL", endless, 0)  # type: ignore[no-untyped-call]


FAULTS = {
    "OOM": Fault(
        lambda server: server.config_set("maxmemory", MB),
        lambda server: server.config_set("maxmemory", 64 * MB),
        "OOM",
    ),
    "READONLY": Fault(
        lambda server: server.replicaof("127.0.0.1", "1"),
        lambda server: server.replicaof("NO", "ONE"),
        "READONLY",
    ),
    "MASTERDOWN": Fault(
        lambda server: (
            server.config_set("replica-serve-stale-data", "no"),
            server.replicaof("127.0.0.1", "1"),
        ),
        lambda server: (
            server.replicaof("NO", "ONE"),
            server.config_set("replica-serve-stale-data", "yes"),
        ),
        "MASTERDOWN",
    ),
    "NOREPLICAS": Fault(
        lambda server: server.config_set("min-replicas-to-write", 1),
        lambda server: server.config_set("min-replicas-to-write", 0),
        "NOREPLICAS",
    ),
    "NOAUTH": Fault(
        _cannot_log_in,
        lambda server: server.acl_setuser("default", enabled=True, nopass=True),
        "NOAUTH",
    ),
    "NOPERM": Fault(
        lambda server: server.acl_setuser("default", enabled=True, commands=["-xadd"]),
        lambda server: server.acl_setuser("default", enabled=True, commands=["+xadd"]),
        "NOPERM",
    ),
    "BUSY": Fault(_is_busy, lambda server: server.script_kill(), "BUSY"),
    "WRONGTYPE of the cursor": Fault(
        lambda server: (server.delete("fts:cursor"), server.set("fts:cursor", "x")),
        lambda server: server.delete("fts:cursor"),
        "WRONGTYPE",
    ),
    "WRONGTYPE of a stream": Fault(
        lambda server: (server.delete(STREAMS[1]), server.set(STREAMS[1], "x")),
        lambda server: server.delete(STREAMS[1]),
        f"{STREAMS[1]}: WRONGTYPE",
    ),
}


@pytest.mark.fault("R03")
@pytest.mark.fault("N39")
@pytest.mark.fault("N26")
@pytest.mark.parametrize("name", FAULTS)
def test_a_refusal_is_told_once_until_rows_are_taken_again(
    bench: Bench,
    make: Make,
    server: Redis,
    trades: MakeTrades,
    caplog: pytest.LogCaptureFixture,
    name: str,
) -> None:
    fault, delivery = FAULTS[name], make()
    states: Counter[str] = Counter()
    tries: list[tuple[int, float]] = []

    async def body() -> None:
        bench.put(trades(40))
        await until(lambda: delivery.rows["trade"] == 40)
        assert delivery.trouble.state == "up"
        fault.break_it(server)
        bench.put(trades(40, first_id=40))
        delivery.rows_arrived()
        await until(lambda: delivery.trouble.state == "down")
        before, began_s = None if name in ("BUSY",) else _connections(server), monotonic_s()
        for number in range(120):
            await asyncio.sleep(0.005)
            states[delivery.trouble.state] += 1
            if name == "WRONGTYPE of a stream" and number % 30 == 0:
                bench.put(trades(40, first_id=80 + number // 30 * 40))
                delivery.rows_arrived()
        if before is not None:
            tries.append((_connections(server) - before, monotonic_s() - began_s))
        assert fault.told in delivery.trouble.text
        fault.mend_it(server)
        bench.put(trades(40, first_id=240))
        delivery.rows_arrived()
        await until(lambda: delivery.trouble.state == "up" and delivery.is_idle)

    with caplog.at_level(logging.INFO):
        deliver(delivery, body)
    received = 280 if name == "WRONGTYPE of a stream" else 120
    assert_counted_once(delivery, received)
    lost = 10 + 4 * 10 if name == "WRONGTYPE of a stream" else 0
    assert delivery.missed_rows["trade"] == lost
    assert delivery.rows["trade"] == received - lost
    if name != "WRONGTYPE of a stream":
        assert sorted(held_ids(server)) == [*range(80), *range(240, 280)], "each once"
    assert set(states) == {"down"}, "not green for a moment while nothing is taken"
    for count, elapsed_s in tries:
        assert count <= 4 + 10 * elapsed_s, "the delay is 0.1 s or more, but for the first"
    assert len(caplog.records) <= 6, [record.getMessage() for record in caplog.records]


def _connections(server: Redis) -> int:
    info: Any = server.info("stats")
    return int(info["total_connections_received"])


# -- memory --------------------------------------------------------------------------------------


@pytest.mark.fault("N40")
def test_a_small_server_is_never_filled_and_new_streams_are_not_refused(
    bench: Bench,
    make: Make,
    layout: Layout,
    server: Redis,
    trades: MakeTrades,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Forty streams that would hold 60 MB, on 8 MB: every one of them has its newest rows."""
    monkeypatch.setattr("engine.writer.sinks.redis.sink._STOCK_EVERY_S", 0.05)
    monkeypatch.setattr("engine.writer.live._LOOK_EVERY_S", 0.05)
    slots = Slots(layout.slots)
    forty = [
        slots.assign(StreamKey("acme", f"N{number}", StreamKind.TRADES)).slot
        for number in range(40)
    ]
    server.config_set("maxmemory", 8 * MB)
    delivery = make(redis_memory_bytes=256 * MB)

    def burst(number: int) -> RecordArray:
        rows = trades(2_000, first_id=number * 2_000)
        wanted = forty[: 5 + number]  # one more with every burst
        rows["stream"] = [wanted[n % len(wanted)] for n in range(len(rows))]
        return rows

    async def body() -> None:
        for number in range(100):
            bench.put(burst(number))
            delivery.rows_arrived()
            await until(lambda: delivery.is_idle)
            assert delivery.trouble.text == ""

    with caplog.at_level(logging.WARNING):
        deliver(delivery, body)
    assert_counted_once(delivery, 200_000)
    assert delivery.missed_rows["trade"] == 0
    keys = [f"fts:trades:acme:N{number}" for number in range(40)]
    assert all(server.exists(key) for key in keys)
    sizes = [int(server.memory_usage(key) or 0) for key in keys]
    used, budget = delivery.sink.memory_bytes
    assert sum(sizes) <= 0.9 * 8 * MB
    assert used <= 1.1 * budget
    newest: Any = server.xrevrange(keys[0], count=1)
    last = json.loads(newest[0][1][b"events"])[-1]["id"]
    assert last >= 198_000, "the newest rows are there"
    assert caplog.records == []


@pytest.mark.fault("N40")
def test_room_is_made_on_a_server_that_is_full(
    bench: Bench, make: Make, server: Redis, trades: MakeTrades
) -> None:
    """A stream of an earlier life and what no other program gives back: ours become shorter."""
    for number in range(2_000):
        server.xadd("fts:trades:acme:GONE", {"events": "x" * 900})
        server.xadd("others:own", {"data": f"{number}" * 200}, maxlen=500)
    delivery = make()

    async def body() -> None:
        for number in range(20):
            bench.put(trades(2_000, first_id=number * 2_000))
            delivery.rows_arrived()
            await until(lambda: delivery.is_idle)
        before = server.xlen("fts:trades:acme:GONE"), server.xlen("others:own")
        info: Any = server.info("memory")
        server.config_set("maxmemory", info["used_memory"] - 200_000)
        bench.put(trades(2_000, first_id=40_000))
        delivery.rows_arrived()
        await until(lambda: delivery.is_idle and delivery.trouble.state == "up")
        after = server.xlen("fts:trades:acme:GONE"), server.xlen("others:own")
        assert after[0] < before[0] / 2, "nobody writes to it any more"
        assert after[1] == before[1], "not ours"

    deliver(delivery, body)
    assert_counted_once(delivery, 42_000)
    assert delivery.rows["trade"] == 42_000
    assert max(held_ids(server)) == 41_999


@pytest.mark.fault("N40")
def test_a_flush_that_does_not_fit_is_cut_smaller(
    bench: Bench, make: Make, server: Redis, trades: MakeTrades
) -> None:
    """4,000 rows take 500 kB twice while they are sent, and the server has room for 800 kB."""
    info: Any = server.info("memory")
    server.config_set("maxmemory", info["used_memory"] + 800_000)
    delivery = make()
    bench.put(trades(4_000))

    async def body() -> None:
        await until(lambda: delivery.is_idle)
        for number in range(2, 9):
            bench.put(trades(2_000, first_id=number * 2_000))
            delivery.rows_arrived()
            await until(lambda: delivery.is_idle)

    deliver(delivery, body)
    assert_counted_once(delivery, 18_000)
    assert delivery.missed_rows["trade"] <= 4_000 - 2_048, "the ring keeps a half"


@pytest.mark.fault("N40")
def test_keys_end_with_their_streams_and_cursors_with_their_rings(
    bench: Bench, make: Make, server: Redis, trades: MakeTrades, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.writer.sinks.redis.sink._STOCK_EVERY_S", 0.01)
    monkeypatch.setattr("engine.writer.live._LOOK_EVERY_S", 0.01)
    ring = bench.trades.key.ring
    server.hset("fts:cursor", mapping={f"{ring}/17": 5, "other/shard-0.trade/17": 6})
    delivery = make()

    async def body() -> None:
        bench.put(trades(8))
        await until(lambda: server.ttl(STREAMS[3]) > 0)

    deliver(delivery, body)
    assert 6 * 86_400 < int(server.ttl(STREAMS[0])) <= 7 * 86_400
    fields: Any = server.hkeys("fts:cursor")
    assert f"{ring}/17".encode() not in fields
    assert b"other/shard-0.trade/17" in fields, "another engine's"
    assert len(fields) == 3


@pytest.mark.fault("N40")
def test_a_server_that_is_too_small_or_drops_keys_is_told_once(
    bench: Bench,
    make: Make,
    server: Redis,
    trades: MakeTrades,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("engine.writer.sinks.redis.sink._STOCK_EVERY_S", 0.01)
    monkeypatch.setattr("engine.writer.live._LOOK_EVERY_S", 0.01)
    server.config_set("maxmemory", 16 * MB)
    server.config_set("maxmemory-policy", "allkeys-lru")
    delivery = make(redis_memory_bytes=256 * MB, redis_needed_bytes=100 * MB)

    async def body() -> None:
        for number in range(5):
            bench.put(trades(8, first_id=number * 8))
            delivery.rows_arrived()
            await asyncio.sleep(0.05)
        await until(lambda: delivery.is_idle)

    with caplog.at_level(logging.WARNING):
        deliver(delivery, body)
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 2
    assert "take about 100 MB of Redis, and its maxmemory allows 16" in told[0]
    assert "maxmemory-policy is allkeys-lru" in told[1]


def test_a_login_that_may_not_ask_for_sizes_is_enough(
    bench: Bench, make: Make, server: Redis, trades: MakeTrades, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The commands that docs/redis.md names as needed."""
    monkeypatch.setattr("engine.writer.sinks.redis.sink._STOCK_EVERY_S", 0.01)
    monkeypatch.setattr("engine.writer.live._LOOK_EVERY_S", 0.01)
    needed = (
        "WATCH MULTI EXEC HGET HSET HKEYS HMGET HDEL XADD XTRIM XLEN EXPIRE PING CLIENT|SETNAME"
    )
    commands = [f"+{name}" for name in needed.lower().split()]
    server.acl_setuser(
        "few", enabled=True, passwords=["+secret"], keys=["fts:*"], commands=commands
    )
    delivery = make(redis_memory_bytes=MB)
    assert isinstance(delivery.sink, RedisSink)
    url = f"{delivery.sink._address.url.partition('?')[0]}?username=few&password=secret"
    monkeypatch.setattr(delivery.sink, "_address", parse_redis_url(url))

    async def body() -> None:
        for number in range(30):
            bench.put(trades(2_000, first_id=number * 2_000))
            delivery.rows_arrived()
            await until(lambda: delivery.is_idle)

    deliver(delivery, body)
    assert delivery.rows["trade"] == 60_000
    taken = [int(server.memory_usage(key) or 0) for key in STREAMS]
    assert sum(taken) <= 1.1 * MB


# -- who wakes whom ------------------------------------------------------------------------------


class Receiving(Sink):
    """Takes all there is; meanwhile more comes, as often as it is told."""

    name = "redis"
    promise = Promise.LIVE

    def __init__(self, receive: Callable[[], None], times: int) -> None:
        self._receive, self._times = receive, times

    async def open(self, drained: Mapping[SourceKey, int]) -> Sequence[SourceKey]:
        return ()

    async def cursors(self, starts: Mapping[SourceKey, int]) -> Mapping[SourceKey, Cursor]:
        return {key: Cursor(seq) for key, seq in starts.items()}

    async def take(self, batch: Batch, *, durable: bool) -> Taken:
        if self._times:
            self._times -= 1
            self._receive()
        return Taken(Counter({"trade": sum(len(part.records) for part in batch.slices)}))

    async def close(self) -> None:
        return


@pytest.mark.parametrize("pace_s", [0.0, 0.001])
def test_what_comes_during_a_flush_goes_without_a_word_and_the_bell_is_asked_for_then(
    bench: Bench, make_settings: MakeSettings, trades: MakeTrades, pace_s: float
) -> None:
    """Nobody rings while it is awake, and a sink that never waits holds up nobody."""
    sink = Receiving(lambda: bench.put(trades(4)), times=50)
    delivery = Live(bench.sources, sink, KnobTable(make_settings()), pace_s=pace_s)
    asked: list[bool] = []

    async def body() -> None:
        bench.sources.ask_for_doorbell(False)
        bench.put(trades(4))
        await until(lambda: delivery.rows["trade"] == 204)
        await until(lambda: bench.wants_doorbell)
        asked.append(True)

    deliver(delivery, body)
    assert asked == [True]
    assert_counted_once(delivery, 204)


def test_rows_that_keep_coming_go_together_after_the_pace(
    bench: Bench, make_settings: MakeSettings, trades: MakeTrades
) -> None:
    """`redis.flush_interval_ms`: the first ones at once, and others no sooner than that."""
    sink = Receiving(lambda: None, times=0)
    delivery = Live(bench.sources, sink, KnobTable(make_settings()), pace_s=0.3)

    async def body() -> None:
        began_s = monotonic_s()
        bench.put(trades(4))
        await until(lambda: delivery.rows["trade"] == 4)
        bench.put(trades(4))
        await until(lambda: delivery.rows["trade"] == 8)
        assert monotonic_s() - began_s >= 0.3

    deliver(delivery, body)
    assert_counted_once(delivery, 8)


# -- answers that never came ---------------------------------------------------------------------


@pytest.mark.fault("R03")
@pytest.mark.fault("N26")
def test_a_deaf_server_is_no_green_light(
    bench: Bench, make: Make, valkey: PrivateValkey, server: Redis, trades: MakeTrades
) -> None:
    """It was stopped with a flush on its way, which it obeys when it goes on."""
    delivery, pid = make(deadline_s=0.2), valkey.pid
    assert pid is not None

    async def body() -> None:
        bench.put(trades(40))
        await until(lambda: delivery.rows["trade"] == 40)
        os.kill(pid, signal.SIGSTOP)
        try:
            bench.put(trades(40, first_id=40))
            delivery.rows_arrived()
            await until(lambda: delivery.trouble.state == "down")
            for _ in range(50):
                await asyncio.sleep(0.01)
                assert delivery.trouble.state == "down"
        finally:
            os.kill(pid, signal.SIGCONT)
        await until(lambda: delivery.trouble.state == "up" and delivery.is_idle)

    deliver(delivery, body)
    assert sorted(held_ids(server)) == list(range(80))
    assert delivery.rows["trade"] == 80


def ids_in(message: dict[str, Any] | None) -> list[int]:
    return [each["id"] for each in json.loads(message["data"])] if message else []


class Proxy:
    """Between client and server: what the server answers can be lost, or be something else."""

    def __init__(self, path: str, target: str) -> None:
        self.path, self._target = path, target
        self.loses_exec = False
        self.says = b""
        self.connection_count = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        self._server = await asyncio.start_unix_server(self._serve, self.path)

    async def close(self) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connection_count += 1
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        theirs, ours = await asyncio.open_unix_connection(self._target)
        try:
            while asked := await reader.read(1 << 20):
                if self.says:
                    writer.write(self.says * 20)
                    continue
                ours.write(asked)
                answer = await theirs.read(1 << 20)
                if self.loses_exec and b"EXEC" in asked and b"XADD" in asked:
                    self.loses_exec = False
                    return
                writer.write(answer)
        except asyncio.CancelledError:
            pass  # the end of the test
        finally:
            ours.close()
            writer.close()


@pytest.fixture
def through(bench: Bench, layout: Layout, redis_url: str, make_settings: MakeSettings) -> Through:
    """A delivery whose answers pass a proxy."""

    def make(**changes: object) -> tuple[Proxy, Live]:
        target = parse_redis_url(redis_url).path
        proxy = Proxy(f"{target}.proxy", target)
        settings = make_settings(redis_url=f"unix://{proxy.path}", **changes)
        sink = RedisSink(settings, Slots(layout.slots), 1.0)
        knobs = KnobTable(settings)
        return proxy, Live(bench.sources, sink, knobs, Backoff(0.01, 0.1))

    return make


@pytest.mark.fault("R03")
@pytest.mark.fault("N39")
@pytest.mark.parametrize(
    "says",
    [
        "LOADING Redis is loading the dataset in memory",
        "MISCONF Errors writing to the AOF file: No space left on device",
        "CLUSTERDOWN The cluster is down",
        "MOVED 3999 127.0.0.1:6381",
        "ERR max number of clients reached",
        "ERR unknown command",
    ],
)
def test_whatever_is_said_the_delay_grows_and_publishing_resumes(
    through: Through,
    bench: Bench,
    server: Redis,
    trades: MakeTrades,
    caplog: pytest.LogCaptureFixture,
    says: str,
) -> None:
    proxy, delivery = through()

    async def body() -> None:
        await proxy.open()
        bench.put(trades(40))
        await until(lambda: delivery.is_idle)
        proxy.says = f"-{says}\r\n".encode()
        bench.put(trades(40, first_id=40))
        delivery.rows_arrived()
        await until(lambda: delivery.trouble.state == "down")
        before = proxy.connection_count
        await asyncio.sleep(0.4)
        assert proxy.connection_count - before <= 12
        assert says in delivery.trouble.text
        proxy.says = b""
        await until(lambda: delivery.is_idle and delivery.trouble.state == "up")
        await proxy.close()

    with caplog.at_level(logging.INFO):
        deliver(delivery, body)
    assert sorted(held_ids(server)) == list(range(80))
    assert delivery.rows["trade"] == 80
    ours = [record for record in caplog.records if record.name.startswith("engine")]
    assert len(ours) == 3, "connected, what is wrong, and that it is over"


@pytest.mark.fault("R02")
@pytest.mark.fault("N26")
def test_rows_whose_answer_was_lost_are_counted_and_not_sent_again(
    through: Through, bench: Bench, server: Redis, trades: MakeTrades
) -> None:
    proxy, delivery = through(redis_publish=True, knobs={2: UNPUBLISHED})
    heard = server.pubsub(  # type: ignore[no-untyped-call]
        ignore_subscribe_messages=True
    )
    heard.subscribe(*STREAMS)

    async def body() -> None:
        await proxy.open()
        bench.put(trades(40))
        await until(lambda: delivery.is_idle)
        proxy.loses_exec = True
        gaps = np.zeros(1, GAP.dtype)
        gaps["reason"] = gaps["state"] = 1
        delivery.hear_of(gaps)
        bench.put(trades(40, first_id=40))
        delivery.rows_arrived()
        await until(lambda: delivery.is_idle and not proxy.loses_exec)
        await proxy.close()

    deliver(delivery, body)
    assert_counted_once(delivery, 80)
    assert delivery.rows == {"trade": 60, "gap": 1}
    assert delivery.withheld_rows["trade"] == 20
    assert sorted(held_ids(server)) == [n for n in range(80) if n % 4 != 2]
    heard_ids = [n for _ in range(16) for n in ids_in(heard.get_message(timeout=0.05))]
    assert sorted(heard_ids) == sorted(held_ids(server)), "none was sent twice"
    heard.close()
