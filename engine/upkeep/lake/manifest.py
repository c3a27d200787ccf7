"""What a lake holds, file by file, so that it can be proven later. One JSON file for each kind,
venue and day, in `_manifest/`, apart from the data: what is deleted there is missed here.

It is written last. A file that no manifest names is not of the lake yet, and the next export of its
day replaces it.
"""

import datetime as dt
from collections.abc import Iterator
from typing import Final
from urllib.parse import quote

import msgspec

from engine.upkeep.lake.place import LakePlace
from engine.upkeep.lake.raw import LakeError
from engine.upkeep.lake.schema import SCHEMA_VERSION

COVERAGE: Final = "coverage"
INSTRUMENT: Final = "instrument"
_NOBODY: Final = "__HIVE_DEFAULT_PARTITION__"
"""What readers of such folders take for null: rows whose stream nobody knows."""


class Part(msgspec.Struct):
    """One file. Times are ns since 1970, of its first and last row in time."""

    file: str
    rows: int
    bytes: int
    sha256: str
    checksum: int = 0
    """`engine.upkeep.lake.checksum` of its rows; 0 for `coverage` and `instrument`, which have
    none."""
    first_ns: int = 0
    last_ns: int = 0


class Group(msgspec.Struct, kw_only=True):
    """One kind of one venue on one day (UTC)."""

    kind: str
    venue: str | None
    date: dt.date
    parts: list[Part]
    symbols: list[str] | None = None
    """What was asked for; None: all."""
    day_is_over: bool = True
    """Whether the day had ended when it was exported."""
    is_archived: bool = False
    """Whether the database may have dropped these rows since."""
    exported: dt.datetime
    schema_version: int = SCHEMA_VERSION

    @property
    def rows(self) -> int:
        """Of all parts."""
        return sum(part.rows for part in self.parts)

    @property
    def bytes(self) -> int:
        """Of all parts, on disk."""
        return sum(part.bytes for part in self.parts)

    @property
    def checksum(self) -> int:
        """Of the rows of all parts."""
        return sum(part.checksum for part in self.parts)

    @property
    def name(self) -> str:
        """`trade of a venue on 2026-11-22`, for people."""
        return f"{self.kind} of {self.venue or 'nobody'} on {self.date}"


def folder(kind: str, venue: str | None, date: dt.date) -> str:
    """Where the files of a group are."""
    spelled = _NOBODY if venue is None else quote(venue, safe="")
    return f"kind={kind}/venue={spelled}/date={date}"


def load(place: LakePlace, kind: str, venue: str | None, date: dt.date) -> Group | None:
    """The manifest of a group; None where there is none. Raises LakeError."""
    name = f"_manifest/{folder(kind, venue, date)}.json"
    body = place.get(name)
    return None if body is None else _decode(body, name)


def store(place: LakePlace, group: Group) -> None:
    """Write the manifest of a group in one step."""
    body = msgspec.json.format(msgspec.json.encode(group), indent=1)
    place.put(f"_manifest/{folder(group.kind, group.venue, group.date)}.json", body)


def groups(place: LakePlace) -> Iterator[Group]:
    """All groups of a lake, by kind, venue and day. Raises LakeError, also for what is no lake."""
    count = 0
    for name in place.names("_manifest"):
        if name.endswith(".json"):
            body = place.get(name)
            if body is not None:
                count += 1
                yield _decode(body, name)
    if not count:
        raise LakeError(f"{place.address} is no lake: it has no _manifest")


def _decode(body: bytes, name: str) -> Group:
    try:
        group = msgspec.json.decode(body, type=Group)
    except msgspec.MsgspecError as error:
        raise LakeError(f"{name}: {error}") from None
    if group.schema_version > SCHEMA_VERSION:
        raise LakeError(f"{name}: written by a newer version, whose files this one cannot read")
    return group
