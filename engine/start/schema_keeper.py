"""Brings the databases' schema up to date at start, without making the start wait for a database.

The first attempt is part of the start. When the database cannot be reached, the attempt is
repeated in the background; the market data is collected meanwhile and waits in the journal.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping

from engine.base.backoff import Backoff
from engine.base.errors import DatabaseUnavailableError, MigrationError
from engine.base.keep_trying import Trouble, keep_trying
from engine.base.tasks import cancel, first_of, in_thread
from engine.data.names import DEFAULT_DATABASE, is_database
from engine.start.addresses import Secret

_log = logging.getLogger(__name__)

_FIRST_DELAY_S = 0.5
_DELAY_S_MAX = 10.0
_FIRST_ATTEMPT_S = 30.0
"""A server that is logged into and then silent, or a long migration, must not hold up the start."""


class SchemaKeeper:
    """Migrates once, as soon as that is possible. `problem` says why it has not happened."""

    def __init__(
        self,
        database_url: Secret | None,
        migrate: Callable[[str], list[str]] | None,
        sink: str = DEFAULT_DATABASE,
    ) -> None:
        """`migrate` raises MigrationError, and DatabaseUnavailableError where time may help."""
        self._name = "the database" if sink == DEFAULT_DATABASE else sink
        self._schema = "database schema" if sink == DEFAULT_DATABASE else f"schema of {sink}"
        self._database_url = database_url
        self._migrate = migrate
        self._task: asyncio.Task[None] | None = None
        self._tried = asyncio.Event()
        self._trouble = Trouble(
            self._schema,
            "collecting goes on, rows wait in the journal, and it is tried again until it works",
            Backoff(_FIRST_DELAY_S, _DELAY_S_MAX),
            _log,
        )
        self._is_late = False
        self._ends_no_start = False
        self._refusal = ""

    @property
    def problem(self) -> str:
        """Why the schema is not what it should be; empty when it is."""
        if self._refusal or self._trouble.text:
            return self._refusal or self._trouble.text
        return f"{self._name} has not finished the schema yet" if self._is_late else ""

    async def first_attempt(self) -> "asyncio.Task[None] | None":
        """Migrate, or go on trying in the background: the task to watch. Raises MigrationError for
        a schema that is not ours.
        """
        if self._database_url is None or self._migrate is None:
            return None
        self._task = asyncio.create_task(self._keep(), name="schema")
        await first_of(self._task, self._tried.wait(), timeout_s=_FIRST_ATTEMPT_S)
        if self._task.done():
            self._task.result()
            return None
        self._is_late = True
        if not self._trouble.text:
            _log.warning(f"{self.problem}; collecting goes on, rows wait in the journal")
        return self._task

    def look_again(self) -> "asyncio.Task[None] | None":
        """Have an engine that runs find out that all is well, or what is not: the task to watch."""
        if self._database_url is None or self._migrate is None:
            return None
        self._ends_no_start = True
        self._task = asyncio.create_task(self._keep(), name="schema")
        return self._task

    async def close(self) -> None:
        """Stop trying."""
        await cancel(self._task)

    async def _keep(self) -> None:
        """Try until it is done. What no time will cure stops the start, or only this task."""
        try:
            applied = await keep_trying(self._attempt, self._trouble)
        except MigrationError as error:
            if not (self._is_late or self._ends_no_start):
                raise
            self._refusal = str(error)
            _log.error(f"{self._schema}: {error}; rows wait in the journal")
            return
        self._is_late = False
        if applied:
            _log.info(f"{self._schema}: applied {', '.join(applied)}")

    async def _attempt(self) -> list[str]:
        assert self._database_url is not None
        assert self._migrate is not None
        url, migrate = self._database_url.reveal(), self._migrate
        try:
            return await in_thread(lambda: migrate(url), "schema")
        except DatabaseUnavailableError as error:
            how = "answers and refuses" if error.was_answered else "cannot be reached"
            told = f"{self._name} {how}: {error}"
            raise DatabaseUnavailableError(told, was_answered=error.was_answered) from None
        finally:
            # Whoever waits for the first attempt looks after its failure has been noted.
            asyncio.get_running_loop().call_soon(self._tried.set)


class SchemaKeepers:
    """Those of all databases: none waits for another one."""

    def __init__(
        self, urls: Mapping[str, Secret], migrate: Callable[[str], list[str]] | None
    ) -> None:
        """`urls` by the name of their sink."""
        self._by_sink = {
            sink: SchemaKeeper(url, migrate, sink)
            for sink, url in urls.items()
            if is_database(sink)
        }

    @property
    def problem(self) -> str:
        """Why the first of them is not what it should be; empty when all are."""
        return next((each.problem for each in self._by_sink.values() if each.problem), "")

    def problem_of(self, sink: str) -> str:
        """Of one; empty where there is no such database."""
        keeper = self._by_sink.get(sink)
        return keeper.problem if keeper is not None else ""

    async def first_attempt(self) -> "list[asyncio.Task[None]]":
        """Migrate all, or go on trying in the background: the tasks to watch. Raises MigrationError
        for a schema that is not ours.
        """
        tasks = await asyncio.gather(*(each.first_attempt() for each in self._by_sink.values()))
        return [task for task in tasks if task is not None]

    def look_again(self) -> "list[asyncio.Task[None]]":
        """Of all: the tasks to watch."""
        tasks = [each.look_again() for each in self._by_sink.values()]
        return [task for task in tasks if task is not None]

    async def close(self) -> None:
        """Stop trying."""
        for each in self._by_sink.values():
            await each.close()
