"""All that is wrong with a configuration file, at once.

A check ends at the first fault. So what it names is taken out, and it checks again, until nothing
is left to complain of. What is only missed because it was taken out is no fault of the file.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec

from engine.base.errors import ConfigError
from engine.start.config import Config, read_file, table_of
from engine.start.file.keys import key_lines, spelled

Check = Callable[[dict[str, Any], Mapping[str, str]], object]
"""Raises ConfigError for the first fault of a table together with an environment."""

_FAULTS_MAX: Final = 100
_KEY: Final = re.compile(r"[A-Za-z_][\w-]*(?:\.[\w-]+|\[(?:\d+|\.\.\.)\])*")
_STEP: Final = re.compile(r"\.?([^.\[\]]+)|\[(\d+|\.\.\.)\]")
_VARIABLE: Final = re.compile(r"(?:environment: )?(FTS_\w+)")
_SYNTAX_LINE: Final = re.compile(r"at line (\d+)")


@dataclass(frozen=True, slots=True)
class ConfigFault:
    """One fault. `line` counts from 1; 0 where none can be named, as of the environment."""

    line: int
    key: str
    text: str


@dataclass(slots=True)
class _Table:
    """What is left of the file, with the numbers that its lists' entries had in it."""

    table: dict[str, Any]
    places: dict[int, list[int]] = field(default_factory=dict)
    """By the list's id."""

    def find(self, key: str) -> tuple[list[Any], list[str | int]]:
        """What contains each step of a key, and the steps as far as the table has them."""
        inside: Any = self.table
        containers: list[Any] = []
        steps: list[str | int] = []
        for match in _STEP.finditer(key):
            step: str | int = match[1] if match[1] is not None else match[2]
            if isinstance(inside, dict) and step == "...":
                step = self._culprit(steps, inside)
            elif isinstance(inside, list) and str(step).isdigit():
                step = int(step)
            try:
                below = inside[step]
            except (KeyError, IndexError, TypeError):
                break
            containers.append(inside)
            steps.append(step)
            inside = below
        return containers, steps

    def original(self, containers: list[Any], steps: list[str | int]) -> str:
        """The key as it is in the file."""
        path = [
            self.places[id(inside)][step] if id(inside) in self.places else step  # type: ignore[index]
            for inside, step in zip(containers, steps, strict=True)
        ]
        return spelled(tuple(path))

    def take_out(self, containers: list[Any], steps: list[str | int]) -> None:
        """So that the next fault shows."""
        inside, step = containers[-1], steps[-1]
        if isinstance(inside, list) and isinstance(step, int):
            del self.places.setdefault(id(inside), list(range(len(inside))))[step]
        del inside[step]

    def _culprit(self, above: list[str | int], inside: dict[str, Any]) -> str:
        """Which entry is wrong, where the check says only that one is."""
        for name, below in inside.items():
            alone: Any = {name: below}
            for step in reversed(above):
                alone = {step: alone} if isinstance(step, str) else [alone]
            try:
                msgspec.convert(alone, Config)
            except msgspec.ValidationError:
                return name
        return "..."


def all_faults(path: Path, environment: Mapping[str, str], check: Check) -> list[ConfigFault]:
    """What is wrong with the file at `path` and the environment, in the order of the lines."""
    source, env = str(path), dict(environment)
    try:
        text = read_file(path)
        table = _Table(table_of(text, source))
    except ConfigError as error:
        match = _SYNTAX_LINE.search(str(error))
        return [ConfigFault(int(match[1]) if match else 0, "", _without(str(error), source))]
    lines = key_lines(text.decode())
    found: dict[ConfigFault, None] = {}
    gone: list[str] = []
    while len(found) < _FAULTS_MAX:
        try:
            check(table.table, env)
            break
        except ConfigError as error:
            told = _without(str(error), source)
        if (variable := _VARIABLE.match(told)) is not None:
            found[ConfigFault(0, variable[1], told[variable.end() :].lstrip(": "))] = None
            if env.pop(variable[1], None) is None:
                break
            continue
        key, said = _split(told)
        containers, steps = table.find(key)
        exact = table.original(containers, steps)
        named = exact + key[_end_of(key, len(steps)) :]
        is_missed_only = named in gone or any("." in each and each in said for each in gone)
        if not is_missed_only:
            found[ConfigFault(_line_of(lines, exact), named, said)] = None
        if not steps:
            break
        gone.append(named)
        table.take_out(containers, steps)
    return sorted(found, key=lambda fault: fault.line)


def _end_of(key: str, steps: int) -> int:
    """Where in it so many steps end."""
    ends = [0, *(match.end() for match in _STEP.finditer(key))]
    return ends[steps]


def _line_of(lines: Mapping[str, int], key: str) -> int:
    """The key's, or that of what it is in."""
    while key and key not in lines:
        key = key[: max(key.rfind("."), key.rfind("["), 0)]
    return lines.get(key, 0)


def _without(text: str, source: str) -> str:
    return text.removeprefix(f"{source}: ")


def _split(text: str) -> tuple[str, str]:
    """The key that a message begins with, and the rest; "" where it begins with none."""
    match = _KEY.match(text)
    if match is None or _STEP.match(match[0])[1] not in Config.__struct_fields__:  # type: ignore[index]
        return "", text
    rest = text[match.end() :]
    return match[0], rest.removeprefix(": ") if rest.startswith(": ") else text
