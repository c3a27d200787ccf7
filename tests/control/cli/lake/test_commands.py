"""`fts export`, `fts verify`, `fts import` as typed, and the examples of the pages as they are."""

import contextlib
import io
import json
from collections.abc import Callable, Iterator
from decimal import Decimal, localcontext
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pyarrow as pa
import pytest

from control.cli.exits import Exit
from control.cli.main import main
from tests.conftest import Databases
from tests.engine.upkeep.lake.lake_rig import ODD_SYMBOL, contents, fill
from tests.pages import python_examples
from tests.stores import execute, select

Fts = Callable[..., tuple[int, str, str]]


@pytest.fixture
def fts(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Fts:
    """Type a line; its exit code, and what it said on stdout and stderr."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))

    def typed(line: str, url: str = "") -> tuple[int, str, str]:
        monkeypatch.setenv("FTS_DATABASE_URL", url)
        if not url:
            monkeypatch.delenv("FTS_DATABASE_URL")
        try:
            code = main(line.split())
        except SystemExit as error:
            code = int(str(error.code))
        said = capsys.readouterr()
        return code, said.out, said.err

    return typed


@pytest.fixture
def empty_url(databases: Databases) -> Iterator[str]:
    """A second database."""
    name = databases.make(databases.template())
    yield databases.url(name)
    databases.drop(name)


def test_out_proven_and_back(fts: Fts, database_url: str, empty_url: str, tmp_path: Path) -> None:
    fill(database_url, 200)
    lake = tmp_path / "lake"
    code, out, err = fts(f"export --to {lake} --json", database_url)
    assert code == Exit.OK, err
    said = json.loads(out)
    assert {each["outcome"] for each in said["groups"]} == {"written"}
    assert f"trade of acme on 2026-11-20: written, {said['groups'][0]['rows']} rows" in err

    for typed in ("--venue acne", "--venue acme --symbol NOPE"):
        code, out, err = fts(f"export --to {tmp_path}/other {typed}", database_url)
        assert (code, out) == (Exit.USAGE, "")
        assert "this database has no stream of that" in err
    assert not (tmp_path / "other").exists()

    code, out, err = fts(f"verify {lake}")
    assert (code, out.split(":")[0]) == (Exit.OK, "verified"), err
    code, out, err = fts(f"import {lake}", empty_url)
    assert code == Exit.OK, err
    assert contents(empty_url) == contents(database_url)

    chosen = "--kind trade --venue acme --from 2026-11-21 --through 2026-11-22"
    execute(empty_url, "TRUNCATE trade, quote")
    code, out, err = fts(f"import {lake} {chosen} --json", empty_url)
    [group] = json.loads(out)["groups"]
    assert group["date"] == "2026-11-22"
    assert group["rows"] == select(empty_url, "SELECT count(*)::int FROM trade")[0][0]
    assert select(empty_url, "SELECT FROM quote") == []
    _, out, _ = fts(f"export --to {tmp_path}/two {chosen} --symbol BTC --json", database_url)
    assert [each["kind"] for each in json.loads(out)["groups"]] == [
        "trade", "coverage", "instrument",
    ]  # fmt: skip

    file = next((lake / "kind=funding").rglob("*.parquet"))
    file.write_bytes(file.read_bytes()[::-1])
    code, out, err = fts(f"verify {lake} --json")
    assert code == Exit.FAILED
    assert json.loads(out)["wrong"]
    assert f"WRONG {file.relative_to(lake)}: its SHA-256 is" in err


def test_an_import_of_what_the_lake_does_not_hold_says_what_it_holds(
    fts: Fts, database_url: str, empty_url: str, tmp_path: Path
) -> None:
    fill(database_url, 20)
    lake = tmp_path / "lake"
    fts(f"export --to {lake} --kind trade --kind gap", database_url)
    for typed, said in (
        ("--venue typo", f"--venue typo: {lake} holds acme, other one"),
        ("--venue acme --venue typo", f"--venue typo: {lake} holds acme, other one"),
        ("--kind quote", f"--kind quote: {lake} holds coverage, gap, trade"),
        ("--from 2026-11-23", "holds nothing of that; its days are from"),
        ("--kind trade --through 2026-11-19", "holds nothing of that; its days are from"),
    ):
        code, out, err = fts(f"import {lake} {typed}", empty_url)
        assert (code, out) == (Exit.USAGE, ""), typed
        assert said in err
    assert select(empty_url, "SELECT FROM stream") == []


def test_a_database_beside_the_default_one_is_named(
    fts: Fts, database_url: str, empty_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For export and import alike; who misspells one learns which there are."""
    fill(database_url, 20)
    config = tmp_path / "fts.toml"
    config.write_text("[databases.archive]\n[databases.old]\n")
    monkeypatch.setenv("FTS_DATABASE_URL_ARCHIVE", database_url)
    monkeypatch.setenv("FTS_DATABASE_URL_OLD", "postgresql://nobody@127.0.0.1:1/none")
    lake, of_config = tmp_path / "lake", f"--config {config} --database"
    assert fts(f"export --to {lake} {of_config} archive", empty_url)[0] == Exit.OK
    monkeypatch.setenv("FTS_DATABASE_URL_ARCHIVE", empty_url)
    code, _, err = fts(f"import {lake} {of_config} archive", database_url)
    assert code == Exit.OK, err
    assert contents(empty_url) == contents(database_url)
    for line in (f"export --to {tmp_path}/other", f"import {lake}"):
        code, out, err = fts(f"{line} {of_config} archiv", database_url)
        assert (code, out) == (Exit.USAGE, "")
        assert err.endswith("has no databases.archiv, but databases.archive, databases.old\n")
    assert not (tmp_path / "other").exists()


def test_what_cannot_be_done_says_what_to_do(
    fts: Fts, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    code, _, err = fts(f"export --to {tmp_path}/x")
    assert (code, "nothing has been stored" in err) == (Exit.UNREACHABLE, True)
    code, _, err = fts("verify /nowhere/lake")
    assert (code, err) == (Exit.FAILED, "fts: /nowhere/lake is no lake: it has no _manifest\n")
    code, _, err = fts("export --to x --from yesterday")
    assert (code, "write 2026-11-22" in err) == (Exit.USAGE, True)
    code, _, err = fts("export --to x://y", "postgresql://nobody@127.0.0.1:1/none")
    assert (code, "x://y" in err) == (Exit.FAILED, True)

    def missing(_: str) -> None:
        return None

    monkeypatch.setattr("importlib.util.find_spec", missing)
    for line in ("export --to x", "verify x", "import x"):
        code, _, err = fts(line)
        assert (code, "pip install 'fintickstreams[lake]'" in err) == (Exit.USAGE, True)


def test_the_pages_examples_say_what_the_database_says(
    fts: Fts, database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(database_url, 300)
    # What fills the columns is larger than what anybody pays.
    execute(
        database_url,
        "UPDATE trade SET price = abs(price % 1000000), qty = abs(qty % 1000)",
        "UPDATE instrument SET venue = 'binance_linear' WHERE venue = 'acme'",
        "UPDATE instrument SET symbol = 'BTCUSDT' WHERE symbol = 'BTC'",
    )
    monkeypatch.chdir(tmp_path)
    assert fts("export --to lake", database_url)[0] == Exit.OK
    found: dict[str, Any] = {}
    blocks = [*python_examples("README.md"), *python_examples("docs/lake.md")]
    assert len(blocks) == 4
    for block in blocks:
        with contextlib.redirect_stdout(io.StringIO()):
            exec(compile(block, "example", "exec"), found)  # noqa: S102 - our own pages
    [(volume, turnover, count)] = select(
        database_url,
        "SELECT sum(quantity), sum(price * quantity), count(*) FROM trades"
        " WHERE venue = 'binance_linear' AND symbol = 'BTCUSDT'",
    )
    [row] = found["by_duckdb"].fetchall()
    assert row[:2] == (volume, count)
    assert row[2] == pytest.approx(float(turnover))
    polars: pl.DataFrame = found["by_polars"]
    assert polars["quantity"].sum() == volume
    assert polars.height == count
    arrow: pa.Table = found["by_arrow"]
    assert sum(arrow.column("quantity").to_pylist(), Decimal(0)) == volume
    counts = {(venue, symbol): rows for venue, symbol, rows in found["by_symbol"].fetchall()}
    assert counts["binance_linear", "BTCUSDT"] == count
    assert sum(counts.values()) == select(database_url, "SELECT count(*) FROM trade")[0][0]
    assert found["one_symbol"].height > count  # of two venues
    [(coverage,)] = found["listened"].fetchall()
    assert coverage > 0


def test_readers_sum_what_sql_sums(fts: Fts, database_url: str, tmp_path: Path) -> None:
    """Each kind, whole, exact: as one data set, across venues and days."""
    fill(database_url, 150)
    fts(f"export --to {tmp_path}/lake", database_url)
    views = {
        "trade": ("trades", "time_ns_part", "price"),
        "quote": ("quotes", "time_ns_part", "bid"),
        "book": ("book_levels", "time_ns_part", "seq"),
        "open_interest": ("open_interest_points", "time_ns_part", "quantity"),
        "funding": ("funding_rates", "time_ns_part", "mark_price"),
        "liquidation": ("liquidations", "time_ns_part", "average_price"),
    }
    for kind, (view, below_us, column) in views.items():
        [(count, total, newest, below)] = select(
            database_url,
            f"SELECT count({column}), sum({column}), max(time), sum({below_us})"
            f" FROM {view} WHERE symbol = %s",
            [ODD_SYMBOL],
        )
        files = f"{tmp_path}/lake/kind={kind}/*/*/*.parquet"
        rows = duckdb.execute(
            f"SELECT {column}, time, epoch_ns(time) % 1000 FROM read_parquet('{files}')"
            f" WHERE symbol = '{ODD_SYMBOL}'"
        ).fetchall()
        numbers = [row[0] for row in rows if row[0] is not None]
        assert (len(numbers), sum(row[2] for row in rows)) == (count, below), kind
        with localcontext(prec=60):
            assert sum(numbers, Decimal(0)) == total, kind
        assert max(row[1] for row in rows) == newest, kind
        read = pl.scan_parquet(files).filter(pl.col("symbol") == ODD_SYMBOL).collect()
        assert read[column].drop_nulls().to_list() == numbers, kind
