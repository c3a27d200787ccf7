"""What a task of the upkeep is, and what it finds.

Invariants
- A task may die anywhere, with its process or its server. What it left is found and finished by the
  next run, never by a person.
- No task holds a lock that COPY waits for, longer than its session's `lock_timeout`; it asks again
  later instead.
- `Place.pause` is called before any piece of work that takes long: it waits while the writer is
  behind, and raises StoppingError when the engine ends. What is short, or is the cure for a writer
  that is behind (a full disk), does not wait.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Protocol

from engine.base.errors import EngineError
from engine.database.layout import DatabaseLayout
from engine.database.session import DatabaseSession
from engine.messages.upkeep import DatabaseReport, DatabaseUpkeep, Layout


class StoppingError(EngineError):
    """The engine ends: leave everything as it is."""


class PostponedError(EngineError):
    """Something is in the way, and the next try may find it gone; what was done stays done."""

    retriable = True


@dataclass(frozen=True, slots=True)
class Place:
    """One database, as a task finds it."""

    session: DatabaseSession
    """In autocommit mode; closed and replaced after any error."""
    seen: DatabaseLayout
    settings: DatabaseUpkeep
    report: DatabaseReport
    """What is said of the database. A task may set its fields, each to a new value: another thread
    reads them meanwhile."""
    pause: Callable[[], None]
    now_ns: Callable[[], int]
    """Wall clock, ns since 1970."""

    @property
    def layout(self) -> Layout:
        """How the tables are kept."""
        assert self.seen.layout is not None, "nothing runs before there are tables"
        return self.seen.layout


class Task(Protocol):
    """Something that is done again and again in every database."""

    name: ClassVar[str]
    """Its word in status, metrics and log."""
    every_s: ClassVar[float]

    def run(self, place: Place) -> str:
        """Do what there is to do now; returned is what was done, in a few words, empty for nothing.
        Runs in a thread of its own. Raises psycopg.Error, EngineError and OSError.
        """
        ...
