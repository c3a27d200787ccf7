"""What a row costs until it is committed and what it takes to keep, live and catching up:

    .venv/bin/python bench/storing.py [--url postgresql://…] [--rows 1000000] [--json]

The writer's PostgreSQL sink commits the same rows twice: in commits of 300 rows, as it does while
it keeps up, and of 50,000, as after an outage. Shown are rows a second by the wall clock, CPU time
a row of the server's process and of ours, and bytes a row of the write-ahead log and of the table
with its indexes; with the upkeep's work done on what is closed, bytes once more. Without `--url` a
private server is started; the database that is named must be empty.

Five hundred streams of random prices, 10,000 rows a second together: what a market compresses to is
less.
"""

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np
import psycopg

from engine.data.instrument import Instrument
from engine.data.kind import Kind, RecordArray
from engine.data.kinds import BOOK, QUOTE, TRADE
from engine.data.layout import SourceKey, open_layout
from engine.data.names import StreamKey, StreamKind
from engine.data.slots import Slots
from engine.messages.settings import LogSettings, Paths, WriterSettings
from engine.servers.postgres import PrivatePostgres
from engine.start.migrations import migrate
from engine.writer.rows.slice import Batch, Slice
from engine.writer.sinks.postgres.sink import PostgresSink

STREAMS: Final = 500
BEGIN_NS: Final = 1_780_000_200_000_000_000
EVERY_NS: Final = 100_000
"""10,000 rows a second, as 500 streams of a calm market have them."""
COMMITS: Final = {"live": 300, "catch-up": 50_000}
LIVE_PART: Final = 2
"""Half of the rows are enough of small commits."""
KINDS: Final = {StreamKind.TRADES: TRADE, StreamKind.L2_BOOK: BOOK, StreamKind.TICKER: QUOTE}


def records(spec: Kind, slot: int, count: int) -> RecordArray:
    """Exact prices and sizes on the streams from `slot` on, in the order of time."""
    random = np.random.default_rng(1)
    rows = np.zeros(count, spec.dtype)
    rows["stream"] = slot + random.integers(0, STREAMS, count)
    rows["ts_event"] = BEGIN_NS + np.arange(count) * EVERY_NS
    rows["ts_recv"] = rows["ts_event"] + random.integers(1_000_000, 9_000_000, count)
    rows[spec.id_field] = np.arange(count)
    for name in {"price", "bid", "ask"} & set(rows.dtype.names or ()):
        rows[name] = random.integers(8_000_000, 8_200_000, count) / 100
    for name in {"qty", "bid_qty", "ask_qty"} & set(rows.dtype.names or ()):
        rows[name] = random.integers(1, 10**6, count) / 1000
    if "side" in (rows.dtype.names or ()):
        rows["side"] = np.frombuffer(b"ba" if spec is BOOK else b"BS", "u1")[
            random.integers(0, 2, count)
        ]
    return rows


def cpu_s(pid: int) -> float:
    """CPU time that a process of this machine has used."""
    return int(Path(f"/proc/{pid}/schedstat").read_text("ascii").split()[0]) / 1e9


def one(url: str, query: str) -> Any:
    """The only value of a query."""
    with psycopg.connect(url, autocommit=True) as connection:
        row = connection.execute(query.encode()).fetchone()
        assert row is not None
        return row[0]


def has_hypertables(url: str) -> bool:
    """Whether it is a TimescaleDB."""
    return bool(one(url, "SELECT to_regproc('hypertable_size') IS NOT NULL"))


def bytes_of(url: str, table: str) -> int:
    """Of a table, its parts and their indexes."""
    if has_hypertables(url):
        return int(one(url, f"SELECT hypertable_size('{table}')"))
    parts = f"SELECT sum(pg_total_relation_size(relid)) FROM pg_partition_tree('{table}')"
    return int(one(url, parts))


class Bench:
    """A sink with a ring of its own for each kind."""

    def __init__(self, url: str, directory: Path) -> None:
        self.url = url
        layout = open_layout(directory / "state", directory / "shm")
        slots = Slots(layout.slots)
        for kind in KINDS:
            keys = [StreamKey("bench", f"S{number}", kind) for number in range(STREAMS)]
            entries = slots.assign_all(keys)
            facts = {e.slot: Instrument("bench", e.key.symbol, 2, 3) for e in entries}
            slots.describe_all(facts)
        settings = WriterSettings(Paths.of(layout), [], -1, LogSettings(""), database_url=url)
        self.sink = PostgresSink(settings, slots)

    async def store(self, mode: str, place: int, spec: Kind, count: int) -> dict[str, Any]:
        """Commit rows of a kind; what it took."""
        rows, size = records(spec, place * STREAMS, count), COMMITS[mode]
        source = SourceKey(f"{mode}-{spec.name}", 1)
        await self.sink.open({})
        await self.sink.cursors({source: 0})
        warm = size
        await self._commits(source, spec, rows[:warm], 0, size)
        assert self.sink._connection is not None
        pid = self.sink._connection.info.backend_pid
        wal, table = (
            one(self.url, "SELECT pg_current_wal_lsn()::text"),
            bytes_of(self.url, spec.name),
        )
        server_s, ours_s, began_s = cpu_s(pid), time.process_time(), time.perf_counter()
        await self._commits(source, spec, rows[warm:], warm, size)
        wall_s, ours_s = time.perf_counter() - began_s, time.process_time() - ours_s
        server_s, stored = cpu_s(pid) - server_s, count - warm
        wal_bytes = one(self.url, f"SELECT (pg_current_wal_lsn() - '{wal}'::pg_lsn)::bigint")
        grown = bytes_of(self.url, spec.name) - table
        await self.sink.close()
        return {
            "kind": spec.name, "mode": mode, "rows_per_s": round(stored / wall_s),
            "server_us": round(server_s / stored * 1e6, 2),
            "writer_us": round(ours_s / stored * 1e6, 2),
            "wal_bytes": round(wal_bytes / stored, 1), "table_bytes": round(grown / stored, 1),
        }  # fmt: skip

    async def _commits(
        self, source: SourceKey, spec: Kind, rows: RecordArray, first: int, size: int
    ) -> None:
        for start in range(0, len(rows), size):
            part = Slice.whole(source, spec, first + start, rows[start : start + size])
            await self.sink.take(Batch([part]), durable=False)


def give_columns(url: str, spec: Kind) -> None:
    """As the upkeep's policies: without, no chunk is ever compressed."""
    order = f"time, {spec.id_field}"
    options = "timescaledb.enable_columnstore, timescaledb.segmentby='stream_id'"
    with psycopg.connect(url, autocommit=True) as connection:
        text = f"ALTER TABLE {spec.name} SET ({options}, timescaledb.orderby='{order}')"
        connection.execute(text.encode())


def closed_bytes(url: str, spec: Kind) -> float:
    """Bytes a row after what the upkeep does to what is closed."""
    table, count = spec.name, one(url, f"SELECT count(*) FROM {spec.name}")
    with psycopg.connect(url, autocommit=True) as connection:
        if not has_hypertables(url):
            connection.execute(f"CREATE INDEX ON {table} (stream_id, time)".encode())
        else:
            chunks = connection.execute(f"SELECT show_chunks('{table}')::text".encode())
            for (chunk,) in chunks.fetchall():
                call = f"CALL convert_to_columnstore('{chunk}', recompress => true)"
                connection.execute(call.encode())
                connection.execute(call.encode())  # loose rows first, and then the order of all
                connection.execute(f"VACUUM (FULL) {chunk}".encode())
    return round(bytes_of(url, table) / int(count), 1)


async def measure(url: str, row_count: int) -> list[dict[str, Any]]:
    """All kinds, in small commits and catching up."""
    found = []
    if has_hypertables(url):
        for spec in KINDS.values():
            give_columns(url, spec)
    with tempfile.TemporaryDirectory(prefix="fts-bench-") as directory:
        bench = Bench(url, Path(directory))
        for mode in COMMITS:
            for place, spec in enumerate(KINDS.values()):
                count = row_count // LIVE_PART if mode == "live" else row_count
                found.append(await bench.store(mode, place, spec, count))
    for each in found:
        spec = next(spec for spec in KINDS.values() if spec.name == each["kind"])
        if each["mode"] == "catch-up":
            each["closed_bytes"] = closed_bytes(url, spec)
    return found


@contextmanager
def database(url: str | None) -> Iterator[str]:
    """The database that is named, or one of a private server."""
    if url is not None:
        yield url
        return
    with tempfile.TemporaryDirectory(prefix="fts-bench-") as folder:
        Path(folder).chmod(0o711)
        server = PrivatePostgres(Path(folder), "bench")
        try:
            yield server.start()
        finally:
            server.stop()


def main(arguments: Sequence[str]) -> None:
    """Measure and say."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--url", help="an empty database; else a private server is started")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    with database(options.url) as url:
        migrate(url)
        found = asyncio.run(measure(url, options.rows))
    if options.json:
        print(json.dumps(found))
        return
    names = list(dict.fromkeys(name for each in found for name in each))
    print("| " + " | ".join(names) + " |\n" + "|---" * len(names) + "|")
    for each in found:
        print("| " + " | ".join(str(each.get(name, "")) for name in names) + " |")


if __name__ == "__main__":
    main(sys.argv[1:])
