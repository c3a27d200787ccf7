"""A database is set back to its backup: rows the journal still has are stored again, once, and the
others are declared. As docs/backup.md says it, with the programs it names.
"""

import signal
import subprocess
from pathlib import Path

import psycopg
import pytest

from engine.servers.postgres import PrivatePostgres, client_program
from tests.conftest import database_at
from tests.flow.rig import Rig, assert_equation


def program(name: str, *arguments: str) -> None:
    found = client_program()
    assert found is not None
    subprocess.run([str(found.with_name(name)), *arguments], check=True, timeout=120)


class Backup:
    """A dump of a database, and a way to set that back to it while an engine runs."""

    def __init__(self, server: PrivatePostgres, url: str, file: Path) -> None:
        self._admin = database_at(server.start(), "postgres")
        self._url, self._file = url, file
        self._name = url.partition("?")[0].rpartition("/")[2]
        program("pg_dump", "--format=custom", f"--file={file}", url)

    def restore(self) -> None:
        """Aside first: nobody may take a half-filled database for the whole one."""
        aside, old = f"{self._name}_restored", f"{self._name}_old"
        self._execute(f"CREATE DATABASE {aside} TEMPLATE template0")
        program("pg_restore", f"--dbname={database_at(self._url, aside)}", str(self._file))
        self._execute(
            f"ALTER DATABASE {self._name} ALLOW_CONNECTIONS false",
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            f" WHERE datname = '{self._name}'",
            f"ALTER DATABASE {self._name} RENAME TO {old}",
            f"ALTER DATABASE {aside} RENAME TO {self._name}",
            f"DROP DATABASE {old}",
        )

    def _execute(self, *statements: str) -> None:
        with psycopg.connect(self._admin, autocommit=True) as connection:
            for statement in statements:
                connection.execute(statement.encode())


@pytest.mark.flow
@pytest.mark.fault("P08")
def test_nothing_is_twice_and_nothing_is_missing_without_a_word(
    tmp_path: Path, postgres: PrivatePostgres, database_url: str
) -> None:
    rig = Rig(tmp_path, database_url, rate="500", symbols=1)
    try:
        engine = rig.start()
        rig.until_more_rows(300)
        backup = Backup(postgres, database_url, tmp_path / "ticks.dump")
        rig.until_more_rows(300)
        before = rig.stored()
        backup.restore()  # the engine runs, and its journal has what the backup lacks
        rig.until(lambda: rig.stored() > before, "the rows since the backup, and more")
        lost = "SELECT coalesce(sum(to_sequence - from_sequence), 0) FROM ring_loss"
        assert rig.query(lost) == [(0,)], "the journal has every row since"
        engine.signal(signal.SIGTERM)
        assert engine.end()[0] == 0, engine.log
        backup.restore()  # a stop in order leaves nothing behind: no journal has them any more
        rig.start()
        rig.until_more_rows(300)
        assert rig.query(lost)[0][0] > 0
        assert rig.query("SELECT count(*) > 0 FROM gaps WHERE reason = 'journal_loss'") == [(True,)]
        assert_equation(rig.finish())
    finally:
        rig.close()
