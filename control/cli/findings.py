"""Lines of a report about what is configured and reachable: what `fts doctor` prints.

What is not in order is a `Complaint`'s: it has an id that stays from version to version, says why
it matters, and has a section in `docs/trouble.md`.
"""

from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from engine.database.condition.facts import DatabaseFacts

Level = Literal["ok", "note", "problem"]


class Finding(msgspec.Struct, frozen=True):
    """One line of the report."""

    topic: str
    level: Level
    text: str
    advice: str = ""
    """What mends it; empty where nothing is to be mended."""
    id: str = ""
    """Of the complaint; empty where all is well."""
    why: str = ""
    """What it costs to leave it so."""


class DatabaseFinding(Finding, frozen=True):
    """The database's first line, with everything that is known of it."""

    facts: DatabaseFacts = msgspec.field(default_factory=DatabaseFacts)


@dataclass(frozen=True, slots=True)
class Complaint:
    """Something that may be wrong."""

    id: str
    why: str

    def note(self, topic: str, text: str, advice: str, **more: Any) -> Finding:
        """It works, and may not always."""
        return self._finding("note", topic, text, advice, **more)

    def problem(self, topic: str, text: str, advice: str, **more: Any) -> Finding:
        """Something needed is missing."""
        return self._finding("problem", topic, text, advice, **more)

    def of(self, level: Level, topic: str, text: str, advice: str, **more: Any) -> Finding:
        """The same by a level that was decided elsewhere; `ok` is no complaint."""
        if level == "ok":
            return fine(topic, text, **more)
        return self._finding(level, topic, text, advice, **more)

    def _finding(self, level: Level, *said: str, **more: Any) -> Finding:
        kind = DatabaseFinding if "facts" in more else Finding
        topic, text, advice = said
        return kind(topic, level, text, advice, self.id, self.why, **more)


def fine(topic: str, text: str, **more: Any) -> Finding:
    """All is well."""
    kind = DatabaseFinding if "facts" in more else Finding
    return kind(topic, "ok", text, **more)
