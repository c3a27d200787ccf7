"""What a researcher waits for, on a private server with 10,000,000 trades of five days:

    .venv/bin/python bench/reading.py [--rows 10000000] [--plans] [--url postgresql://…]

Each task is done five times; shown are the CPU time that the server's process used, and the wall
clock, of the fastest. `--plans` shows how the server went about it. With `--url` an empty database
of another server is filled, one with TimescaleDB for example.

Five hundred symbols trade very unequally (the busiest has an eighth of all trades), and one trades
twenty times a day. The four days before the newest have the index (stream_id, time), as the upkeep
leaves them; the newest has the one on time alone.
"""

import argparse
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter
from typing import Any, Final

import psycopg

from engine.servers.postgres import PrivatePostgres
from engine.start.migrations import migrate

FIRST_DAY: Final = "2026-05-04"
DAYS: Final = 5
ROWS: Final = 10_000_000
SYMBOLS: Final = 500
KINDS: Final = ("trade", "book", "quote")

SCHEMA: Final = f"""
    INSERT INTO instrument (venue, symbol, version, base, quote, price_decimals, qty_decimals,
                            price_unit, qty_unit, status)
    SELECT 'bench', 'S' || n, 1, '', '', 2, 3, 0.01, 0.001, ''
    FROM generate_series(1, {SYMBOLS + 1}) AS n;
    INSERT INTO stream (stream_id, instrument_id, kind, transport)
    SELECT instrument_id + 1000 * place, instrument_id, kind, 'Ws'
    FROM instrument, unnest(ARRAY['Trades', 'L2Book', 'Ticker']) WITH ORDINALITY AS k (kind, place)
"""
PARTITION: Final = """
    CREATE TABLE {table}_d{day} PARTITION OF {table}
    FOR VALUES FROM (timestamptz '{first} 00:00+00' + {day} * interval '1 day')
        TO (timestamptz '{first} 00:00+00' + ({day} + 1) * interval '1 day')
"""
TIME: Final = f"timestamptz '{FIRST_DAY} 00:00+00' + g * (interval '{DAYS} days' / {{rows}})"
SYMBOL: Final = f"(1 + floor({SYMBOLS} * power(random(), 3)))::int"
TRADES: Final = f"""
    INSERT INTO trade SELECT {TIME}, 0, 0, 1000 + {SYMBOL}, 0,
        (CASE WHEN random() < 0.5 THEN 'B' ELSE 'S' END)::"char",
        8000000 + (random() * 100000)::int, 1 + (random() * 1000000)::int, 0, g
    FROM generate_series(0, {{rows}} - 1) AS g
"""
RARE: Final = f"""
    INSERT INTO trade SELECT {TIME.format(rows=DAYS * 20)} + interval '1 hour', 0, 0,
        {1000 + SYMBOLS + 1}, 0, 'B', 8000000, 1, 0, g
    FROM generate_series(0, {DAYS * 20} - 1) AS g
"""
SNAPSHOTS: Final = f"""
    INSERT INTO book SELECT timestamptz '{FIRST_DAY} 00:00+00' + d * interval '1 day'
            + s * interval '1 second', 0, 0, 2000 + s, 1,
        (CASE WHEN l <= 200 THEN 'b' ELSE 'a' END)::"char", 8000000 - 200 + l, 5, 0, 0
    FROM generate_series(0, {DAYS - 1}) AS d, generate_series(1, {SYMBOLS}) AS s,
        generate_series(1, 400) AS l
"""
CHANGES: Final = f"""
    INSERT INTO book SELECT {TIME}, 0, 0, 2000 + {SYMBOL}, 0,
        (CASE WHEN random() < 0.5 THEN 'b' ELSE 'a' END)::"char",
        8000000 - 200 + (random() * 400)::int, (random() * 1000)::int, 1 + g, g
    FROM generate_series(0, {{rows}} - 1) AS g
"""
QUOTES: Final = f"""
    INSERT INTO quote SELECT {TIME}, 0, 0, 3000 + {SYMBOL}, 0, g,
        8000000 - (random() * 100)::int, 1, 8000001 + (random() * 100)::int, 1
    FROM generate_series(0, {{rows}} - 1) AS g
"""
CLOSED, NEWEST = ("2026-05-06", "2026-05-07"), ("2026-05-08", "2026-05-09")
TASKS: Final = {
    "a day of 1 min bars, busiest symbol": "bars_raw('bench', 'S1', '{}', '{}')",
    "a day of 1 min bars, middling symbol": "bars_raw('bench', 'S50', '{}', '{}')",
    "a day of trades, rare symbol": f"trades('bench', 'S{SYMBOLS + 1}', '{{}}', '{{}}')",
    "a day of trades, busiest, double precision": "trades_f('bench', 'S1', '{}', '{}')",
    "the book at 20:00, busiest symbol": "book_at('bench', 'S1', '{} 20:00')",
    "the book at 20:00, quiet symbol": "book_at('bench', 'S400', '{} 20:00')",
    "an hour of spreads": "spread('bench', 'S10', '{0} 10:00', '{0} 11:00')",
}
OF_NEWEST: Final = {
    "newest trade, busiest symbol": "newest_trades('bench', 'S1')",
    "newest trade, rare symbol": f"newest_trades('bench', 'S{SYMBOLS + 1}')",
    "newest trade of every symbol": "newest_trades()",
    "newest quote of every symbol": "newest_quotes()",
}


class Server:
    """One session, and what its server process uses."""

    def __init__(self, url: str) -> None:
        self.connection = psycopg.connect(url, autocommit=True, options="-c TimeZone=UTC")
        self._usage = Path(f"/proc/{self.connection.info.backend_pid}/schedstat")

    def do(self, statement: str) -> list[Any]:
        """Rows, if there are any."""
        cursor = self.connection.execute(statement.encode())
        return cursor.fetchall() if cursor.description else []

    def cpu_ms(self) -> float:
        """So far."""
        return int(self._usage.read_text().split()[0]) / 1e6 if self._usage.exists() else 0.0

    def measure(self, query: str, times: int = 5) -> tuple[float, float]:
        """(CPU, wall) ms of the fastest; the rows are made into what a client would get."""
        found = []
        for _ in range(times):
            cpu_ms, start_s = self.cpu_ms(), perf_counter()
            self.do(f"COPY (SELECT * FROM {query}) TO '/dev/null' (FORMAT binary)")
            found.append((self.cpu_ms() - cpu_ms, 1e3 * (perf_counter() - start_s)))
        return min(found)


def fill(server: Server, rows: int) -> None:
    """Tables as the writer and the upkeep leave them."""
    server.do("SET synchronous_commit = off")
    for statement in SCHEMA.split(";"):
        server.do(statement)
    is_partitioned = server.do("SELECT relkind = 'p' FROM pg_class WHERE relname = 'trade'")[0][0]
    for table in KINDS if is_partitioned else ():
        for day in range(DAYS):
            server.do(PARTITION.format(table=table, day=day, first=FIRST_DAY))
    server.do(TRADES.format(rows=rows))
    server.do(RARE)
    server.do(SNAPSHOTS)
    server.do(CHANGES.format(rows=rows * 3 // 10))
    server.do(QUOTES.format(rows=rows // 5))
    for table in KINDS if is_partitioned else ():
        for day in range(DAYS - 1):
            server.do(f"CREATE INDEX ON {table}_d{day} (stream_id, time)")
    server.do("SELECT begin_row_spans()")
    server.do("UPDATE row_span_begin SET spans_from = '-infinity', newest_from = '-infinity'")
    for kind in (*KINDS, "book_snapshot"):
        server.do(f"SELECT note_row_spans('{kind}', '-infinity', 'infinity')")
    for kind in KINDS:
        server.do(f"SELECT forget_row_spans('{kind}', '{NEWEST[0]}')")
    server.do("VACUUM ANALYZE")


def show(server: Server, name: str, query: str, *, plans: bool) -> None:
    """One line, and the plan."""
    cpu_ms, wall_ms = server.measure(query)
    (count,) = server.do(f"SELECT count(*) FROM {query}")[0]
    print(f"{name:55} {count:9,} rows  {cpu_ms:8.1f} ms CPU {wall_ms:8.1f} ms", flush=True)
    if plans:
        explain = "EXPLAIN (ANALYZE, COSTS off, TIMING off)"
        for (line,) in server.do(f"{explain} SELECT * FROM {query}"):
            print("    " + line)


@contextmanager
def private_url() -> Iterator[str]:
    """A server that is there for as long."""
    with tempfile.TemporaryDirectory(prefix="fts-bench-") as folder:
        Path(folder).chmod(0o711)
        server = PrivatePostgres(Path(folder), "bench")
        try:
            yield server.start()
        finally:
            server.stop()


def run(url: str, rows: int, *, plans: bool) -> None:
    """Fill, and do each task."""
    migrate(url)
    server = Server(url)
    start_s = perf_counter()
    fill(server, rows)
    print(f"{rows:,} trades and half as many other rows in {perf_counter() - start_s:.0f} s")
    for name, call in TASKS.items():
        for word, bounds in (("closed", CLOSED), ("newest", NEWEST)):
            show(server, f"{name}, {word} day", call.format(*bounds), plans=plans)
    for name, call in OF_NEWEST.items():
        show(server, name, call, plans=plans)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--url", help="an empty database; default: a private server")
    parser.add_argument("--plans", action="store_true")
    chosen = parser.parse_args()
    if chosen.url:
        run(chosen.url, chosen.rows, plans=chosen.plans)
        return
    with private_url() as url:
        run(url, chosen.rows, plans=chosen.plans)


if __name__ == "__main__":
    main()
