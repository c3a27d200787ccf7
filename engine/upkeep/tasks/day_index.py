"""An index by stream and time for each day that is over.

While rows come there is only the one by time: an index that leads with the stream has a hot page
for each stream, and costs a writer a third of its rate (sql/0003_ticks.sql). A day that is over
gets it `CONCURRENTLY`, which blocks neither readers nor late rows. What dies on the way leaves an
index that is not valid; the next run drops that one and begins again.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar, Final

from psycopg import sql

from engine.data.kinds import KINDS
from engine.database.partitions import Partition, partitions_of
from engine.upkeep.task import Place, PostponedError
from engine.upkeep.tasks.readers import who_looks_back

OVER_NS: Final = 3_600_000_000_000
"""So long after its end a day is over: late rows are in."""
_COLUMNS: Final = ["stream_id", "time"]
_INDEXES: Final = b"""
    SELECT c.relname, x.indisvalid,
        ARRAY(SELECT a.attname::text FROM unnest(x.indkey) WITH ORDINALITY AS k (number, place)
              JOIN pg_attribute AS a ON a.attrelid = x.indrelid AND a.attnum = k.number
              WHERE k.place <= 2 ORDER BY k.place)
    FROM pg_index AS x JOIN pg_class AS c ON c.oid = x.indexrelid
    WHERE x.indrelid = %s::int8::oid AND x.indpred IS NULL
"""
_NAME_BYTES: Final = 63
_LONG_S: Final = 60.0
_PATIENCE: Final = "10min"
"""It waits for older transactions, too, and holds nothing meanwhile that readers or writers want. A
timeout would have it begin anew."""


class DayIndex:
    """On partitions."""

    name: ClassVar[str] = "day_index"
    every_s: ClassVar[float] = 600.0

    def run(self, place: Place) -> str:
        """Index what is over, the newest day first: it is asked for most."""
        over_ns, made = place.now_ns() - OVER_NS, []
        for table in KINDS:
            for partition in reversed(partitions_of(place.session, table)):
                is_over = partition.end_ns is not None and partition.end_ns <= over_ns
                if is_over and partition.is_plain and not partition.is_pending:
                    made += [partition.name] if _index(place, partition) else []
        return f"indexed {', '.join(made)}" if made else ""


def _index(place: Place, partition: Partition) -> bool:
    """Make the index of a day, if it has none; whether it was made."""
    name = f"{partition.name}_stream_time".encode()[-_NAME_BYTES:].decode(errors="ignore")
    found = place.session.execute(_INDEXES, (partition.oid,)).fetchall()
    if (name, False) in [(each, is_valid) for each, is_valid, _ in found]:
        place.pause()
        drop = sql.SQL("DROP INDEX CONCURRENTLY {}")
        place.session.execute(drop.format(sql.Identifier(partition.schema, name)))
    if any(is_valid and columns == _COLUMNS for _, is_valid, columns in found):
        return False
    place.pause()
    if reader := who_looks_back(place, _LONG_S):
        raise PostponedError(f"{name} waits: {reader}")
    create = sql.SQL("CREATE INDEX CONCURRENTLY {} ON {} (stream_id, time)")
    with _patience(place):
        place.session.execute(create.format(sql.Identifier(name), partition.identifier))
    return True


@contextmanager
def _patience(place: Place) -> Iterator[None]:
    """Another lock_timeout for a while. After an error there is no session to set it back in."""
    (before,) = place.session.execute("SELECT current_setting('lock_timeout')").fetchone() or ("",)
    place.session.execute("SELECT set_config('lock_timeout', %s, false)", (_PATIENCE,))
    yield
    place.session.execute("SELECT set_config('lock_timeout', %s, false)", (before,))
