"""A schema that the configuration names is the one that everybody works in."""

import os
import subprocess
from pathlib import Path

import pytest
import uvloop
from psycopg.conninfo import conninfo_to_dict

from control.cli.stores.psql import connection_environment
from engine.base.errors import ConfigError, DatabaseUnavailableError
from engine.data.slots import Slots
from engine.database.home import in_schema, schema_of
from engine.database.session import DOCTOR, session
from engine.servers.postgres import client_program
from engine.start.addresses import Secret
from engine.start.config import load
from engine.start.migrations import load_migrations, migrate, pending, sql_dir
from engine.writer.rows.slice import Batch
from engine.writer.sinks.postgres.sink import PostgresSink
from tests.engine.writer.conftest import MakeSettings, MakeTrades, claim
from tests.engine.writer.sinks.postgres.test_sink import piece
from tests.stores import execute, select

ODD = 'Ticks of "us", x\\y é'


def psql(url: str, query: str) -> str:
    """What `fts psql` would answer."""
    program = client_program()
    assert program is not None
    environment = connection_environment(Secret(url))
    files = [int(path.rpartition("/")[2]) for path in environment.values() if "/fd/" in path]
    return subprocess.run(
        [program, "-X", "-A", "-t", "-c", query], env={**os.environ, **environment},
        pass_fds=files, check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip


@pytest.mark.parametrize("schema", ["ticks", ODD, "public", "a" * 63])
@pytest.mark.parametrize(
    "address",
    [
        "postgresql://me:p%40ss@db/x",
        "postgresql:///x?host=/tmp&options=-crole%3Dr&connect_timeout=3",
        "host=db dbname=x password='p w'",
    ],
)
def test_an_address_says_the_schema_and_loses_nothing(address: str, schema: str) -> None:
    said = in_schema(address, schema)
    assert schema_of(said) == schema
    assert schema_of(address) is None
    assert in_schema(said, schema) == said
    with pytest.raises(ConfigError, match="keep one"):
        in_schema(said, "other")
    before, after = conninfo_to_dict(address), conninfo_to_dict(said)
    assert str(after.pop("options")).startswith(str(before.pop("options", "")))
    assert after == before


@pytest.mark.parametrize("schema", ["", "pg_x", "information_schema", "é" * 32, "a\0"])
def test_what_can_be_no_schema_is_refused(schema: str) -> None:
    with pytest.raises(ConfigError):
        in_schema("postgresql://x", schema)


def test_the_configuration_names_it_for_both_addresses(tmp_path: Path) -> None:
    file, secret = tmp_path / "fts.toml", tmp_path / "owner"
    file.write_text(f'[database]\nurl = "postgresql://w@db/x"\nschema = "{ODD[:5]}"\n')
    secret.write_text("postgresql://o:hush@db/x\n")
    loaded = load(file, {"FTS_DATABASE_OWNER_URL": "postgresql://o:hush@db/x"})
    assert loaded.database_url
    assert schema_of(loaded.database_url.reveal()) == ODD[:5]
    assert schema_of(loaded.owner_urls["database"].reveal()) == ODD[:5]
    file.write_text(
        '[database]\nurl = "postgresql://w@db/x"\nowner.url_file = "owner"\nschema = "ticks"\n'
    )
    found = load(file, {}).owner_urls.get("database")
    assert found and found.reveal() == in_schema("postgresql://o:hush@db/x", "ticks")
    for text, told in (
        ('schema = "ticks"', "the private server is this engine's alone"),
        ('owner.url_file = "owner"', "no database.url beside it"),
        ('url = "postgresql://w@db/x"\nschema = "pg_x"', "PostgreSQL's own"),
        ('url = "postgresql://w@db/x?options=-csearch_path%3Da"\nschema = "b"', "keep one"),
    ):
        file.write_text(f"[database]\n{text}\n")
        with pytest.raises(ConfigError, match=told):
            load(file, {})


@pytest.mark.whole
def test_two_engines_keep_to_their_schemas_in_one_database(
    empty_database_url: str, make_settings: MakeSettings, slots: Slots, trades: MakeTrades
) -> None:
    urls = [in_schema(empty_database_url, name) for name in ("one", ODD)]
    said: list[str] = []
    for url in urls:
        assert len(migrate(url, said.append)) == len(load_migrations(sql_dir()))
        assert migrate(url) == pending(url) == []
    assert [text for text in said if "tables of its own" in text] == [
        f"schema {ODD} gets tables of its own beside one"
    ]

    async def store(url: str, count: int) -> None:
        sink = PostgresSink(make_settings(database_url=url), slots)
        await sink.open({})
        await claim(sink, "shard-0.trade")
        await sink.take(Batch([piece(trades(count))]), durable=True)
        await sink.close()

    for count, url in enumerate(urls, 5):
        uvloop.run(store(url, count))
        assert select(url, "SELECT count(*) FROM trades") == [(count,)]
        assert psql(url, "SELECT count(*) FROM trades") == f"{count}\n"
    with pytest.raises(DatabaseUnavailableError, match=r"schemas Ticks .*, one, .*\.schema"):
        uvloop.run(store(empty_database_url, 1))
    with pytest.raises(DatabaseUnavailableError, match=r"database\.schema"):
        migrate(empty_database_url)
    execute(empty_database_url, "DROP SCHEMA one CASCADE")
    with pytest.raises(DatabaseUnavailableError, match=r"schema one .* is not there"):
        uvloop.run(store(urls[0], 1))
    with session(urls[0], DOCTOR) as connection:
        assert connection.execute("SELECT current_schema()").fetchone() == (None,)
    assert migrate(empty_database_url) == [], "there is one place for tables again"
