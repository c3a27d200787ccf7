"""JSON taken apart without being understood: for messages that a decoder has refused.

A decoder reads a message whole or not at all, and one that is nested too deeply, or is no UTF-8
somewhere, it cannot even skip over. What is here looks at strings, brackets and commas alone, never
calls itself and never raises: of nonsense it makes some other nonsense, which is refused in turn.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Annotated, Final

import msgspec

_STRING: Final = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?+'
"""One that does not end is the rest of the text: to look for an end behind each quote in it would
take the square of its length.
"""
_OUTSIDE: Final = re.compile(_STRING + rb"|[\[{]|[\]}]", re.DOTALL)
_INSIDE: Final = re.compile(_STRING + rb'|[\[{]++(?:"\w*+":[\[{]++)*+|[\]}]++|[,:]', re.DOTALL)
"""A run of brackets, also of objects in each other, is one token, so that depth costs nothing."""
_OPEN, _CLOSE, _COMMA, _COLON = b"[{", b"]}", ord(","), ord(":")
BYTES_MAX: Final = 4 << 20
"""What is larger is not looked at: 1 MiB takes some tens of milliseconds."""

_decode_text = msgspec.json.Decoder(str).decode
_decode_id = msgspec.json.Decoder(
    Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)], strict=False
).decode


def elements(text: bytes, limit: int | None = None) -> list[bytes]:
    """The values of an array, each as it is written; with a limit no more than the first ones."""
    values = (text[start:stop].strip() for start, _, stop in _spans(text))
    return list(islice(filter(None, values), limit))


def members(text: bytes) -> dict[str, bytes]:
    """The members of an object by name, each value as it is written; empty for what is none."""
    found = {}
    if text.lstrip()[:1] == b"{":
        for start, colon, stop in _spans(text):
            name = text_of(text[start:colon].strip()) if colon >= 0 else None
            if name is not None:
                found[name] = text[colon + 1 : stop].strip()
    return found


def members_named(*names: str) -> Callable[[Mapping[str, bytes]], list[bytes]]:
    """Picks these members of an object, empty ones where they are not there."""
    return lambda said: [said.get(name, b"") for name in names]


def nested(values: Mapping[Sequence[str], bytes]) -> bytes:
    """An object with each of these values, as it is written, at its path. An empty name in a path
    stands for an array of one element.
    """
    inner: dict[str, dict[Sequence[str], bytes]] = {}
    for path, value in values.items():
        inner.setdefault(path[0], {})[tuple(path[1:])] = value
    texts = {name: rest[()] if () in rest else nested(rest) for name, rest in inner.items()}
    if "" in texts:
        return b"[%b]" % texts[""]
    parts = [b'"%b":%b' % (name.encode(), text) for name, text in texts.items()]
    return b"{%b}" % b",".join(parts)


def text_of(value: bytes | None) -> str | None:
    """A JSON string, or None."""
    try:
        return None if value is None else _decode_text(value)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


def id_of(value: bytes | None) -> int | None:
    """A whole number that fits an id, also one written as a string; or None."""
    try:
        return None if value is None else _decode_id(value)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, ValueError):
        return None


def _spans(text: bytes) -> Iterator[tuple[int, int, int]]:
    """(start, colon or -1, stop) of each part of the outermost brackets. Of brackets that are never
    closed the rest is the last part.
    """
    for token in _OUTSIDE.finditer(text if len(text) <= BYTES_MAX else b""):
        at = token.start()
        if text[at] in _OPEN:
            yield from _parts(text, at + 1)
            return
        if text[at] in _CLOSE:
            break
    yield len(text), -1, len(text)


def _parts(text: bytes, start: int) -> Iterator[tuple[int, int, int]]:
    depth, colon = 1, -1
    for token in _INSIDE.finditer(text, start):
        at, end = token.span()
        sign = text[at]
        if sign in _OPEN:
            # Names in a run have no brackets.
            depth += text.count(b"[", at, end) + text.count(b"{", at, end)
        elif sign in _CLOSE:
            if depth <= end - at:
                yield start, colon, at + depth - 1
                return
            depth -= end - at
        elif depth == 1 and sign == _COMMA:
            yield start, colon, at
            start, colon = end, -1
        elif depth == 1 and sign == _COLON and colon < 0:
            colon = at
    yield start, colon, len(text)
