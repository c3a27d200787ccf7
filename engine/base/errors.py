"""The error tree. A class says whether trying again can help (`retriable`)."""

from typing import ClassVar


class EngineError(Exception):
    """Root of every error this project raises on purpose."""

    retriable: ClassVar[bool] = False


class ConfigError(EngineError):
    """A setting is wrong; the message names the file and the key."""


class SegmentError(EngineError):
    """A shared-memory file cannot be created, locked or trusted."""


class RingLayoutError(SegmentError):
    """A ring file's header does not describe the ring that was asked for."""


class RingBusyError(SegmentError):
    """Another producer holds the ring."""


class JournalError(EngineError):
    """A journal segment cannot be read or written."""


class QuarantineError(EngineError):
    """A file of refused rows cannot be read."""


class InstanceBusyError(EngineError):
    """Another engine runs on the same state directory."""


class ChildStartError(EngineError):
    """A child died before it was ever ready: starting it again would only repeat that."""


class ServerStartError(EngineError):
    """A private server did not start."""


class MigrationError(EngineError):
    """The database schema is unknown, newer than this code, or was changed by hand."""


class VenueError(EngineError):
    """A venue refused or answered nonsense."""

    retriable = True


class StoreUnavailableError(EngineError):
    """What keeps things for us is away, too slow, or refuses. Read the cursor again after it."""

    retriable = True


class StoreFullError(StoreUnavailableError):
    """It refuses what would take memory."""


class DatabaseUnavailableError(StoreUnavailableError):
    """The database is away, or refuses everything for now."""

    def __init__(self, text: str, *, was_answered: bool = False) -> None:
        super().__init__(text)
        self.was_answered = was_answered
        """Whether a server said so, or nobody answered."""


class TableRefusesError(DatabaseUnavailableError):
    """The database is there, and one table of it takes no rows at all for now."""

    def __init__(self, table: str, text: str) -> None:
        super().__init__(f"table {table} refuses every row: {text}")
        self.table = table


class FencedError(EngineError):
    """A cursor is not where this writer left it: read it again before another commit."""

    retriable = True
