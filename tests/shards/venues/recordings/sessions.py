"""Recordings of real venues, where there are any: sessions and single messages, fed to the
production decoder.

They lie in the directory that `FTS_TEST_CAPTURES` names, by default beside the checkout. They are
no part of the repository, so tests that read them say that they did not run without.

Which fields of a message are taken is asked of the venue's message types; the others are in the
table of its page, `docs/venues/<name>.md`, each with why it is left.
"""

import json
import os
import re
from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec
import pytest

from engine.data.flags import Flag
from engine.data.names import StreamKind, Transport
from shards.venues import VENUES
from shards.venues.bad_frames import BAD_FRAME, reason_of
from shards.venues.kit import Channel, Feeds
from tests.shards.doubles import MemoryRings, Said, spec_of

ROOT: Final = Path(__file__).parents[4]
CAPTURES: Final = Path(os.environ.get("FTS_TEST_CAPTURES", ROOT.parent / "shared" / "captures"))
needs_captures = pytest.mark.skipif(
    not CAPTURES.is_dir(), reason=f"no recordings in {CAPTURES}: set FTS_TEST_CAPTURES"
)
_LINE: Final = re.compile(r"(\d+\.\d+): (.*)", re.DOTALL)
_IGNORED: Final = re.compile(r"^\| `([^`]+)` \|", re.MULTILINE)


def session(path: str) -> Iterator[tuple[int, bytes]]:
    """What the venue sent in a recorded session: when it was received (ns), and the frame."""
    for line in (CAPTURES / path).read_text(encoding="utf-8").splitlines():
        if match := _LINE.match(line):
            yield int(float(match[1]) * 1e9), match[2].encode()


def messages(path: str) -> list[bytes]:
    """The messages of a file of one, or of a list of them, in the order they came."""
    found = json.loads((CAPTURES / path).read_text(encoding="utf-8"))
    return [json.dumps(each).encode() for each in (found if isinstance(found, list) else [found])]


class Heard(NamedTuple):
    """What came of a recording: rings with its rows, what was said, reasons of bad frames."""

    double: MemoryRings
    talk: Said
    bad: list[str]


def hear(
    venue: str,
    symbols: Iterable[str],
    kinds: Iterable[StreamKind],
    frames: Iterable[tuple[int, bytes]],
) -> Heard:
    """Feed `frames` to one decoder, with a pushed stream of each kind of each symbol behind it."""
    known, feeds, heard = VENUES[venue], Feeds(), Heard(MemoryRings(), Said(), [])
    keys = [(symbol, kind) for symbol in symbols for kind in kinds]
    for slot, (symbol, kind) in enumerate(keys, 1):
        assert isinstance(known.channels[kind, Transport.WS], Channel)
        stream = heard.double.feed(spec_of(slot, venue, symbol, kind, Transport.WS), known)
        stream.subscribed()
        feeds.add(stream)
    decode = known.open_decoder(feeds, heard.talk)
    for ts_recv, frame in frames:
        try:
            decode(frame, ts_recv)
        except BAD_FRAME as error:
            heard.bad.append(reason_of(error))
    for stream in feeds.all:
        stream.cut("the recording is over")
    return heard


def assert_books_are_in_order(heard: Heard) -> None:
    """Who orders the rows of a book by time and number, as readers do, finds them as they came."""
    rows = heard.double.rows("book")
    assert len(rows)
    starts = rows[(rows["flags"] & int(Flag.FIRST_IN_EVENT)) != 0]
    for stream in set(starts["stream"].tolist()):
        moments = starts[starts["stream"] == stream][["ts_event", "seq"]].tolist()
        assert all(earlier < later for earlier, later in pairwise(moments)), stream


def taken(*types: Any) -> set[str]:
    """The fields, as the venue writes them, of message types and of all that is in them."""
    found: set[str] = set()
    seen: list[Any] = []
    waiting = list(msgspec.inspect.multi_type_info(types))
    while waiting:
        each = waiting.pop()
        if each in seen:
            continue
        seen.append(each)
        if isinstance(each, msgspec.inspect.StructType):
            found |= {field.encode_name for field in each.fields}
            found |= {each.tag_field} if each.tag_field else set()
            waiting += [field.type for field in each.fields]
        for name in ("item_type", "key_type", "value_type"):
            if (inner := getattr(each, name, None)) is not None:
                waiting.append(inner)
        waiting += [*getattr(each, "types", ()), *getattr(each, "item_types", ())]
    return found


def ignored(page: str) -> set[str]:
    """The fields that a venue's page says are left: the first column of its tables."""
    text = (ROOT / "docs" / "venues" / f"{page}.md").read_text(encoding="utf-8")
    return set(_IGNORED.findall(text))


def names_in(value: Any) -> set[str]:
    """All names of members in JSON, at whatever depth."""
    if isinstance(value, dict):
        return set(value) | {name for each in value.values() for name in names_in(each)}
    if isinstance(value, list):
        return {name for each in value for name in names_in(each)}
    return set()
