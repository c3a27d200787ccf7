"""Old days, so that retention has something to drop: the clock cannot be hurried, the rows can.

Every few minutes a day of weeks ago gets rows of a stream that is being collected, in one
transaction, as an import stores them. It is over and older than `database.keep`, so the upkeep
indexes it, exports it to the lake, verifies it, and drops it, while the market goes on in the same
tables. What was put in is counted here; at the end it must be in the lake, or still in the table.
"""

import datetime as dt
import threading
from dataclasses import dataclass, field
from typing import Final

import psycopg

from bench.soak.world import World
from engine.base.clock import DAY_NS, wall_ns
from engine.base.errors import EngineError
from engine.database.partitions import make_day, schema_of_partitioned
from engine.database.session import IMPORT, session
from engine.upkeep.lake.manifest import groups
from engine.upkeep.lake.place import LakePlace
from engine.upkeep.lake.raw import LakeError
from engine.upkeep.lake.verify import check

_FIRST_AGE_DAYS: Final = 10
_AGAIN_S: Final = 5.0
_STORE: Final = b"""
    INSERT INTO trade SELECT
        %s::date + n * (interval '86399 s' / %s), 0, (extract(epoch FROM now()) * 1e9)::int8,
        (SELECT min(stream_id) FROM stream WHERE kind = 'Trades'), 3,
        (CASE n %% 2 WHEN 0 THEN 'B' ELSE 'S' END)::"char", 100 + n %% 1000, 1 + n %% 77, 0, n
    FROM generate_series(1, %s) AS n
"""
_LEFT: Final = b"SELECT count(*) FROM trade WHERE time < %s::date"
_FORGET: Final = b"DELETE FROM trade WHERE time < %s::date"


@dataclass(slots=True)
class Account:
    """Of rows put into old days."""

    days: int = 0
    stored: int = 0
    in_lake: int = 0
    """Exported, verified, and dropped from the database since."""
    left: int = 0
    """Not dropped yet."""
    wrong: list[str] = field(default_factory=list)

    @property
    def holds(self) -> bool:
        """Whether each row is in one of the two places, and nothing else was found."""
        return self.stored == self.in_lake + self.left and not self.wrong


class History:
    """Puts a day of `rows` into the database every `every_s` seconds, until `stop`."""

    def __init__(self, world: World, *, rows: int, every_s: float) -> None:
        self._world, self._rows, self._every_s = world, rows, every_s
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.today = wall_ns() // DAY_NS
        self.days: dict[dt.date, int] = {}
        """Rows that were put into each."""

    def start(self) -> None:
        """Begin, in the background."""
        self._thread.start()

    def stop(self) -> None:
        """No more days."""
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        wait_s = self._every_s
        while not self._over.wait(wait_s):
            wait_s = self._every_s
            try:
                self._store(self.today - _FIRST_AGE_DAYS - len(self.days))
            except (psycopg.Error, EngineError):
                wait_s = _AGAIN_S  # the database is away: that is some fault's doing

    def _store(self, day: int) -> None:
        """All rows of a day or none. Where COMMIT broke, the rows are looked for."""
        date = dt.date(1970, 1, 1) + dt.timedelta(days=day)
        with session(self._world.database_url, IMPORT) as opened:
            schema = schema_of_partitioned(opened, "trade")
            assert schema is not None
            found = opened.execute(b"SELECT count(*) FROM trade WHERE time >= %s AND time < %s",
                                   (date, date + dt.timedelta(days=1))).fetchone()  # fmt: skip
            if not (found and found[0]):
                with opened.transaction():
                    make_day(opened, schema, "trade", day)
                    opened.execute(_STORE, (date, self._rows, self._rows))
        self.days[date] = self._rows

    def settle(self) -> Account:
        """Count what became of it, and take what is left out of the table, for the ledger has
        nothing of it. The engine has ended.
        """
        account = Account(len(self.days), sum(self.days.values()))
        today = dt.date(1970, 1, 1) + dt.timedelta(days=self.today)
        with psycopg.connect(self._world.database_url, autocommit=True) as connection:
            found = connection.execute(_LEFT, (today,)).fetchone()
            account.left = int(found[0]) if found else 0
            left_days = connection.execute(
                b"SELECT DISTINCT time::date FROM trade WHERE time < %s::date", (today,)
            ).fetchall()
            connection.execute(_FORGET, (today,))
        self._read_lake(account, {day for (day,) in left_days})
        return account

    def _read_lake(self, account: Account, left: set[dt.date]) -> None:
        try:
            place = LakePlace(str(self._world.lake))
            account.wrong += check(place)
            for group in groups(place):
                if group.kind != "trade" or group.date in left:
                    continue
                account.in_lake += group.rows
                if group.rows != self.days.get(group.date):
                    account.wrong.append(f"{group.name}: {group.rows} rows in the lake")
        except LakeError as error:
            if account.stored != account.left:
                account.wrong.append(str(error))
