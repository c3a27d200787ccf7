"""Ask and change what the servers of a test hold, past the product."""

import asyncio
from collections.abc import Sequence
from typing import Any

import psycopg

from engine.base.redis_link import Command, RedisLink, parse_redis_url


def select(url: str, query: str, values: Sequence[Any] = ()) -> list[Any]:
    """Rows of the database."""
    with psycopg.connect(url) as connection:
        return connection.execute(query.encode(), values or None).fetchall()


def execute(url: str, *statements: str) -> None:
    """Change the database, each statement by itself."""
    with psycopg.connect(url, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement.encode())


def ask(url: str, *commands: Command) -> list[Any]:
    """Replies of Redis."""

    async def main() -> list[Any]:
        link = await RedisLink.open(parse_redis_url(url), "test", 2.0)
        try:
            return await link.call(commands, 2.0)
        finally:
            await link.wait_closed()

    return asyncio.run(main())
