"""A server that lets everybody in and refuses the work: few tries, few words, then all is done."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import numpy as np
import psycopg
import pytest
import uvloop
from redis import Redis

from engine.base.backoff import Backoff
from engine.base.clock import monotonic_s, wall_ns
from engine.base.redis_link import parse_redis_url
from engine.data.instrument import Instrument
from engine.data.kinds import TRADE
from engine.data.layout import open_layout
from engine.data.names import StreamKey, StreamKind
from engine.data.slots import Slots
from engine.limits.budget import Budget, Waiter
from engine.limits.lease_sharing import LeaseSharing
from engine.limits.shared_budgets import Pool, SharedLimits
from engine.messages.listings import StoreListing
from engine.messages.settings import LogSettings, Paths, WriterSettings
from engine.servers.valkey import PrivateValkey
from engine.start.addresses import Secret
from engine.streams.wanted import Wanted, WantedStream
from engine.streams.wanted_mirror import WantedMirror
from engine.writer.every_row import EveryRow
from engine.writer.rows.knob_table import KnobTable
from engine.writer.sinks.postgres.listing_store import ListingStore
from engine.writer.sinks.postgres.sink import PostgresSink
from tests.engine.writer.ring_bench import Bench
from tests.waiting import until

SECONDS = 1.0
MOST_TRIES = 12
"""In that time, with delays from 0.02 s up to 0.2 s; without a growing delay it is some thirty."""
POOL: Pool = ("acme", "rest_weight")


FULL = """
    CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS
    $$BEGIN RAISE EXCEPTION 'could not extend file' USING ERRCODE = 'disk_full'; END$$;
    CREATE TRIGGER full_disk BEFORE INSERT ON trade FOR EACH STATEMENT EXECUTE FUNCTION full_disk()
"""


def backoff() -> Backoff:
    return Backoff(0.02, 0.2)


class Client:
    """Somebody who depends on a server, with work to do."""

    def __init__(self, done: Callable[[], bool], trouble: Callable[[], str]) -> None:
        self.done, self.trouble = done, trouble


def settings_at(path: Path, url: str) -> WriterSettings:
    layout = open_layout(path / "state", path / "shm")
    return WriterSettings(Paths.of(layout), [], -1, LogSettings(""), database_url=url)


@asynccontextmanager
async def delivery(path: Path, url: str) -> AsyncIterator[Client]:
    settings = settings_at(path, url)
    layout = settings.paths.layout()
    slots = Slots(layout.slots)
    slot = slots.assign(StreamKey("acme", "A", StreamKind.TRADES)).slot
    slots.describe(slot, Instrument("acme", "A", 2, 3))
    bench = Bench(layout)
    sink = PostgresSink(settings, Slots(layout.slots))
    client = EveryRow(bench.sources, sink, KnobTable(settings), backoff=backoff())
    rows = np.zeros(400, TRADE.dtype)
    rows["stream"], rows["price"], rows["qty"] = slot, 1.25, 0.001
    rows["ts_event"] = rows["ts_recv"] = wall_ns()
    rows["trade_id"] = np.arange(400)
    bench.put(rows)
    task = asyncio.create_task(client.run())
    try:
        yield Client(lambda: client.backlog_rows == 0, lambda: client.trouble.text)
    finally:
        await cancelled(task)
        await sink.close()
        bench.close()


@asynccontextmanager
async def listings(path: Path, url: str) -> AsyncIterator[Client]:
    saved: list[int] = []
    store = ListingStore(settings_at(path, url), lambda m: saved.append(m.loaded_ns), backoff())
    task = asyncio.create_task(store.run())
    store.take(StoreListing("acme", [Instrument("acme", "A", 2, 3)], [], 1))
    try:
        yield Client(lambda: saved == [1], lambda: store.trouble.text)
    finally:
        await cancelled(task)


@asynccontextmanager
async def mirror(path: Path, url: str) -> AsyncIterator[Client]:
    wanted = Wanted(path / "registry.jsonl")
    wanted.put([WantedStream(StreamKey("acme", "A", StreamKind.TRADES))])
    client = WantedMirror(wanted, "name", Secret(url), lambda _: None, 300.0, backoff())
    client.start()
    try:
        yield Client(
            lambda: client.mirrored_revision == wanted.revision, lambda: client._trouble.text
        )
    finally:
        await client.close()


async def cancelled(task: "asyncio.Task[None]") -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@pytest.mark.fault("N39")
@pytest.mark.parametrize(
    ("client_of", "refusal"),
    [
        (delivery, "read only"),
        (delivery, "disk full"),
        (listings, "read only"),
        (listings, "no right"),
        (mirror, "read only"),
        (mirror, "no right"),
    ],
)
def test_a_database_that_refuses_the_work_is_asked_ever_less(
    tmp_path: Path,
    database_url: str,
    caplog: pytest.LogCaptureFixture,
    client_of: Callable[..., AbstractAsyncContextManager[Client]],
    refusal: str,
) -> None:
    name = database_url.partition("?")[0].rpartition("/")[2]
    url = database_url
    if refusal == "read only":
        breaks = f"ALTER DATABASE {name} SET default_transaction_read_only = on"
        mends = f"ALTER DATABASE {name} SET default_transaction_read_only = off"
    elif refusal == "disk full":
        breaks, mends = FULL, "DROP FUNCTION full_disk CASCADE"
    else:
        breaks = "REVOKE INSERT ON instrument, stream_registry FROM collector"
        mends = "GRANT INSERT ON instrument, stream_registry TO collector"
        url = logged_in_as_collector(database_url)

    async def main() -> None:
        run(database_url, breaks)
        async with asyncio.timeout(30), client_of(tmp_path, url) as client:
            await until(lambda: client.trouble() != "")
            before = sessions(database_url, name)
            told = set()
            for _ in range(int(SECONDS / 0.01)):
                await asyncio.sleep(0.01)
                told.add(client.trouble() != "")
            tries = sessions(database_url, name) - before
            assert told == {True}, "not for a moment is it all right"
            assert not client.done()
            assert tries <= MOST_TRIES
            run(database_url, mends)
            await until(lambda: client.done() and client.trouble() == "")

    with caplog.at_level(logging.INFO, "engine"):
        uvloop.run(main())
    assert len(caplog.records) <= 3, [record.getMessage() for record in caplog.records]
    assert database_url not in caplog.text


def logged_in_as_collector(url: str) -> str:
    """Somebody who owns nothing, and may do what he needs."""
    run(
        url,
        "DO $$BEGIN CREATE ROLE collector; EXCEPTION WHEN duplicate_object THEN NULL; END$$",
        "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO collector",
        "GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO collector",
    )
    return f"{url}&options=-c%20role%3Dcollector"


def run(url: str, *statements: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SET default_transaction_read_only = off")
        for statement in statements:
            connection.execute(statement.encode())


def sessions(url: str, name: str) -> int:
    """Sessions that were opened so far, our own for asking not counted."""
    elsewhere = url.replace(f"/{name}?", "/postgres?")
    with psycopg.connect(elsewhere, autocommit=True) as connection:
        query = "SELECT sessions FROM pg_stat_database WHERE datname = %s"
        row = connection.execute(query, (name,)).fetchone()
    assert row is not None
    return int(row[0])


@pytest.mark.fault("N39")
@pytest.mark.parametrize("alone", [False, True])
@pytest.mark.parametrize("refusal", ["OOM", "READONLY"])
def test_limits_that_cannot_be_written_down_are_no_shared_limits(
    redis_url: str,
    valkey: PrivateValkey,
    caplog: pytest.LogCaptureFixture,
    refusal: str,
    *,
    alone: bool,
) -> None:
    """Looking works and spending does not, as on a server that failed over."""
    server = Redis.from_url(redis_url)
    granted: list[list[Waiter]] = []
    budget = Budget(20, 60.0)

    def connections() -> int:
        return int(server.info("stats")["total_connections_received"])

    async def main() -> None:
        shared = SharedLimits(parse_redis_url(redis_url), "fts:limits:t", "me", {POOL: 60.0}, 1.0)
        sharing = LeaseSharing(
            shared,
            {POOL: budget},
            lambda _pool, units: granted.append(budget.grant(monotonic_s(), units)),
            goes_on_alone=alone,
            backoff=backoff(),
        )
        sharing.start()
        await until(lambda: len(granted) >= 1 and sharing.problem == "")
        if refusal == "OOM":
            server.config_set("maxmemory", 1 << 20)
        else:
            server.replicaof("127.0.0.1", "1")
        budget.ask(Waiter("shard-0", 1, 5.0))
        sharing.serve(POOL)
        await until(lambda: sharing.problem != "")
        before, told = connections(), set()
        for number in range(int(SECONDS / 0.01)):
            await asyncio.sleep(0.01)
            told.add(sharing.problem != "")
            if number % 30 == 0:
                sharing.serve(POOL)
        assert told == {True}
        assert connections() - before <= MOST_TRIES
        server.config_set("maxmemory", 64 << 20)
        server.replicaof("NO", "ONE")
        await until(lambda: sharing.problem == "")
        await sharing.close()

    with caplog.at_level(logging.INFO, "engine"):
        uvloop.run(main())
    server.close()
    valkey.restart()
    assert len(caplog.records) <= 2, [record.getMessage() for record in caplog.records]
