"""Text that a database cannot hold, stored so that it can be told again.

A database in UTF8 holds every name a venue may list, one in LATIN1 only those of western Europe,
and no database holds a zero or half of a surrogate pair. Where the database's encoding is not UTF8,
every character beyond ASCII is written as `\\uXXXX` (or `\\UXXXXXXXX`) and a backslash as two, and
read back as what it was: programs see the name, `psql` sees its spelling. SQL_ASCII keeps bytes as
they come, so there UTF-8 stays UTF-8.
"""

import re
from typing import Any, Final

from psycopg.abc import Buffer
from psycopg.adapt import AdaptersMap
from psycopg.types.string import StrBinaryDumper, StrDumper, TextLoader

_AS_IT_IS: Final = frozenset({"UTF8", "SQL_ASCII"})
_NOWHERE: Final = re.compile("[\0\ud800-\udfff]")
_BEYOND_ASCII: Final = re.compile(r"[^\x01-\x7f]|\\")
_SPELLED: Final = re.compile(r"\\(?:\\|u([0-9a-f]{4})|U([0-9a-f]{8}))")


def escape(text: str) -> str:
    """`text` in ASCII."""
    return _BEYOND_ASCII.sub(_spell, text)


def unescape(text: str) -> str:
    """What `escape` was given. Other backslashes stay as they are."""
    return _SPELLED.sub(_character, text) if "\\" in text else text


def can_hold_any_name(encoding: str) -> bool:
    """Whether names are stored as they are in a database of this encoding."""
    return encoding in _AS_IT_IS


def adapt(adapters: AdaptersMap, encoding: str) -> None:
    """Let a session to a database of this encoding store and tell any text."""
    if can_hold_any_name(encoding):
        adapters.register_dumper(str, _StorableBinary)
        adapters.register_dumper(str, _Storable)
        return
    adapters.register_dumper(str, _EscapedBinary)
    adapters.register_dumper(str, _Escaped)
    for name in ("text", "varchar"):
        adapters.register_loader(name, _Unescaping)


def _spell(found: "re.Match[str]") -> str:
    character = found.group()
    if character == "\\":
        return r"\\"
    number = ord(character)
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"


def _character(found: "re.Match[str]") -> str:
    digits = found.group(1) or found.group(2)
    if not digits:
        return "\\"
    number = int(digits, 16)
    return chr(number) if number <= 0x10FFFF else found.group()


def _storable(text: str) -> str:
    return _NOWHERE.sub(_spell, text)


class _Storable(StrDumper):
    def dump(self, obj: str) -> Buffer | None:
        return super().dump(_storable(obj))


class _StorableBinary(StrBinaryDumper):
    def dump(self, obj: str) -> Buffer | None:
        return super().dump(_storable(obj))


class _Escaped(StrDumper):
    def dump(self, obj: str) -> Buffer | None:
        return super().dump(escape(obj))


class _EscapedBinary(StrBinaryDumper):
    def dump(self, obj: str) -> Buffer | None:
        return super().dump(escape(obj))


class _Unescaping(TextLoader):
    def load(self, data: Buffer) -> Any:
        text = super().load(data)
        return unescape(text) if isinstance(text, str) else text
