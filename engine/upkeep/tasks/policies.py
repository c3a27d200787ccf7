"""Chunk intervals, columnstore and policies of hypertables, as the configuration says today.

TimescaleDB's own workers compress and drop then, whether we run or not. What only asks the catalog
is asked every time; a change takes the lock that COPY waits for, so it waits for that lock no
longer than a flush takes, and is tried again. No chunk that exists is rewritten.

Where days must be archived or turned into bars before they go, and where there can be no policies,
task `chunk_retention` drops chunks instead, and there is no policy for it.
"""

from typing import ClassVar, Final

import psycopg

from engine.database.timescale import columns_refused
from engine.messages.upkeep import DatabaseUpkeep
from engine.upkeep.hypertables import Change, find, goal, plan
from engine.upkeep.task import Place, PostponedError
from engine.upkeep.tasks.ages import age_ns

_S_NS: Final = 1_000_000_000
_LOCK_WITHIN: Final = b"SET LOCAL lock_timeout = '1s'"


class Policies:
    """On hypertables."""

    name: ClassVar[str] = "policies"
    every_s: ClassVar[float] = 300.0

    def __init__(self) -> None:
        self._told = ""

    def run(self, place: Place) -> str:
        """Change what differs. What cannot be had, or is somebody else's choice, is told once."""
        if place.layout != "hypertables":
            return ""
        refusal = columns_refused(place.seen, place.session.info.server_version)
        if refusal:
            return self._once([], [refusal])
        extension = place.seen.timescaledb_schema
        assert extension is not None, "there is a version, so there is a schema"
        did, others, late = list[str](), list[str](), list[str]()
        for found in find(place.session):
            keep = place.settings.keep.get(found.table)
            policy_s = age_ns(keep) // _S_NS if keep and has_policy(place.settings) else None
            want = goal(found.table, policy_s, merges=merges_chunks(place.settings))
            changes, left = plan(found, want, extension)
            others += left
            if changes and not _apply(place, changes):
                late.append(found.table)
                continue
            did += [change.text for change in changes]
        if late:
            raise PostponedError(
                f"somebody reads {', '.join(late)} for long: changing their settings waits for that"
            )
        return self._once(did, others)

    def _once(self, did: list[str], others: list[str]) -> str:
        left = "; ".join(others)
        if not did and left == self._told:
            return ""
        self._told = left
        return "; ".join([*did, *([f"left as it is: {left}"] if left else [])])


def has_policy(settings: DatabaseUpkeep) -> bool:
    """Whether TimescaleDB may drop chunks by itself: nothing has to be done with them before."""
    return settings.archive == "none" and not settings.bars


def merges_chunks(settings: DatabaseUpkeep) -> bool:
    """Whether hours become one chunk of a day's length. It begins at any hour; what is archived
    goes by the days of UTC, and a chunk that is of two of them could not go with either.
    """
    return settings.archive == "none"


def _apply(place: Place, changes: list[Change]) -> bool:
    """All for one table, or nothing; False when its lock cannot be had now."""
    try:
        with place.session.transaction():
            place.session.execute(_LOCK_WITHIN)
            for change in changes:
                for statement in change.statements:
                    place.session.execute(statement)
    except psycopg.errors.LockNotAvailable:
        return False
    return True
