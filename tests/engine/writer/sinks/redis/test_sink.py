"""The Redis sink: events readers understand, each once, and never a wait without end."""

import asyncio
import json
import os
import signal
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np
import pytest
import uvloop

from engine.base.clock import monotonic_s
from engine.base.errors import ConfigError, EngineError, FencedError, StoreUnavailableError
from engine.base.redis_link import RedisLink, parse_redis_url
from engine.data.flags import Flag, GapReason, GapState, Side
from engine.data.kind import RecordArray
from engine.data.kinds import BOOK, GAP, TRADE
from engine.data.layout import SourceKey
from engine.data.slots import Slots
from engine.messages.settings import RedisKind
from engine.servers.valkey import PrivateValkey
from engine.writer.rows.slice import Batch, Slice
from engine.writer.sinks.redis.sink import RedisSink
from tests.engine.writer.conftest import START_NS, MakeSettings, MakeTrades, claim
from tests.stores import ask

Body = Callable[[RedisSink], Awaitable[Any]]
Run = Callable[..., Any]


@pytest.fixture
def run(redis_url: str, make_settings: MakeSettings, slots: Slots) -> Run:
    """Run an async function on a connected sink of its own."""

    def run(body: Body, **changes: object) -> Any:
        async def main() -> Any:
            sink = RedisSink(make_settings(redis_url=redis_url, **changes), slots, deadline_s=1.0)
            await sink.open({})
            try:
                return await body(sink)
            finally:
                await sink.close()

        return uvloop.run(main())

    return run


def piece(rows: RecordArray, seq: int = 0, ring: str = "r") -> Slice:
    spec = {TRADE.dtype: TRADE, BOOK.dtype: BOOK, GAP.dtype: GAP}[rows.dtype]
    return Slice.whole(SourceKey(ring, 1), spec, seq, rows)


def events(url: str, key: str) -> list[dict[str, Any]]:
    (entries,) = ask(url, ("XRANGE", key, "-", "+"))
    return [event for _, fields in entries for event in json.loads(fields[1])]


def test_trades_are_published_as_json(run: Run, redis_url: str, trades: MakeTrades) -> None:
    rows = trades(8)
    rows["trade_id_hi"][4] = 1
    rows["price"][0] = 81234.56

    async def body(sink: RedisSink) -> None:
        assert await claim(sink, "r", 1) is None
        assert (await sink.take(Batch([piece(rows)]), durable=False)).rows["trade"] == 8
        assert await claim(sink, "r", 1) == 8

    run(body)
    first, second = events(redis_url, "fts:trades:acme:S0")
    assert first == {
        "id": 0, "time": START_NS, "recv": START_NS + 5_000_000, "side": "buy",
        "price": 81234.56, "qty": 0.001,
    }  # fmt: skip
    assert second["id"] == "00000000-0000-0001-0000-000000000004"
    assert second["side"] == "sell"


def test_gaps_of_no_ring_are_published_with_the_next_rows(
    run: Run, redis_url: str, trades: MakeTrades
) -> None:
    gaps = np.zeros(2, GAP.dtype)
    gaps["stream"], gaps["reason"], gaps["state"] = [0, 5], GapReason.JOURNAL_LOSS, 4

    async def body(sink: RedisSink) -> None:
        await claim(sink, "r", 1)
        taken = await sink.take(Batch([piece(trades(4))], gaps=[gaps]), durable=False)
        assert taken.rows == {"trade": 4, "gap": 2}
        assert await claim(sink, "r", 1) == 4

    run(body)
    told = events(redis_url, "fts:gaps")
    assert [(e["symbol"], e["kind"]) for e in told] == [("S0", "Trades"), ("S1", "L2Book")]
    assert {e["reason"] for e in told} == {"journal_loss"}


def test_a_book_event_is_one_object(run: Run, redis_url: str, books: MakeTrades) -> None:
    rows = books(8, levels=4)
    rows["flags"][:4] |= int(Flag.SNAPSHOT)
    rows["side"][16:20] = Side.NONE

    async def body(sink: RedisSink) -> None:
        await claim(sink, "r", 1)
        assert (await sink.take(Batch([piece(rows)]), durable=False)).rows["book"] == 32

    run(body)
    snapshot, empty = events(redis_url, "fts:book:acme:S0")
    assert snapshot == {
        "seq": 0, "prev_seq": -1, "time": START_NS, "recv": START_NS + 1, "snapshot": True,
        "bids": [[81000.0, 0.0], [81000.01, 0.001]],
        "asks": [[81000.02, 0.002], [81000.03, 0.003]],
    }  # fmt: skip
    assert (empty["seq"], empty["snapshot"], empty["bids"], empty["asks"]) == (4, False, [], [])


def test_an_event_cut_by_a_flush_says_so(run: Run, redis_url: str, books: MakeTrades) -> None:
    rows = books(1, levels=4)

    async def body(sink: RedisSink) -> None:
        await claim(sink, "r", 1)
        await sink.take(Batch([piece(rows[:3])]), durable=False)
        await sink.take(Batch([piece(rows[3:], 3)]), durable=False)

    run(body)
    head, tail = events(redis_url, "fts:book:acme:S0")
    assert (head.get("more"), head.get("continued")) == (True, None)
    assert (tail.get("more"), tail.get("continued")) == (None, True)
    assert head["bids"] + head["asks"] + tail["asks"] == [
        [81000.0, 0.0], [81000.01, 0.001], [81000.02, 0.002], [81000.03, 0.003],
    ]  # fmt: skip


def test_gaps_are_published(run: Run, redis_url: str) -> None:
    row = np.zeros(1, GAP.dtype)
    row["stream"], row["reason"], row["state"] = 5, GapReason.RESYNC, GapState.OPEN
    row["from_seq"], row["to_seq"], row["missing"] = 3, 9, 5

    async def body(sink: RedisSink) -> None:
        await sink.take(Batch([piece(row)]), durable=False)

    run(body)
    (event,) = events(redis_url, "fts:gaps")
    assert event["kind"] == "L2Book"
    assert event["symbol"] == "S1"
    assert (event["reason"], event["state"], event["missing"]) == ("resync", "open", 5)


def test_entries_hold_at_most_five_hundred_events(
    run: Run, redis_url: str, trades: MakeTrades
) -> None:
    async def body(sink: RedisSink) -> None:
        await sink.take(Batch([piece(trades(4 * 1200))]), durable=False)

    run(body)
    (entries,) = ask(redis_url, ("XRANGE", "fts:trades:acme:S2", "-", "+"))
    sizes = [len(json.loads(fields[1])) for _, fields in entries]
    assert sizes == [500, 500, 200]
    ids = [event["id"] for event in events(redis_url, "fts:trades:acme:S2")]
    assert ids == list(range(2, 4800, 4))


@pytest.mark.fault("R04")
def test_streams_are_bounded_in_rows_however_large_the_entries(
    run: Run, redis_url: str, trades: MakeTrades
) -> None:
    async def body(sink: RedisSink) -> None:
        for n in range(100):
            await sink.take(Batch([piece(trades(4 * 500), n * 2000)]), durable=False)

    run(body, redis_stream_maxlen=5_000)
    kept = len(events(redis_url, "fts:trades:acme:S0"))
    assert 5_000 <= kept <= 20_000


def test_subscribers_get_what_the_stream_gets(run: Run, redis_url: str, trades: MakeTrades) -> None:
    async def body(sink: RedisSink) -> Any:
        link = await RedisLink.open(parse_redis_url(redis_url), "reader", 1.0)
        await link.call([("SUBSCRIBE", "fts:trades:acme:S1")], 1.0)
        await sink.take(Batch([piece(trades(8))]), durable=False)
        message = await link.call([("PING",)], 1.0)
        await link.wait_closed()
        return message

    ((kind, channel, payload),) = run(body, redis_publish=True)
    assert (kind, channel) == (b"message", b"fts:trades:acme:S1")
    assert json.loads(payload) == events(redis_url, "fts:trades:acme:S1")


def test_kinds_may_have_keys_bounds_and_channels_of_their_own(
    run: Run, redis_url: str, trades: MakeTrades, books: MakeTrades
) -> None:
    async def body(sink: RedisSink) -> Any:
        for n in range(60):
            await sink.take(Batch([piece(trades(4 * 500, n * 2000))]), durable=False)
        link = await RedisLink.open(parse_redis_url(redis_url), "reader", 1.0)
        await link.call([("PSUBSCRIBE", "*")], 1.0)
        await sink.take(Batch([piece(trades(4)), piece(books(4))]), durable=False)
        ((_, _, channel, _),) = await link.call([("PING",)], 1.0)
        await link.wait_closed()
        return channel

    kinds = {"trade": RedisKind(maxlen=2_000), "book": RedisKind(publish=True)}
    template = "{prefix}:{venue}.{symbol}/{kind}"
    channel = run(body, redis_key_template=template, redis_kinds=kinds)
    assert channel.startswith(b"fts:acme.S") and channel.endswith(b"/book"), "no trade is sent"
    assert 1_000 <= len(events(redis_url, "fts:acme.S0/trades")) <= 10_000
    assert ask(redis_url, ("KEYS", "fts:trades:*")) == [[]]


def test_rows_of_unknown_streams_are_left_out(run: Run, redis_url: str, trades: MakeTrades) -> None:
    rows = trades(4)
    rows["stream"][1] = 99

    async def body(sink: RedisSink) -> None:
        assert (await sink.take(Batch([piece(rows)]), durable=False)).rows.total() == 3

    run(body)


@pytest.mark.fault("R02")
def test_a_predecessors_late_exec_fences_us(run: Run, redis_url: str, trades: MakeTrades) -> None:
    async def body(sink: RedisSink) -> None:
        await claim(sink, "r", 1)
        await sink.take(Batch([piece(trades(4))]), durable=False)
        late = await RedisLink.open(parse_redis_url(redis_url), "late", 1.0)
        await late.call([("HSET", "fts:cursor", "r/1", 8)], 1.0)
        await late.wait_closed()
        with pytest.raises(FencedError):
            await sink.take(Batch([piece(trades(4, first_id=4), 4)]), durable=False)
        await sink.open({})
        assert await claim(sink, "r", 1) == 8
        await sink.take(Batch([piece(trades(4, first_id=8), 8)]), durable=False)

    run(body)
    assert [event["id"] for event in events(redis_url, "fts:trades:acme:S0")] == [0, 8]


@pytest.mark.fault("R03")
def test_a_hanging_server_costs_no_more_than_the_deadline(
    run: Run, valkey: PrivateValkey, trades: MakeTrades
) -> None:
    assert valkey.pid is not None
    pid = valkey.pid

    async def body(sink: RedisSink) -> float:
        await claim(sink, "r", 1)
        os.kill(pid, signal.SIGSTOP)
        start = monotonic_s()
        try:
            with pytest.raises(StoreUnavailableError, match="no answer"):
                await sink.take(Batch([piece(trades(50_000))]), durable=False)
        finally:
            os.kill(pid, signal.SIGCONT)
        elapsed = monotonic_s() - start
        with pytest.raises(StoreUnavailableError, match="not connected"):
            await sink.take(Batch([piece(trades(4))]), durable=False)
        return elapsed

    assert run(body) >= 1.0


@pytest.mark.fault("R01")
def test_a_server_that_comes_back_empty_is_used_again(
    run: Run, valkey: PrivateValkey, redis_url: str, trades: MakeTrades
) -> None:
    async def body(sink: RedisSink) -> None:
        await claim(sink, "r", 1)
        await sink.take(Batch([piece(trades(4))]), durable=False)
        await asyncio.to_thread(valkey.stop)
        with pytest.raises(StoreUnavailableError):
            await sink.take(Batch([piece(trades(4), 4)]), durable=False)
        with pytest.raises(StoreUnavailableError):
            await sink.open({})
        valkey.start()
        await sink.open({})
        assert await claim(sink, "r", 1) is None
        await sink.take(Batch([piece(trades(4), 4)]), durable=False)

    run(body)
    assert len(events(redis_url, "fts:trades:acme:S0")) == 1


@pytest.mark.fault("R03")
def test_error_replies_are_typed_and_move_no_cursor(
    run: Run, redis_url: str, trades: MakeTrades
) -> None:
    async def body(sink: RedisSink) -> None:
        await claim(sink, "r", 1)
        ask_link = await RedisLink.open(parse_redis_url(redis_url), "admin", 1.0)
        await ask_link.call([("CONFIG", "SET", "maxmemory", "1")], 1.0)
        with pytest.raises(StoreUnavailableError, match="OOM"):
            await sink.take(Batch([piece(trades(4))]), durable=False)
        await ask_link.call([("CONFIG", "SET", "maxmemory", "0")], 1.0)
        await ask_link.wait_closed()
        await sink.open({})
        assert await claim(sink, "r", 1) is None

    run(body)


def test_login_and_database_come_from_the_url(
    run: Run, redis_url: str, make_settings: MakeSettings, slots: Slots, trades: MakeTrades
) -> None:
    ask(redis_url, ("ACL", "SETUSER", "ann", "on", ">hunter2", "~*", "&*", "+@all"))
    base = redis_url.partition("?")[0]

    async def main(url: str) -> None:
        sink = RedisSink(make_settings(redis_url=url), slots, deadline_s=1.0)
        try:
            await sink.open({})
            await sink.take(Batch([piece(trades(4))]), durable=False)
        finally:
            await sink.close()

    uvloop.run(main(f"{base}?db=3&username=ann&password=hunter2"))
    assert ask(redis_url, ("SELECT", 3), ("EXISTS", "fts:trades:acme:S0"))[1] == 1
    with pytest.raises(EngineError) as caught:
        uvloop.run(main(f"{base}?username=ann&password=wrong-one"))
    assert "wrong-one" not in str(caught.value)


def test_a_server_that_says_nothing_is_left_as_soon_as_the_configuration_says(
    make_settings: MakeSettings, slots: Slots
) -> None:
    async def main() -> None:
        async def listen(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await gone.wait()
            writer.close()

        gone = asyncio.Event()
        server = await asyncio.start_server(listen, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        settings = make_settings(redis_url=f"redis://127.0.0.1:{port}", redis_answer_within_s=0.2)
        with pytest.raises(StoreUnavailableError, match=r"no answer within 0\.2 s"):
            await RedisSink(settings, slots).open({})
        gone.set()
        server.close()

    asyncio.run(main())


def test_urls_are_read_and_masked() -> None:
    address = parse_redis_url("rediss://ann:p%40ss@cache.example:6380/2")
    assert (address.host, address.port, address.tls, address.database) == (
        "cache.example", 6380, True, 2,
    )  # fmt: skip
    assert (address.username, address.password) == ("ann", "p@ss")
    assert "ss" not in str(address).partition("//")[2].partition("@")[0]
    assert "p@ss" not in repr(address)
    for bad in ("http://:hunter2@x", "redis://:hunter2@x/nine", "redis://:hunter2@x:port"):
        with pytest.raises(ConfigError) as caught:
            parse_redis_url(bad)
        assert "hunter2" not in str(caught.value)
