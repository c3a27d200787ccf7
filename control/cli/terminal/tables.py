"""Answers of the API as tables for people, or as they came for scripts."""

import json
import sys
from collections.abc import Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from control.cli.terminal.standard_streams import say
from engine.process.logs import escaped

_STYLE_OF = {
    "live": "green", "up": "green", "green": "green", "ok": "green",
    "failed": "red", "stale": "red", "backoff": "red", "red": "red", "down": "red",
    "pending": "yellow", "connecting": "yellow", "syncing": "yellow", "yellow": "yellow",
}  # fmt: skip


def print_json(body: object) -> None:
    """One JSON value, and nothing else, on stdout."""
    say(json.dumps(body))


def print_table(columns: Sequence[str], rows: Sequence[Sequence[Any]], empty: str) -> None:
    """A table, or a sentence when there is nothing. Numbers stand to the right."""
    if not rows:
        say(f"{empty}")
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
