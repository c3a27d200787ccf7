"""Exports or imports until so many batches are on their way, says so, and waits to be killed."""

import sys
import threading

from engine.database.session import IMPORT, session
from engine.upkeep.lake import parts, raw
from engine.upkeep.lake.export import Wish, export_day
from engine.upkeep.lake.importing import import_lake
from engine.upkeep.lake.place import LakePlace
from tests.engine.upkeep.lake.lake_rig import DAYS


def main(what: str, url: str, folder: str, calls: int) -> None:
    """`export` or `import` of all days."""
    left = [None] * calls

    def pause() -> None:
        left.pop()
        if not left:
            sys.stdout.write("here\n")
            sys.stdout.flush()
            threading.Event().wait()

    for module in (raw, parts):
        vars(module)["BATCH_ROWS"] = 100
    place = LakePlace(folder)
    with session(url, IMPORT) as connection:
        if what == "import":
            list(import_lake(connection, place, pause=pause))
            return
        with place.alone():
            for day in DAYS:
                list(export_day(connection, place, day, Wish(pause=pause)))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]))
