"""A closed day of one table becomes Parquet before the database drops it.

Whoever drops asks first, as near to the drop as can be. Retention asks once more of a partition
that got rows meanwhile, once it is detached and nobody adds to it any more (`relation`). The answer
is yes only when every row that the database has then was read back from the lake: count and
checksum, the database's own, computed in SQL. Rows that come after a day was dropped are added the
next time.

pyarrow is imported here when it is needed: an engine without an archive does not have it.
"""

import datetime as dt
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from engine.base.clock import DAY_NS, wall_ns
from engine.base.errors import ConfigError
from engine.data.kinds import KINDS
from engine.database.session import DatabaseSession
from engine.messages.upkeep import DatabaseUpkeep
from engine.upkeep.task import Place

_ROUNDS: Final = 3
"""So often a day is exported anew because rows came meanwhile; then the next run does it."""


@dataclass(frozen=True, slots=True)
class Verified:
    """One day of one table, as the lake has it."""

    is_archived: bool
    """Whether all the rows that the database has are in the lake, and were read back."""
    rows: int = 0
    """In the database."""
    bytes: int = 0
    """In the lake."""
    why_not: str = ""


def is_archived(place: Place, table: str, start_ns: int, end_ns: int, *, relation: str = "") -> str:
    """Why rows of a table from one moment up to another must stay: empty where no archive is
    configured, and when all days that they are in are in it; `relation` as for `archive_day`.
    Raises EngineError where they cannot be archived, and psycopg.Error.
    """
    if place.settings.archive == "none" or table not in KINDS:
        return ""
    for number in range(start_ns // DAY_NS, -(-end_ns // DAY_NS)):
        day = dt.date(1970, 1, 1) + dt.timedelta(days=number)
        found = archive_day(
            place.session, table, day, place.settings,
            relation=relation, pause=place.pause, now_ns=place.now_ns,
        )  # fmt: skip
        if not found.is_archived:
            return f"not archived: {found.why_not}"
    return ""


def archive_day(
    session: DatabaseSession,
    table: str,
    day: dt.date,
    settings: DatabaseUpkeep,
    *,
    relation: str = "",
    pause: Callable[[], None] = lambda: None,
    now_ns: Callable[[], int] = wall_ns,
) -> Verified:
    """Export a day (UTC) of a table to `settings.archive_to`, and read it back. `session` is in
    autocommit mode; `relation` is where the rows are, if not in the table. Raises EngineError where
    the lake cannot be written or is not what was written, and psycopg.Error.
    """
    if now_ns() < _end_ns(day):
        return Verified(False, why_not=f"{day} is not over")
    for _ in range(_ROUNDS):
        found = _export_and_prove(session, table, day, settings, relation, pause, now_ns)
        if found is not None:
            return found
    return Verified(False, why_not="rows of that day keep coming")


def _export_and_prove(
    session: DatabaseSession,
    table: str,
    day: dt.date,
    settings: DatabaseUpkeep,
    relation: str,
    pause: Callable[[], None],
    now_ns: Callable[[], int],
) -> Verified | None:
    """Export, read every file back, and count in the database once more; None where it has other
    rows by then.
    """
    needs_pyarrow()
    from engine.upkeep.lake import export, verify  # noqa: PLC0415 - see above
    from engine.upkeep.lake.place import LakePlace  # noqa: PLC0415
    from engine.upkeep.lake.raw import LakeError  # noqa: PLC0415
    from engine.upkeep.lake.streams import read_streams, seeds_of  # noqa: PLC0415

    wish = export.Wish([table], relation=relation, is_archive=True, pause=pause, now_ns=now_ns)
    place = LakePlace(settings.archive_to)
    with place.alone():
        done = list(export.export_day(session, place, day, wish))
        for each in done:
            pause()
            for problem in verify.check_group(place, each.group):
                raise LakeError(problem)
    own = [each for each in done if each.group.kind == table]
    then = sorted(one for each in own for one in each.sums)
    kind, seeds = KINDS[table], seeds_of(read_streams(session))
    if sorted(export.stream_sums(session, kind, day, seeds, relation=relation)) != then:
        return None
    return Verified(True, sum(one.rows for one in then), sum(each.group.bytes for each in own))


def needs_pyarrow() -> None:
    """Raises ConfigError where it is not installed."""
    if importlib.util.find_spec("pyarrow") is None:
        raise ConfigError(
            "Parquet needs pyarrow, which is not installed: pip install 'fintickstreams[lake]'"
        )


def _end_ns(day: dt.date) -> int:
    return ((day - dt.date(1970, 1, 1)).days + 1) * DAY_NS
