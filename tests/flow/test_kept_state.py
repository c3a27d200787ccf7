"""A state directory of an earlier version starts up: wanted streams, slots, positions, journal.

`tests/data/state_<version>` was left by that version, killed while its database was away: all it
had received is in the journal. EXPECTED is what that version itself stored when it was started on
it again with a database.
"""

import signal
import tarfile
from pathlib import Path

import psycopg
import pytest

from tests.flow.processes import Fts
from tests.flow.rig import remove_shared_memory

DATA = Path(__file__).parents[1] / "data"
CONFIG = """\
[venues.binance_linear]
rest_url = "http://127.0.0.1:1"
ws_url = "ws://127.0.0.1:1"
[venues.hyperliquid_perp]
rest_url = "http://127.0.0.1:1"
ws_url = "ws://127.0.0.1:1"
[[streams]]
venue = "binance_linear"
symbols = ["BTCUSDT"]
kinds = ["Trades", "L2Book", "Ticker", "Funding", "Liquidations"]
[[streams]]
venue = "hyperliquid_perp"
symbols = ["BTC"]
kinds = ["Trades", "L2Book", "Ticker", "FundingOpenInterest"]
"""
EXPECTED = {
    "trades": (100, "e969b0b8bef42fa9ea071b9a88101406"),
    "book_levels": (2109, "6d1e3e83916e0ca8dd8beb1ac18a1694"),
    "quotes": (68, "bcb2c4e50c7d45e9c08a09c5492a785e"),
    "funding_rates": (8, "730e84802526b2c371066d48f4fc0531"),
    "open_interest_points": (5, "f00214abccb86ea70067691d5987c50c"),
    "liquidations": (2, "8bfb1861ca8e6a672d94c3e49c9537b5"),
}
TABLES = {
    "trades": "time, recv_time, venue, symbol, side, price, quantity, trade_id, time_ns_part",
    "book_levels": "time, recv_time, venue, symbol, side, price, quantity, seq, prev_seq",
    "quotes": "time, recv_time, venue, symbol, bid, bid_quantity, ask, ask_quantity, seq",
    "funding_rates": "time, recv_time, venue, symbol, rate, mark_price, next_funding_time",
    "open_interest_points": "time, recv_time, venue, symbol, quantity",
    "liquidations": "time, recv_time, venue, symbol, side, price, quantity, filled_quantity",
}


@pytest.mark.flow
def test_what_an_earlier_version_left_is_stored_once(tmp_path: Path, database_url: str) -> None:
    state = tmp_path / "state"
    with tarfile.open(DATA / "state_0.1.0" / "state.tar.gz") as archive:
        archive.extractall(state, filter="data")
    config = tmp_path / "fts.toml"
    config.write_text(CONFIG, encoding="utf-8")
    try:
        for _ in range(2):  # and not once more by the next engine
            engine = Fts(
                "up", "--config", str(config), "--port", "0", "--json", "--no-redis",
                "--state-dir", str(state), FTS_DATABASE_URL=database_url,
            )  # fmt: skip
            engine.wait_for("control is ready")
            engine.signal(signal.SIGTERM)
            engine.end()
            assert found(database_url) == EXPECTED
    finally:
        remove_shared_memory(state)


def found(database_url: str) -> dict[str, tuple[int, str]]:
    """Count and digest of what people see of each kind."""
    with psycopg.connect(database_url) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        return {
            name: connection.execute(
                f"SELECT count(*), md5(string_agg(line, '|' ORDER BY line)) FROM"
                f" (SELECT concat_ws(',', {columns}) AS line FROM {name}) AS rows".encode()
            ).fetchall()[0]
            for name, columns in TABLES.items()
        }


@pytest.mark.flow
def test_what_a_newer_version_left_is_refused_with_what_to_do(
    tmp_path: Path, database_url: str
) -> None:
    """A database first, whose schema has a file that nobody here knows; then rows in the journal,
    which the same state directory refuses before it looks at any server.
    """
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("INSERT INTO schema_version VALUES ('9999_of_next_year.sql', 'x')")
    state = tmp_path / "state"

    def refusal() -> tuple[int, str]:
        engine = Fts(
            "up", "--port", "0", "--json", "--no-redis", "--for", "60", "--state-dir", str(state),
            FTS_DATABASE_URL=database_url,
        )  # fmt: skip
        code, _ = engine.end()
        return code, engine.log.splitlines()[-1]

    code, said = refusal()
    assert (code != 0, "9999_of_next_year.sql" in said) == (True, True), said
    assert "install that one again, or set the database back to its backup" in said
    segment = state / "journal" / "shard-0.trade" / "17" / f"{0:020d}.seg"
    segment.parent.mkdir(parents=True)
    segment.write_bytes(b"FTSJRNL1" + (2).to_bytes(4, "little") + bytes(52))
    code, said = refusal()
    assert (code != 0, str(segment) in said) == (True, True), said
    assert "start that one once more" in said
    assert segment.exists()
