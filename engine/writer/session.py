"""Opens the writer's database session: deadlines on both sides, and how durable a COMMIT is."""

from typing import Any, Final

import psycopg

from engine.writer.refusals import unavailable

_CLIENT_SETTINGS: Final[dict[str, Any]] = {
    "connect_timeout": 10,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    # A COPY or COMMIT into a black hole fails after this, not after the kernel's 15 minutes.
    "tcp_user_timeout": 10_000,
}
_SERVER_SETTINGS: Final[dict[str, str]] = {
    # Rows and cursor are lost together in a crash, and the journal has them: nothing to wait for.
    "synchronous_commit": "off",
    "lock_timeout": "5s",
    "idle_in_transaction_session_timeout": "30s",
    "tcp_user_timeout": "10s",
    "statement_timeout": "0",
    # The cursor's compare-and-set sees what a predecessor committed meanwhile.
    "default_transaction_isolation": "read committed",
}

Connection = psycopg.AsyncConnection[tuple[Any, ...]]


async def open_session(database_url: str, application_name: str) -> Connection:
    """Return a connection in autocommit mode. Raises DatabaseUnavailableError."""
    try:
        connection = await psycopg.AsyncConnection.connect(
            database_url,
            autocommit=True,
            application_name=application_name,
            **_CLIENT_SETTINGS,
        )
    except (psycopg.Error, OSError, ValueError) as error:
        raise unavailable(error, database_url) from None
    try:
        for name, value in _SERVER_SETTINGS.items():
            await connection.execute("SELECT set_config(%s, %s, false)", (name, value))
        await _watch_for_dead_client(connection)
    except BaseException as error:
        connection.pgconn.finish()
        if isinstance(error, psycopg.Error):
            raise unavailable(error, database_url) from None
        raise
    return connection


async def _watch_for_dead_client(connection: Connection) -> None:
    """The server looks every 2 s whether we still live, even while it is busy. Not on every OS,
    and not before PostgreSQL 14."""
    try:
        await connection.execute("SET client_connection_check_interval = '2s'")
    except (psycopg.DataError, psycopg.NotSupportedError, psycopg.ProgrammingError):
        return
