"""Lines of a report about what is configured and reachable: what `fts doctor` prints."""

from typing import Literal

import msgspec

from engine.database.condition.facts import DatabaseFacts

Level = Literal["ok", "note", "problem"]


class Finding(msgspec.Struct, frozen=True):
    """One line of the report."""

    topic: str
    level: Level
    text: str
    advice: str = ""


class DatabaseFinding(Finding, frozen=True):
    """The database's first line, with everything that is known of it."""

    facts: DatabaseFacts = msgspec.field(default_factory=DatabaseFacts)
