"""Answers of the API as tables for people, or as they came for scripts."""

import json
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from control.cli.terminal.standard_streams import say
from engine.base.clock import wall_ns
from engine.process.logs import escaped

_STYLE_OF = {
    "live": "green", "up": "green", "green": "green", "ok": "green",
    "failed": "red", "stale": "red", "backoff": "red", "red": "red", "down": "red",
    "pending": "yellow", "connecting": "yellow", "syncing": "yellow", "yellow": "yellow",
}  # fmt: skip


def print_json(body: object) -> None:
    """One JSON value, and nothing else, on stdout."""
    say(json.dumps(body))


def show(
    rows: Sequence[Mapping[str, Any]], columns: Sequence[str], empty: str, *, as_json: bool
) -> None:
    """Rows as they came, or these columns of them as a table."""
    if as_json:
        print_json(rows)
    else:
        print_table(columns, [[row[name] for name in columns] for row in rows], empty)


def print_table(columns: Sequence[str], rows: Sequence[Sequence[Any]], empty: str) -> None:
    """A table, or a sentence when there is nothing. Numbers stand to the right."""
    if not rows:
        say(empty)
        return
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for place, name in enumerate(columns):
        numeric = all(isinstance(row[place], int | float) for row in rows)
        table.add_column(name, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*(_cell(value) for value in row))
    console = Console(file=sys.stdout)
    if not sys.stdout.isatty():  # a pipe has no width: nothing may be folded for it
        console = Console(file=sys.stdout, width=1000)
        table.expand = False
    console.print(table)


def print_facts(facts: Sequence[tuple[str, Any]]) -> None:
    """Name and value, one a line."""
    width = max(len(name) for name, _ in facts)
    for name, value in facts:
        say(f"{name:<{width}}  {_cell(value).plain}")


def moment(ns: int, form: str = "%Y-%m-%d %H:%M:%S") -> str:
    """A time as people read it."""
    return f"{datetime.fromtimestamp(ns / 1e9, UTC):{form}}Z"


def age(ns: int) -> str:
    """How long ago that was; a dash for never."""
    return f"{max(0, wall_ns() - ns) / 1e9:.1f} s" if ns else "-"


def _cell(value: Any) -> Text:
    if value is None or value == "":
        return Text("-")
    if isinstance(value, bool):
        return Text("yes" if value else "no")
    if isinstance(value, int):
        return Text(f"{value:,}")
    if isinstance(value, float):
        return Text(f"{value:,.1f}")
    text = escaped(str(value))
    return Text(text, style=_STYLE_OF.get(text, ""))
