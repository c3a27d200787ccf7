"""The keys of a TOML file: on which line each stands, and what each is in the end."""

import tomllib
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

_Path = tuple[str | int, ...]


def key_lines(text: str) -> dict[str, int]:
    """The line of each key, table and entry of a list, e.g. `streams[1].symbols`. `text` is valid
    TOML. A value of several lines stands where it begins.
    """
    found: dict[_Path, int] = {}
    counts: dict[_Path, int] = {}
    table: _Path = ()
    for number, statement, parsed in _statements(text):
        if statement.lstrip().startswith("["):
            table = _header(parsed, counts)
            found.setdefault(table, number)
        else:
            for path in _paths(parsed):
                found.setdefault(table + path, number)
    return {spelled(path): number for path, number in found.items()}


def leaves(value: object, above: str = "") -> dict[str, Any]:
    """Every value of a configuration by its key; a list is one value."""
    plain = msgspec.to_builtins(value)
    if not isinstance(plain, dict):
        return {above: plain}
    found: dict[str, Any] = {}
    for name, below in plain.items():
        key = f"{above}.{name}" if above else name
        found |= leaves(below, key) if below else {key: below}
    return found


def spelled(path: _Path) -> str:
    """`("streams", 1, "venue")` as `streams[1].venue`."""
    text = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path)
    return text.removeprefix(".")


def _statements(text: str) -> Iterator[tuple[int, str, dict[str, Any]]]:
    """Line, text and content of each statement: TOML has them on lines of their own, and no part of
    one that goes over several lines is valid.
    """
    begun, lines = 0, list[str]()
    for number, line in enumerate(text.split("\n"), 1):
        if not lines and not line.split("#")[0].strip():
            continue
        begun = begun if lines else number
        lines.append(line)
        if len(lines) > 1 and line.partition("#")[0].rstrip().endswith(","):
            continue  # in the middle of a list: that it is not whole need not be tried
        try:
            parsed = tomllib.loads("\n".join(lines))
        except tomllib.TOMLDecodeError:
            continue
        yield begun, "\n".join(lines), parsed
        lines = []


def _header(parsed: Mapping[str, Any], counts: dict[_Path, int]) -> _Path:
    """Where the keys below `[a.b]` or `[[a.b]]` belong: in the newest entry of each list."""
    path: _Path = ()
    below: Any = parsed
    while isinstance(below, dict) and below:
        ((name, below),) = below.items()
        path += (name,)
        if isinstance(below, list):
            counts[path] = counts.get(path, -1) + 1
            return (*path, counts[path])
        if path in counts:
            path += (counts[path],)
    return path


def _paths(value: object, above: _Path = ()) -> Iterator[_Path]:
    """Of every table, list of tables and value below."""
    if above:
        yield above
    if isinstance(value, dict):
        for name, below in value.items():
            yield from _paths(below, (*above, name))
    elif isinstance(value, list):
        for place, below in enumerate(value):
            yield from _paths(below, (*above, place))
