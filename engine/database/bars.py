"""Prices by the minute of one symbol, for charts, from a database that makes bars."""

from typing import Final, NamedTuple

import psycopg

from engine.database.session import Purpose, open_session
from engine.database.words import unavailable

_WITHIN_S: Final = 5.0
_PRICES: Final = Purpose(
    "prices",
    _WITHIN_S,
    reads_only=True,
    connect_timeout_s=3,
    # Who waits for a chart is gone by then, and the query would go on alone.
    settings={"statement_timeout": "5s", "client_connection_check_interval": "2s"},
)
_QUERY: Final = (
    "SELECT (date_part('epoch', time) / 60)::int8, open::text, high::text, low::text, close::text,"
    " volume::float8, buy_volume::float8"
    " FROM bars(%s, %s, to_timestamp(%s * 60.0), to_timestamp(%s * 60.0), '1 minute') ORDER BY 1"
)


class MinuteBar(NamedTuple):
    """One minute (since 1970), with the exact decimals of its prices. Sums are for drawings."""

    minute: int
    open: str
    high: str
    low: str
    close: str
    volume: float
    buy_volume: float


async def minute_bars(
    url: str, venue: str, symbol: str, since_minute: int, until_minute: int
) -> list[MinuteBar]:
    """Those that begin at `since_minute` or later and before `until_minute`, oldest first. Raises
    DatabaseUnavailableError, also where it takes longer than a few seconds.
    """
    session = await open_session(url, _PRICES)
    try:
        found = await session.execute(_QUERY, (venue, symbol, since_minute, until_minute))
        return [MinuteBar(*row) for row in await found.fetchall()]
    except psycopg.Error as error:
        raise unavailable(error, url) from None
    finally:
        session.pgconn.finish()
