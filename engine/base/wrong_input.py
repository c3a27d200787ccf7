"""What is wrong with a value, in words: msgspec's message with the place first, and what could be
there instead. What the type allows is looked up only for a refusal.
"""

import difflib
import re
from collections.abc import Iterable
from typing import Any

from msgspec import inspect

_STEP = re.compile(r"\.?([^.\[\]]+)|\[(?:\d+|\.\.\.)\]")


def explain(message: str, kind: Any) -> tuple[str, str]:
    """msgspec's "... - at `$.control.prot`" of a `kind` as ("control.prot", "...")."""
    text, at, place = message.rpartition(" - at `")
    if not at:
        text, place = message, ""
    in_keys = place.startswith("key` in `")
    path = place.removeprefix("key` in `").removesuffix("`").removeprefix("$").lstrip(".")
    if "unknown field `" in text:
        name = text.split("`")[1][:64]
        return _below(path, name), f"unknown key{_hint(name, _fields(kind, path))}"
    if "required field `" in text:
        return _below(path, text.split("`")[1]), "required"
    if text.startswith("Invalid enum value ") and (choices := _choices(kind, path, in_keys)):
        value = text.removeprefix("Invalid enum value ")[:80]
        hint = _hint(value.strip("'"), choices)
        return path, f"{value} is none of {', '.join(choices)}{hint}"
    return path, " ".join(text.split())[:300]


def _below(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _hint(name: str, known: Iterable[str]) -> str:
    near = nearest(name, known)
    return f"; did you mean {near}?" if near else ""


def nearest(name: str, known: Iterable[str]) -> str:
    """The name that may have been meant, in any case; "" where none is near."""
    by_bare = {each.lower(): each for each in known}
    near = difflib.get_close_matches(name.lower(), by_bare, n=1)
    return by_bare[near[0]] if near else ""


def _fields(kind: Any, path: str) -> list[str]:
    return [
        field.encode_name
        for each in _at(kind, path)
        if isinstance(each, inspect.StructType)
        for field in each.fields
    ]


def _choices(kind: Any, path: str, in_keys: bool) -> list[str]:
    found = _at(kind, path)
    if in_keys:
        keys = [each.key_type for each in found if isinstance(each, inspect.DictType)]
        found = [each for key in keys for each in _plain(key)]
    choices: list[str] = []
    for each in found:
        if isinstance(each, inspect.EnumType):
            choices += [str(member.value) for member in each.cls]
        elif isinstance(each, inspect.LiteralType):
            choices += [str(value) for value in each.values]
    return choices


def _at(kind: Any, path: str) -> list[inspect.Type]:
    """The types that a value at `path` of a `kind` may have."""
    types = _plain(inspect.type_info(kind))
    for step in _STEP.finditer(path):
        types = [below for each in types for below in _step(each, step[1])]
    return types


def _step(kind: inspect.Type, name: str | None) -> list[inspect.Type]:
    """The types of a member: of the field `name`, else of an item or of a dictionary's value."""
    if isinstance(kind, inspect.StructType) and name is not None:
        return [t for field in kind.fields if field.encode_name == name for t in _plain(field.type)]
    if isinstance(kind, inspect.ListType):
        return _plain(kind.item_type)
    if isinstance(kind, inspect.DictType):
        return _plain(kind.value_type)
    return []


def _plain(kind: inspect.Type) -> list[inspect.Type]:
    """Without what is wrapped around it; of a union, every member."""
    if isinstance(kind, inspect.Metadata):
        return _plain(kind.type)
    if isinstance(kind, inspect.UnionType):
        return [each for member in kind.types for each in _plain(member)]
    return [kind]
