"""A lake against its manifest: every file is there, is the file that was written, and says what it
said. Each row is read back and counted anew, as a database would have to believe it.
"""

from collections.abc import Callable, Iterator

import pyarrow as pa
import pyarrow.parquet as pq

from engine.data.kinds import KINDS
from engine.upkeep.lake.manifest import COVERAGE, INSTRUMENT, Group, Part, folder, groups
from engine.upkeep.lake.parts import PartReader, time_bounds_ns
from engine.upkeep.lake.place import LakePlace
from engine.upkeep.lake.raw import LakeError


def check(place: LakePlace, progress: Callable[[Group], None] = lambda _: None) -> Iterator[str]:
    """What is wrong, one line each; nothing for a lake that is as its manifests say. Raises
    LakeError for a place that cannot be read, or is no lake.
    """
    named: set[str] = set()
    for group in groups(place):
        progress(group)
        named.update(part.file for part in group.parts)
        yield from check_group(place, group)
    for name in place.names(""):
        if name.endswith(".parquet") and name not in named and "/." not in name:
            yield f"{name}: no manifest names it; the next export of its day replaces it"


def check_group(place: LakePlace, group: Group) -> Iterator[str]:
    """What is wrong with the files of one group."""
    there = set(place.names(folder(group.kind, group.venue, group.date)))
    for part in group.parts:
        if part.file not in there:
            yield f"{part.file}: it is gone"
            continue
        try:
            if found := _wrong(place, group.kind, part):
                yield f"{part.file}: {found}"
        except LakeError as error:
            yield str(error)


def _wrong(place: LakePlace, kind: str, part: Part) -> str:
    if (digest := place.digest(part.file)) != part.sha256:
        return f"its SHA-256 is {digest}, and was {part.sha256} when it was written"
    if kind in (COVERAGE, INSTRUMENT):
        found = (_row_count(place, part.file), 0, 0, 0)
    elif kind in KINDS:
        found = _counted(place, kind, part)
    else:
        return f"nobody here knows a kind {kind!r}"
    said = (part.rows, part.checksum, part.first_ns, part.last_ns)
    names = ("rows", "checksum", "first time", "last time")
    return ", ".join(
        f"{name} {now}, and not {was}"
        for name, now, was in zip(names, found, said, strict=True)
        if now != was
    )


def _counted(place: LakePlace, kind: str, part: Part) -> tuple[int, int, int, int]:
    rows = checksum = first_ns = last_ns = 0
    with PartReader(place, part.file, KINDS[kind]) as reader:
        for batch in reader.batches():
            first, last = time_bounds_ns(batch)
            first_ns = min(first_ns, first) if rows else first
            last_ns = max(last_ns, last) if rows else last
            rows += len(batch)
            checksum += reader.checksum(batch)
    return rows, checksum, first_ns, last_ns


def _row_count(place: LakePlace, name: str) -> int:
    with place.open(name) as source:
        try:
            return int(pq.read_table(source).num_rows)
        except (pa.ArrowException, OSError) as error:
            raise LakeError(f"{name}: {error}") from None
