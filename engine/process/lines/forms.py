"""The two forms of a line: for eyes, and JSON. What is in an event cannot break or forge either.

Control characters are written out, so one event is one line. Secrets are masked before anything is
cut, so that no cut leaves half of one. A text that is too long loses its middle, and says how much.
"""

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Final

from engine.base.masking import mask_secrets

_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_WORD_ENDS: Final = re.compile(r"[\s\"'&,;]")
_FIELD_CHARS_MAX: Final = 256
_CUT_MARK_CHARS: Final = 48
_NS: Final = 1_000_000_000


@dataclass(frozen=True, slots=True)
class LoggedEvent:
    """One event. `text` may hold anything; `fields` are what it says, by name."""

    at_ns: int
    level: str
    event: str
    """Its stable name (`engine.process.lines.events`)."""
    text: str
    stream: str = ""
    fields: Mapping[str, Any] = field(default_factory=dict)


Form = Callable[[LoggedEvent, str], str]
"""(event, process) to its line, without the newline."""


def escaped(text: str) -> str:
    """`text` with every control character written out."""
    return _CONTROL.sub(_escape, text)


def text_line(said: LoggedEvent, process: str) -> str:
    """`2026-01-31T12:00:00.123Z INFO writer message`."""
    at = f"{_second(said.at_ns)}.{said.at_ns % _NS // 1_000_000:03d}Z"
    return f"{at} {said.level} {process} {escaped(said.text)}"


def json_line(said: LoggedEvent, process: str) -> str:
    """One object: `time` (RFC 3339, nanoseconds), `level`, `process`, `event`, `stream` where it is
    about one, `message`, and the event's fields by their names. All of it is ASCII.
    """
    about = {"stream": said.stream} if said.stream else {}
    whole = {
        "time": f"{_second(said.at_ns)}.{said.at_ns % _NS:09d}Z",
        "level": said.level,
        "process": process,
        "event": said.event,
        **about,
        "message": said.text,
    }
    fields = {name: _plain(value) for name, value in said.fields.items() if name not in whole}
    return json.dumps(whole | fields)


FORMS: Final[dict[str, Form]] = {"text": text_line, "json": json_line}


def fitted(said: LoggedEvent, form: Form, process: str, bytes_max: int) -> bytes:
    """The line with its newline, masked, in at most `bytes_max` bytes (at least 2048)."""
    # No more than a byte a character: of a huge text the most is not even looked at.
    whole = len(said.text)
    text = mask_secrets(_without_middle(said.text, 2 * bytes_max, whole))
    said, keep = replace(said, text=text), len(text)
    while True:
        line = form(said, process).encode("utf-8", "backslashreplace") + b"\n"
        if len(line) <= bytes_max or keep == 0:
            return line
        # What is escaped grows up to sixfold: cut by as much as the line is too long.
        keep = max(0, keep * bytes_max // len(line) - _CUT_MARK_CHARS)
        cut = _without_middle(text, keep, whole)
        said = replace(said, text=cut, fields=_short(said.fields))


def readable(line: str) -> str:
    """A line of either form as one for eyes."""
    if not line.startswith("{"):
        return line
    try:
        found = json.loads(line)
        return " ".join(escaped(str(found[key])) for key in ("time", "level", "process", "message"))
    except (ValueError, KeyError, RecursionError):
        return line


def _without_middle(text: str, keep: int, whole: int) -> str:
    """About `keep` characters of a text that had `whole`; the end begins with a word, so as not to
    begin with the rest of a password.
    """
    if len(text) <= keep:
        return text
    head, tail = text[: keep - keep // 3], text[len(text) - keep // 3 :]
    tail = "".join(_WORD_ENDS.split(tail, maxsplit=1)[1:])
    return f"{head} … {whole - len(head) - len(tail):,} characters … {tail}"


def _short(fields: Mapping[str, Any]) -> dict[str, Any]:
    """So that fields alone never fill a line."""
    return {
        name: value[:_FIELD_CHARS_MAX] if isinstance(value, str) else value
        for name, value in fields.items()
    }


def _plain(value: object) -> object:
    """What JSON has; all else as its text."""
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    return mask_secrets(str(value))


def _second(at_ns: int) -> str:
    return f"{datetime.fromtimestamp(at_ns // _NS, UTC):%Y-%m-%dT%H:%M:%S}"


def _escape(match: re.Match[str]) -> str:
    char = match.group()
    if char == "\n":
        return "\\n"
    return f"\\x{ord(char):02x}" if ord(char) < 0x100 else f"\\u{ord(char):04x}"
