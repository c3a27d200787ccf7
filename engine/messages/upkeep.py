"""What the upkeep process is told, and what it says of the databases it looks after."""

from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from engine.base.clock import DAY_NS
from engine.messages.settings import LogSettings, Paths

Layout = Literal["hypertables", "partitions", "tables"]
"""How the tables of rows are kept: by TimescaleDB, in a partition a day, or each in one piece."""

AGE: Final = r"^[1-9][0-9]{0,4}(h|d|w)$"
KeptFor = Annotated[str, Meta(pattern=AGE)]
"""An age: `36h`, `14d`, `8w`. Hours and days are whole ones of UTC."""

BARS: Final = ("bar_1s", "bar_1m")
"""Tables of bars, which may be kept for another time than the trades they are of."""

Archive = Literal["none", "parquet"]

FAR_DAYS: Final = 3650.0
"""Days until a disk is full: ten years, more, or never."""
_UNIT_NS: Final = {"h": 3_600_000_000_000, "d": DAY_NS, "w": 7 * DAY_NS}


def age_ns(kept_for: KeptFor) -> int:
    """`36h`, `14d`, `8w` in ns."""
    return int(kept_for[:-1]) * _UNIT_NS[kept_for[-1]]


class DatabaseUpkeep(msgspec.Struct, frozen=True):
    """How one database is looked after."""

    name: str
    url: str
    keep: dict[str, KeptFor] = {}
    """Rows of a table that are older may go; a table that is not named is kept for ever."""
    keep_by_venue: dict[str, dict[str, KeptFor]] = {}
    """The same for the rows of one venue, where they may go sooner than the others."""
    bars: bool = False
    """Whether bars of a second and a minute are kept up to date."""
    archive: Archive = "none"
    """What a day becomes before it is dropped."""
    archive_to: str = ""
    """Where to: a directory, or an address that pyarrow's file systems know."""


class UpkeepSettings(msgspec.Struct, frozen=True):
    """The upkeep process's birth message."""

    paths: Paths
    log: LogSettings
    databases: list[DatabaseUpkeep] = []
    status_interval_s: float = 2.0


class PauseUpkeep(msgspec.Struct, tag=True):
    """Upkeep: begin nothing that takes long while the writer is behind on this database."""

    database: str
    paused: bool


class TableSize(msgspec.Struct):
    """One table. Bytes are those on disk with indexes; None where nobody can know, or not yet."""

    table: str
    row_count: int = 0
    """As the statistics say."""
    size_bytes: int = 0
    bytes_a_row: float | None = None
    bytes_a_day: float | None = None
    """Of the newest whole day that is over, indexed or compressed (`condition/growth.py`)."""
    rows_a_day: float | None = None
    """Of the same day."""
    compressed_bytes: int | None = None
    """Of `size_bytes`, what the columnstore holds."""
    before_compression_bytes: int | None = None
    """What that took before."""
    oldest_ns: int | None = None
    """Time of the oldest row, ns since 1970; None for an empty table."""
    kept_for: str = ""
    """As configured; empty: for ever."""

    @property
    def compression_ratio(self) -> float | None:
        """How many times smaller what is compressed has become; None where nothing is."""
        if not self.compressed_bytes or not self.before_compression_bytes:
            return None
        return round(self.before_compression_bytes / self.compressed_bytes, 2)


class TaskReport(msgspec.Struct):
    """One task of the upkeep in one database; times are ns since 1970, 0 for never."""

    task: str
    last_ns: int = 0
    """When it last ended."""
    took_s: float = 0.0
    next_ns: int = 0
    did: str = ""
    """What it did when it last did anything."""
    error: str = ""
    """Why it could not; empty when it could."""
    failing_since_ns: int = 0
    """Since when there is an error; 0 where there is none."""
    failure_count: int = 0
    """Since the process was born."""
    done_ns: int = 0
    """When it last ended without an error."""


class DatabaseReport(msgspec.Struct):
    """One database."""

    database: str
    layout: Layout | None = None
    """None: not seen yet."""
    tables: list[TableSize] = []
    tasks: list[TaskReport] = []
    disk_free_bytes: int | None = None
    """None where the server is not on this machine, or this user may not see it."""
    days_until_full: float | None = None
    """At the rate of `bytes_a_day`, with what retention drops taken off; `FAR_DAYS` for ten years,
    more, or never; None where that is not known yet, or `disk_free_bytes` is not."""
    error: str = ""
    """Why it cannot be looked after; empty when it is."""
    failing_since_ns: int = 0
    """Since when there is an error; 0 where there is none."""
    is_paused: bool = False
    """Whether what takes long waits, because the writer is behind."""


class UpkeepStatus(msgspec.Struct, tag=True):
    """Sent every few seconds."""

    databases: list[DatabaseReport]
    rss_bytes: int = 0
    cpu_s: float = 0.0
