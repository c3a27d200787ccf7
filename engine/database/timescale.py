"""Which TimescaleDB gets columns and policies, and what its server needs to keep up with them.

Every version holds rows in hypertables as before. Columns and policies need `COLUMNS_FROM`: before
2.27 rewriting a chunk whose rows are ordered by two columns left batches that overlap, before 2.28
their merge gave rows in the wrong order (TimescaleDB's pull requests 9731 and 9955), and before
2.28.1 what was compressed on its way in passed CHECK constraints by (10056).
"""

import re
from collections.abc import Mapping
from typing import Final

from engine.database.layout import DatabaseLayout

COLUMNS_FROM: Final = (2, 28, 1)
POSTGRES_FROM: Final = 160_000
"""As `server_version_num` counts; no TimescaleDB of today runs on an older one."""
SERVER_SETTINGS: Final[Mapping[str, int]] = {
    # A worker a policy that is at work, one a database, and those of parallel queries.
    "max_worker_processes": 24,
    "timescaledb.max_background_workers": 12,
    # A query over a month of hourly chunks locks each, its index and its columns.
    "max_locks_per_transaction": 256,
}
"""The least of each, for seven tables with two policies each."""


def columns_refused(seen: DatabaseLayout, server_version: int) -> str:
    """Why hypertables get neither columns nor policies here, and what to do; empty when they do."""
    return refused(seen.timescaledb or "", seen.timescaledb_licence or "", server_version)


def refused(version: str, licence: str, server_version: int) -> str:
    """The same, by the extension's version, the setting `timescaledb.license` and the server's
    `server_version_num`.
    """
    least = ".".join(map(str, COLUMNS_FROM))
    if _numbers(version) < COLUMNS_FROM:
        return (
            f"TimescaleDB {version} is older than {least}: no columnstore and no policies;"
            " ALTER EXTENSION timescaledb UPDATE after installing a newer one"
        )
    if server_version < POSTGRES_FROM:
        return (
            f"PostgreSQL {server_version // 10_000} is older than {POSTGRES_FROM // 10_000}: no"
            " columnstore and no policies; upgrade the server"
        )
    if licence != "timescale":
        return (
            f"timescaledb.license is {licence!r}: no columnstore, policies and continuous"
            " aggregates; set it to 'timescale' on the server, if that licence suits you"
        )
    return ""


def settings_too_low(found: Mapping[str, str | None]) -> dict[str, int]:
    """Of the server's settings, by name, those that are too low, and what to set them to."""
    return {
        name: least
        for name, least in SERVER_SETTINGS.items()
        if (value := found.get(name)) is not None and int(value) < least
    }


def _numbers(version: str) -> tuple[int, ...]:
    """`2.28.1` as numbers; `2.30.0-dev` comes after all of 2.29."""
    return tuple(int(each) for each in re.findall(r"\d+", version.partition("-")[0]))
