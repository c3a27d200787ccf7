"""Brings the database's schema up to date at start, without making the start wait for a database.

The first attempt is part of the start. When the database cannot be reached, the attempt is
repeated in the background; the market data is collected meanwhile and waits in the journal.
"""

import asyncio
import logging
from collections.abc import Callable

import psycopg
from psycopg.conninfo import make_conninfo

from engine.config import Secret
from engine.errors import ConfigError, EngineError, MigrationError
from engine.threads import in_thread

_log = logging.getLogger(__name__)

_CONNECT_TIMEOUT_S = 3
_FIRST_DELAY_S = 0.5
_DELAY_S_MAX = 10.0
_FIRST_ATTEMPT_S = 30.0
"""A server that is logged into and then silent, or a long migration, must not hold up the start."""


class SchemaKeeper:
    """Migrates once, as soon as that is possible. `problem` says why it has not happened."""

    def __init__(
        self, database_url: Secret | None, migrate: Callable[[str], list[str]] | None
    ) -> None:
        self._database_url = database_url
        self._migrate = migrate
        self._task: asyncio.Task[None] | None = None
        self.problem = ""

    async def first_attempt(self) -> "asyncio.Task[None] | None":
        """Migrate, or go on trying in the background: the task to watch. Raises MigrationError for
        a schema that is not ours.
        """
        if self._database_url is None or self._migrate is None:
            return None
        attempt = asyncio.create_task(self._attempt(), name="schema")
        done, _ = await asyncio.wait({attempt}, timeout=_FIRST_ATTEMPT_S)
        if done and attempt.result():
            return None
        if not done:
            self.problem = "the database has not finished the schema yet"
            _log.warning(f"{self.problem}; collecting goes on, rows wait in the journal")
        self._task = asyncio.create_task(self._retry(attempt), name="schema-retry")
        return self._task

    async def close(self) -> None:
        """Stop trying."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _retry(self, attempt: "asyncio.Task[bool]") -> None:
        """Try until it is done; `attempt` is the first."""
        delay_s = _FIRST_DELAY_S
        while True:
            try:
                if await attempt:
                    return
            except MigrationError as error:
                self.problem = str(error)
                _log.error(f"database schema: {error}; rows wait in the journal")
                return
            await asyncio.sleep(delay_s)
            delay_s = min(delay_s * 2, _DELAY_S_MAX)
            attempt = asyncio.create_task(self._attempt(), name="schema")

    async def _attempt(self) -> bool:
        assert self._database_url is not None
        migrate = self._migrate
        assert migrate is not None
        try:
            conninfo = make_conninfo(
                self._database_url.reveal(), connect_timeout=_CONNECT_TIMEOUT_S
            )
        except psycopg.ProgrammingError:
            # The text of this error repeats the address, password included.
            raise ConfigError("the database address is neither a URL nor key=value") from None
        try:
            applied = await in_thread(lambda: migrate(conninfo), "schema")
        except (psycopg.OperationalError, OSError) as error:
            self._unreachable(error)
            return False
        except EngineError as error:
            if not error.retriable:
                raise
            self._unreachable(error)
            return False
        except psycopg.Error as error:
            raise MigrationError(f"database schema: {_first_line(error)}") from error
        self.problem = ""
        if applied:
            _log.info(f"database schema: applied {', '.join(applied)}")
        return True

    def _unreachable(self, error: Exception) -> None:
        text = _first_line(error)
        if text != self.problem:
            _log.warning(
                f"the database cannot be reached: {text}; collecting goes on, rows wait in the"
                " journal, and it is tried again until it answers"
            )
        self.problem = text


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
