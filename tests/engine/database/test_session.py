"""The one door to a database: nothing that decides meaning is inherited, no wait is for ever."""

import ast
import asyncio
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
import uvloop
from hypothesis import given
from hypothesis import strategies as st

from engine.base.clock import monotonic_s
from engine.base.errors import DatabaseUnavailableError
from engine.database import words as database_words
from engine.database.session import (
    DOCTOR,
    PURPOSES,
    REGISTRY,
    WITNESS,
    WRITER,
    DatabaseSession,
    Purpose,
    open_session,
    session,
)
from engine.database.settling import MEANING, is_shared, settle
from engine.database.text import escape, unescape
from engine.servers.postgres import PrivatePostgres
from engine.start.migrations import migrate

_ROOT = Path(__file__).parents[3]
_HOSTILE = {
    "client_encoding": "LATIN1",
    "TimeZone": "Asia/Kathmandu",
    "DateStyle": "SQL, DMY",
    "IntervalStyle": "iso_8601",
    "bytea_output": "escape",
    "standard_conforming_strings": "off",
    "transform_null_equals": "on",
    "array_nulls": "off",
    "row_security": "on",
    "default_transaction_isolation": "serializable",
    "default_transaction_deferrable": "on",
    "synchronous_commit": "remote_apply",
    "statement_timeout": "1ms",
    "lock_timeout": "1ms",
    "idle_in_transaction_session_timeout": "1ms",
    "idle_session_timeout": "30s",
    "transaction_timeout": "30s",
    "search_path": "elsewhere, public",
    "session_replication_role": "replica",
}


def database_name(url: str) -> str:
    return url.partition("?")[0].rpartition("/")[2]


def make_hostile(url: str, of: str, settings: dict[str, str]) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        known = {name.lower() for (name,) in connection.execute("SELECT name FROM pg_settings")}
        for name, value in settings.items():
            if name.lower() in known:
                wanted = value if name == "search_path" else f"'{value}'"
                connection.execute(f"ALTER {of} SET {name} = {wanted}".encode())


def expected(purpose: Purpose) -> dict[str, str]:
    # tcp_user_timeout is 0 on a Unix socket, whatever it is set to.
    reading = "on" if purpose.reads_only else "off"
    return {
        **MEANING,
        "session_replication_role": "origin",
        "search_path": "public",
        **{name: value for name, value in purpose.settings.items() if name != "tcp_user_timeout"},
        "default_transaction_read_only": reading,
    }


def read_settings(purpose: Purpose, url: str) -> tuple[dict[str, str], dict[str, str]]:
    """What a session of either sort has, by `SHOW`."""
    names = list(expected(purpose))

    async def others() -> dict[str, str]:
        connection = await open_session(url, purpose, "x")
        found = await connection.execute(_SHOW, (names,))
        rows = await found.fetchall()
        await connection.close()
        return dict(rows)

    with session(url, purpose, "x") as connection:
        return dict(connection.execute(_SHOW, (names,)).fetchall()), uvloop.run(others())


_SHOW = """
    SELECT n, current_setting(n) FROM unnest(%s::text[]) AS n
    WHERE EXISTS (SELECT FROM pg_settings AS s WHERE lower(s.name) = lower(n))
"""


@pytest.mark.fault("N14")
@pytest.mark.fault("N15")
@pytest.mark.parametrize("of", ["DATABASE", "ROLE"])
def test_no_session_inherits_what_decides_meaning(database_url: str, of: str) -> None:
    name = database_name(database_url)
    target = f"DATABASE {name}" if of == "DATABASE" else f"ROLE fts IN DATABASE {name}"
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("CREATE SCHEMA elsewhere")
        connection.execute("CREATE TABLE elsewhere.trade ()")
    make_hostile(database_url, target, _HOSTILE)
    for purpose in PURPOSES:
        for found in read_settings(purpose, database_url):
            wanted = expected(purpose)
            assert {key: found[key] for key in found} == {key: wanted[key] for key in found}
            assert len(found) >= len(wanted) - 2, "an older server lacks two of them"


def test_nobody_else_opens_a_session() -> None:
    """The contract: `psycopg.connect` and its kin are called by the door alone."""
    callers = set()
    for folder in ("engine", "shards", "control"):
        for file in (_ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if not (isinstance(node, ast.Attribute) and node.attr == "connect"):
                    continue
                owner = ast.unparse(node.value)
                if owner in ("psycopg", "DatabaseSession", "AsyncSession") or "Connection" in owner:
                    callers.add(file.relative_to(_ROOT).as_posix())
    assert callers == {"engine/database/session.py"}


def test_tables_are_found_where_they_are(empty_database_url: str) -> None:
    url, name = empty_database_url, database_name(empty_database_url)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE SCHEMA ticks")
        connection.execute('CREATE SCHEMA "od,d ""name"')
        connection.execute(f"ALTER DATABASE {name} SET search_path = ticks".encode())
    migrate(url)
    for path in ('"od,d ""name", public', "nowhere", "''"):
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(f"ALTER DATABASE {name} SET search_path = {path}".encode())
        assert migrate(url) == []
        with session(url, DOCTOR) as connection:
            assert connection.execute("SELECT 'trade'::regclass::oid").fetchone() is not None
            assert connection.execute("SELECT current_schema()").fetchone() == ("ticks",)
    with session(f"{url}&options=-csearch_path%3Dnowhere", DOCTOR) as connection:
        assert connection.execute("SHOW search_path").fetchone() == ("nowhere",), "it was asked for"


@pytest.mark.parametrize(
    ("setting", "advice"),
    [
        ("default_transaction_read_only = on", "begin read only .* set by the database"),
        ("timescaledb.restoring = on", "timescaledb_post_restore"),
    ],
)
def test_a_database_that_takes_no_rows_now_says_so(
    database_url: str, setting: str, advice: str
) -> None:
    name = database_name(database_url)
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(f"ALTER DATABASE {name} SET {setting}".encode())
    with (
        pytest.raises(DatabaseUnavailableError, match=advice) as caught,
        session(database_url, WRITER),
    ):
        pass
    assert caught.value.was_answered
    with session(database_url, DOCTOR) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)


@given(st.text())
def test_escaped_text_is_ascii_and_comes_back(text: str) -> None:
    assert escape(text).isascii()
    assert "\0" not in escape(text)
    assert unescape(escape(text)) == text


@given(st.text(), st.text())
def test_no_two_names_are_stored_alike(first: str, second: str) -> None:
    assert (escape(first) == escape(second)) == (first == second)


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII", "WIN1251", "UTF8"])
def test_any_name_comes_back_from_any_database(
    make_database: Callable[[str], str], encoding: str
) -> None:
    url = make_database(f"ENCODING '{encoding}' LOCALE 'C'")
    names = ["币安人生USDT", "é", "\\u5e01", "\\", "a\\\\b", "\U0001f4b0", "BTC"]
    with session(url, REGISTRY) as connection:
        connection.execute("CREATE TABLE t (n text, m text[])")
        connection.execute("INSERT INTO t SELECT n, %s FROM unnest(%s) AS n", (names, names))
        found = connection.execute("SELECT n FROM t WHERE n = ANY(%s)", (names,)).fetchall()
        assert sorted(n for (n,) in found) == sorted(names)
        [(stored,)] = connection.execute("SELECT m FROM t LIMIT 1").fetchall()
        assert stored == names


def test_half_a_pair_and_a_zero_do_not_stop_the_others(database_url: str) -> None:
    with session(database_url, REGISTRY) as connection:
        row = connection.execute("SELECT %s::text, %s::text", ("a\0b", "x\ud800")).fetchone()
    assert row == ("a\\u0000b", "x\\ud800")


@contextmanager
def stopped(*pids: int) -> Iterator[None]:
    """These processes stand still meanwhile."""
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


def test_time_limits_of_the_address_take_the_place_of_ours(database_url: str) -> None:
    parting = "&" if "?" in database_url else "?"
    url = f"{database_url}{parting}keepalives_idle=77&tcp_user_timeout=5000&connect_timeout=9"
    with session(url, WITNESS) as connection:
        known = connection.info.get_parameters()
    told = [known[name] for name in ("keepalives_idle", "tcp_user_timeout", "connect_timeout")]
    assert told == ["77", "5000", "9"]
    assert known["keepalives_count"] == "3", "what it leaves out is ours"


_SHORT = Purpose("short", 1.0, connect_timeout_s=2)


@pytest.mark.fault("N49")
def test_a_hung_server_is_left_by_our_clock(postgres: PrivatePostgres, database_url: str) -> None:
    assert postgres.pid is not None
    with session(database_url, _SHORT) as connection:
        with stopped(connection.seen.backend_pid, postgres.pid):
            began_s = monotonic_s()
            with pytest.raises(psycopg.OperationalError, match="no answer for 1 s"):
                connection.execute("SELECT 1")
            assert monotonic_s() - began_s < 5
        assert connection.closed


@pytest.mark.fault("N49")
@pytest.mark.parametrize("way", ["cancelled", "overdue"])
def test_a_hung_server_does_not_hold_up_a_task(
    postgres: PrivatePostgres, database_url: str, way: str
) -> None:
    async def main() -> None:
        connection = await open_session(database_url, _SHORT)
        assert postgres.pid is not None
        with stopped(connection.seen.backend_pid, postgres.pid):
            began_s = monotonic_s()
            if way == "cancelled":
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.3):
                        await connection.execute("SELECT 1")
            else:
                with pytest.raises(psycopg.OperationalError, match="no answer for 1 s"):
                    await connection.execute("SELECT 1")
            assert monotonic_s() - began_s < 5, "nobody was asked for leave"
        assert connection.closed

    uvloop.run(main())


def test_a_long_answer_of_a_living_server_is_waited_for(database_url: str) -> None:
    patient = Purpose("patient", 0.2, is_patient=True)
    with session(database_url, patient) as connection:
        assert connection.execute("SELECT 7 FROM pg_sleep(1)").fetchone() == (7,)


def test_a_hung_server_is_not_waited_for_by_the_patient_either(
    postgres: PrivatePostgres, database_url: str
) -> None:
    patient = Purpose("patient", 0.5, is_patient=True)
    assert postgres.pid is not None
    with (
        session(database_url, patient) as connection,
        stopped(connection.seen.backend_pid, postgres.pid),
        pytest.raises(psycopg.OperationalError, match="no answer"),
    ):
        connection.execute("SELECT 1")


@pytest.mark.fault("N18")
@pytest.mark.parametrize(
    ("mine", "others", "shared"),
    [
        ({1}, {2}, False),
        ({1}, {1}, True),
        ({1, 2}, {3}, True),
        ({1}, {2, 3}, False),
        ({1}, set(), False),
    ],
)
def test_what_a_shared_pool_looks_like(mine: set[int], others: set[int], shared: bool) -> None:
    assert is_shared(mine, others) is shared


@pytest.mark.fault("N18")
def test_a_pool_of_transactions_is_refused_before_anything_is_set(database_url: str) -> None:
    """Played: two clients that are both handed the server session 77."""

    class Played:
        """Answers as a pool that hands session 77 to everybody."""

        purpose, closed = WRITER, False

        class pgconn:
            backend_pid = 1

    steps = settle(Played())  # type: ignore[arg-type]
    asked = [next(steps)]
    look: list[Any] = [77, "UTF8", "public", "default", [], False, "off", "default", "origin", None]
    with pytest.raises(DatabaseUnavailableError, match="pool_mode = session"):
        asked.append(steps.send([tuple(look)]))
        while True:
            asked.append(steps.send([(77,)]))
    assert [each.by_twin for each in asked] == [False, True, False], "one twin was enough"
    assert not any("set_config" in each.query for each in asked)
    del database_url


@pytest.mark.parametrize(
    ("words", "answered", "told"),
    [
        ("Connection refused", False, "Connection refused"),
        ('FATAL:  database "x" does not exist', True, "create it, or correct the address"),
        ("FATAL:  password authentication failed for user", True, "check user and password"),
        ("FATAL:  sorry, too many clients already", True, "raise max_connections"),
        ("FATAL:  the database system is starting up", True, "it is starting"),
    ],
)
def test_a_refusal_says_what_to_do(words: str, answered: bool, told: str) -> None:
    error = database_words.unavailable(psycopg.OperationalError(words), "")
    assert error.was_answered is answered
    assert told in str(error)


def test_words_hold_no_password() -> None:
    url = "postgresql://me:hunter2@db/x"
    error = psycopg.OperationalError("FATAL:  hunter2 is not the password")
    assert "hunter2" not in str(database_words.unavailable(error, url))


def test_whoever_has_a_state_was_answered_by_a_server() -> None:
    """But for the class of connections, which a client states itself."""
    for state, error in psycopg.errors._sqlcodes.items():
        if len(state) == 5 and not state.startswith("08"):
            found = database_words.unavailable(error("refused"), "")
            assert (found.was_answered, f"refused [{state}]" in str(found)) == (True, True)


def test_a_session_belongs_to_its_with(database_url: str) -> None:
    with session(database_url, DOCTOR) as connection:
        assert isinstance(connection, DatabaseSession)
    assert connection.closed
