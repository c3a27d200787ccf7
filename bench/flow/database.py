"""A database for one run on a server of the user's, and what rows take in it."""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit, urlunsplit

import psycopg
from psycopg import sql

from bench.storing import bytes_of, one


@contextmanager
def own_database(url: str) -> Iterator[str]:
    """Make an empty database beside the one that is named, and drop it afterwards. The login needs
    the right to.
    """
    name = f"fts_bench_{secrets.token_hex(4)}"
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    try:
        yield urlunsplit(urlsplit(url)._replace(path=f"/{name}"))
    finally:
        with psycopg.connect(url, autocommit=True) as connection:
            drop = sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)")
            connection.execute(drop.format(sql.Identifier(name)))


def row_bytes(url: str, table: str) -> float:
    """Bytes a row of a table with its parts and indexes, while it is written to."""
    count = int(one(url, f"SELECT count(*) FROM {table}"))
    return round(bytes_of(url, table) / max(count, 1), 1)
