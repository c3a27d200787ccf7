"""`fts export`, `fts verify`, `fts import`: the command line of the Parquet lake."""

import argparse
import datetime as dt
import sys
from collections.abc import Iterator, Sequence, Set
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import psycopg

from control.cli.lake.tally import Tally
from control.cli.options import EXAMPLE, add_config, load
from control.cli.stores.which import Stores, add_database, chosen_sink
from engine.base.errors import ConfigError, MigrationError
from engine.data.kinds import COVERAGE, KINDS
from engine.database.session import EXPORT, IMPORT, DatabaseSession, Purpose, session
from engine.database.words import unavailable
from engine.start import migrations
from engine.upkeep.archive import needs_pyarrow

if TYPE_CHECKING:  # what follows needs pyarrow, which is there when it was asked for
    from engine.upkeep.lake.export import Wish
    from engine.upkeep.lake.manifest import Group
    from engine.upkeep.lake.place import LakePlace

_EXAMPLES = f"""\
examples:
  fts export --to lake                                 every day that is over, all kinds
  fts export --to lake --kind trade --venue {EXAMPLE.name} --from 2026-11-01 --through 2026-11-21
  fts export --to s3://bucket/ticks --kind trade --kind quote
  fts verify lake                                      every file against its manifest
  fts import lake --kind trade                         back into a database, nothing twice
  fts import lake --database archive                   into [databases.archive]

Each can be stopped and begun again: what is done is left alone. Days are those of UTC.
"""
_TABLES = [kind for kind in KINDS if kind != COVERAGE.name]


def add_parser(commands: "argparse._SubParsersAction[Any]") -> None:
    """All three."""
    export = commands.add_parser(
        "export", help="days that are over, as Parquet files with a manifest", epilog=_EXAMPLES
    )
    export.add_argument(
        "--to", required=True, metavar="DIR|s3://…", help="where the lake is, or shall be"
    )
    _add_choice(export)
    export.add_argument("--symbol", action="append", default=[], help="only this one; repeatable")
    add_config(export)
    add_database(export)
    export.set_defaults(run=_export)
    verify = commands.add_parser(
        "verify", help="the files of a lake against its manifest", epilog=_EXAMPLES
    )
    verify.add_argument("lake", metavar="DIR|s3://…")
    verify.set_defaults(run=_verify)
    back = commands.add_parser(
        "import", help="a lake back into a database, nothing twice", epilog=_EXAMPLES
    )
    back.add_argument("lake", metavar="DIR|s3://…")
    _add_choice(back)
    add_config(back)
    add_database(back)
    back.set_defaults(run=_import)
    for parser in (export, verify, back):
        parser.add_argument(
            "--json", action="store_true", help="end with one JSON object on stdout"
        )


def _add_choice(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--kind", action="append", choices=_TABLES, help="only this table; repeatable"
    )
    parser.add_argument("--venue", action="append", default=[], help="only this one; repeatable")
    parser.add_argument(
        "--from", dest="first", type=_day, metavar="DAY", help="first day, e.g. 2026-11-01"
    )
    parser.add_argument(
        "--through", dest="last", type=_day, metavar="DAY", help="last day, itself included"
    )


def _export(options: argparse.Namespace) -> int:
    needs_pyarrow()
    from engine.upkeep.lake.export import TABLES, Wish, days_of, export_day  # noqa: PLC0415
    from engine.upkeep.lake.place import LakePlace  # noqa: PLC0415

    wish = Wish(tuple(options.kind or TABLES), tuple(options.venue), tuple(options.symbol))
    place, tally = LakePlace(options.to), Tally(options.json)
    with _session(options, EXPORT) as connection:
        _must_be_known(connection, wish)
        with place.alone():
            for day in days_of(connection, wish, options.first, options.last):
                for done in export_day(connection, place, day, wish):
                    tally.add(done.group, done.outcome, done.group.rows)
    return tally.end("exported")


def _must_be_known(connection: DatabaseSession, wish: "Wish") -> None:
    """Raises ConfigError for a venue or symbol of which the database has no stream."""
    from engine.upkeep.lake.streams import read_streams  # noqa: PLC0415

    known = read_streams(connection).values()
    for option, names, found in (
        ("--venue", wish.venues, {each.venue for each in known}),
        ("--symbol", wish.symbols, {each.symbol for each in known}),
    ):
        for name in names:
            if name not in found:
                raise ConfigError(f"{option} {name}: this database has no stream of that")


def _verify(options: argparse.Namespace) -> int:
    needs_pyarrow()
    from engine.upkeep.lake.place import LakePlace  # noqa: PLC0415
    from engine.upkeep.lake.verify import check  # noqa: PLC0415

    tally, problems = Tally(options.json), []
    for problem in check(
        LakePlace(options.lake), lambda group: tally.add(group, "read", group.rows)
    ):
        sys.stderr.write(f"WRONG {problem}\n")
        problems.append(problem)
    return tally.end("verified", is_wrong=bool(problems), wrong=problems)


def _import(options: argparse.Namespace) -> int:
    needs_pyarrow()
    from engine.upkeep.lake.importing import import_lake  # noqa: PLC0415
    from engine.upkeep.lake.place import LakePlace  # noqa: PLC0415

    place, tally = LakePlace(options.lake), Tally(options.json)
    groups = _chosen_groups(options, place)
    with _session(options, IMPORT) as connection:
        for done in import_lake(connection, place, groups):
            tally.add(done.group, "added" if done.added else "there", done.added)
    return tally.end("imported")


def _chosen_groups(options: argparse.Namespace, place: "LakePlace") -> "list[Group]":
    """What is to be imported. Raises ConfigError where that is nothing, and says what there is."""
    from engine.upkeep.lake import manifest  # noqa: PLC0415

    held = [each for each in manifest.groups(place) if each.kind != manifest.INSTRUMENT]
    _must_be_held(place, "--kind", options.kind or (), {each.kind for each in held})
    venues = {each.venue for each in held if each.venue is not None}
    _must_be_held(place, "--venue", options.venue, venues)
    chosen = [each for each in held if _is_chosen(options, each)]
    if held and not chosen:
        days = sorted(each.date for each in held)
        raise ConfigError(
            f"{place.address} holds nothing of that; its days are from {days[0]} through {days[-1]}"
        )
    return chosen


def _must_be_held(place: "LakePlace", option: str, names: Sequence[str], held: Set[str]) -> None:
    for name in names:
        if name not in held:
            known = ", ".join(sorted(held)) or "none"
            raise ConfigError(f"{option} {name}: {place.address} holds {known}")


def _is_chosen(options: argparse.Namespace, group: "Group") -> bool:
    return (
        (not options.kind or group.kind in options.kind)
        and (not options.venue or group.venue in options.venue)
        and (options.first is None or options.first <= group.date)
        and (options.last is None or group.date <= options.last)
    )


@contextmanager
def _session(options: argparse.Namespace, purpose: Purpose) -> Iterator[DatabaseSession]:
    """On the database that is meant, as `fts psql` finds it. Its errors leave as ours."""
    url = Stores.find(load(options)).opened_url(chosen_sink(options)).reveal()
    if not purpose.reads_only and migrations.pending(url):
        raise MigrationError("the database is of an older version: run `fts migrate`")
    try:
        with session(url, purpose) as connection:
            yield connection
    except psycopg.Error as error:
        raise unavailable(error, url) from None


def _day(text: str) -> dt.date:
    try:
        return dt.date.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no day: write 2026-11-22") from None
