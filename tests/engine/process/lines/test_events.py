"""Each line has a name, and each name is explained."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from engine.process.lines.events import EVENT_AT, EVENTS

ROOT = Path(__file__).parents[4]
LEVELS = {
    "debug": "DEBUG", "info": "INFO", "warning": "WARNING", "error": "ERROR", "exception": "ERROR",
}  # fmt: skip


def test_each_line_of_the_code_has_the_name_of_its_place() -> None:
    """A call without a name is named in `engine.process.lines.events`, or says `event` itself."""
    said = dict(each for room in ("engine", "shards", "control") for each in calls(ROOT / room))
    unnamed = {exact for exact, place in said.items() if not {exact, place} & EVENT_AT.keys()}
    assert unnamed == set(), "give these a name in engine/process/lines/events.py and docs/logs.md"
    assert EVENT_AT.keys() - {*said, *said.values()} == set(), "nothing is said there any more"


def test_the_manual_explains_each_name_in_the_same_order() -> None:
    manual = (ROOT / "docs" / "logs.md").read_text()
    assert re.findall(r"^\| `(\w+)` \|", manual, re.MULTILINE) == list(EVENTS)


def calls(room: Path) -> Iterator[tuple[str, str]]:
    """`module:function:LEVEL` and `module:function` of each call of a module's log that names no
    event by itself.
    """
    for path in room.rglob("*.py"):
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        if "_log." not in (text := path.read_text()):
            continue
        for function in ast.walk(ast.parse(text)):
            if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            for call in ast.walk(function):
                if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Attribute):
                    continue
                log, how = ast.unparse(call.func.value), call.func.attr
                names_itself = "'event'" in ast.unparse(call)
                if log in ("_log", "self._log") and how in LEVELS and not names_itself:
                    place = f"{module}:{function.name}"
                    yield f"{place}:{LEVELS[how]}", place
