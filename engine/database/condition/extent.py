"""What a database takes and how long that can go on: the one source of it, for `fts doctor` and for
the engine that runs.
"""

import os
import socket
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

from engine.database.condition.growth import days_of, days_until_full, size_of
from engine.database.condition.sizes import TablePieces, oldest_row_ns, read_pieces
from engine.database.layout import DatabaseLayout
from engine.database.session import DatabaseSession
from engine.messages.upkeep import KeptFor, TableSize

_DATA_DIRECTORY: Final = b"SELECT s.setting FROM pg_settings AS s WHERE s.name = 'data_directory'"
_PEER: Final = struct.Struct("3i")
"""Process, user and group, as SO_PEERCRED tells them."""

OldestKnown = dict[str, tuple[str, int]]
"""By table, the name of its oldest piece and the time of the oldest row in it."""


class Extent(NamedTuple):
    """One database; each as in `DatabaseReport`."""

    tables: list[TableSize]
    disk_free_bytes: int | None
    days_until_full: float | None
    day_count: int
    """Days of UTC of which there are rows."""


def read_extent(
    session: DatabaseSession,
    seen: DatabaseLayout,
    keep: Mapping[str, KeptFor],
    now_ns: int,
    known: OldestKnown | None = None,
) -> Extent:
    """Look. `known` is what was found before: it spares a look into the same piece again, once that
    is over. Raises psycopg.Error.
    """
    found = read_pieces(session, seen)
    known = {} if known is None else known
    sizes = {
        each.table: size_of(
            each, _oldest_ns(session, each, known, now_ns), keep.get(each.table, ""), now_ns
        )
        for each in found
    }
    free_bytes = disk_free_bytes(session)
    return Extent(
        list(sizes.values()),
        free_bytes,
        days_until_full(found, sizes, free_bytes, now_ns),
        days_of(found, now_ns),
    )


def disk_free_bytes(session: DatabaseSession) -> int | None:
    """What is free for this server's tables; None where it is not on this machine, or not ours: its
    socket and its data directory must name the same process. Raises psycopg.Error.
    """
    postmaster = _postmaster(session)
    found = session.execute(_DATA_DIRECTORY).fetchone() if postmaster else None
    if not (found and found[0]):
        return None
    data = Path(found[0])
    try:
        first, _, _ = (data / "postmaster.pid").read_text(errors="replace").partition("\n")
        if first.strip() != str(postmaster):
            return None
        usage = os.statvfs(data)
    except OSError:
        return None
    return usage.f_bavail * usage.f_frsize


def _postmaster(session: DatabaseSession) -> int:
    """Who listens at the other end of a Unix socket, as the kernel says; 0 for none here."""
    with socket.socket(fileno=os.dup(session.pgconn.socket)) as end:
        if end.family != socket.AF_UNIX or not hasattr(socket, "SO_PEERCRED"):
            return 0
        said = end.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size)
    process: int = _PEER.unpack(said)[0]
    return process


def _oldest_ns(
    session: DatabaseSession, table: TablePieces, known: OldestKnown, now_ns: int
) -> int | None:
    for piece in table.pieces:
        if piece.is_empty:
            continue
        name, oldest_ns = known.get(table.table, ("", 0))
        if piece.name == name and piece.is_over(now_ns):
            return oldest_ns
        if (found := oldest_row_ns(session, piece)) is not None:
            known[table.table] = (piece.name, found)
            return found
    return None
