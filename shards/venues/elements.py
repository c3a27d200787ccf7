"""Elements that nobody can read, and whose they are: the same for what is pushed and what is asked.

Answers are read here, part by part: one that is wrong costs no other. An element that names nobody
may have been meant for any stream that is not named elsewhere in the answer.
"""

from collections.abc import Callable, Iterable, Sequence
from hashlib import blake2b
from typing import Any

import msgspec

from shards.feeds.contracts import FundingRow
from shards.feeds.declared.unreadable import UNKNOWN, Unreadable
from shards.feeds.feed import MalformedFrameError
from shards.venues.bad_frames import BAD_FRAME
from shards.venues.digits import Computed, ComputedRate
from shards.venues.json_parts import elements, id_of, members, text_of
from shards.venues.kit import Feeds, OnBadFrame, Shape
from shards.venues.wire import NS_PER_MS, TIME_MS_MAX, Moment, ns_of

_decode_moment = msgspec.json.Decoder(Moment).decode

_decode_list = msgspec.json.Decoder(list[msgspec.Raw]).decode
Take = Callable[[str | None, bytes], None]
"""Reads one part of an answer, whose symbol is given where the part itself does not say it, and
delivers it. Raises what `BAD_FRAME` names.
"""


def funding_row(
    rate: ComputedRate | None,
    mark: Computed | None,
    index: Computed | None,
    next_ts: int,
    interval_s: int = 0,
) -> FundingRow:
    """A row of what the venue computes; None is a number that it does not have now."""
    said = [number for number in (rate, mark, index) if number is not None]
    return FundingRow(
        rate.rate if rate else None,
        mark.value if mark else 0.0,
        index.value if index else 0.0,
        next_ts,
        interval_s,
        all(number.is_exact for number in said),
    )


def unreadable(text: bytes, shape: Shape, ts_recv: int) -> Unreadable:
    """An element with what it says of itself."""
    said = members(text)
    levels = sum(len(elements(side)) for side in shape.levels(said))
    return Unreadable(
        ts_recv,
        rows=max(levels, shape.row_count),
        seq=id_of(said.get(shape.seq)),
        prev_seq=id_of(said.get(shape.prev_seq)),
        ts_event=_time_of(said.get(shape.time)),
        mark=_mark_of(text),
    )


def _mark_of(text: bytes) -> int:
    """The same in every process: what one has declared another one may read as well."""
    return int.from_bytes(blake2b(text, digest_size=8).digest(), signed=True)


def _time_of(said: bytes | None) -> int | None:
    """A time in ns, said in ms or as a `Moment`; None where it is neither."""
    time_ms = id_of(said)
    if time_ms is not None:
        return time_ms * NS_PER_MS if 0 < time_ms <= TIME_MS_MAX else None
    try:
        return ns_of(_decode_moment(said or b""))
    except BAD_FRAME:
        return None


def accuse(feeds: Sequence[Any], item: Unreadable) -> None:
    """An element that names nobody: the only one it can have been meant for takes it."""
    if len(feeds) == 1:
        feeds[0].on_unreadable(item)
    else:
        suspect(feeds, item.ts_recv)


def suspect(feeds: Iterable[Any], ts_recv: int) -> None:
    """Any of these may miss something."""
    for feed in feeds:
        feed.on_unreadable(Unreadable(ts_recv, UNKNOWN))


def take_parts(
    parts: Iterable[tuple[str | None, bytes]],
    shape: Shape,
    feeds: Feeds,
    ts_recv: int,
    on_bad_frame: OnBadFrame,
    take: Take,
) -> None:
    """Deliver an answer for many symbols. What is said of symbols nobody collects is not looked at:
    it may be as wrong as it likes.
    """
    room = feeds.of(shape.feed)
    named = set()
    orphans = []
    for symbol, part in parts:
        if symbol is None:
            orphans.append(part)
        elif symbol in room:
            named.add(symbol)
            try:
                take(symbol, part)
            except BAD_FRAME as error:
                on_bad_frame(error, part)
                room[symbol].on_unreadable(unreadable(part, shape, ts_recv))
    unnamed = [feed for symbol, feed in room.items() if symbol not in named]
    for part in orphans:
        on_bad_frame(MalformedFrameError("schema"), part)
        accuse(unnamed, unreadable(part, shape, ts_recv))


def take_list(
    body: bytes,
    shape: Shape,
    feeds: Feeds,
    ts_recv: int,
    on_bad_frame: OnBadFrame,
    take: Take,
) -> None:
    """Deliver an answer that is a list about the one symbol that was asked for. An error in place
    of an answer has none of its members.
    """
    room = feeds.of(shape.feed)
    for part in _listed(body, shape):
        try:
            take(None, part)
        except BAD_FRAME as error:
            on_bad_frame(error, part)
            named = room.get(text_of(members(part).get(shape.symbol)) or "")
            accuse([named] if named else list(room.values()), unreadable(part, shape, ts_recv))


def _listed(body: bytes, shape: Shape) -> Sequence[bytes]:
    try:
        return [bytes(part) for part in _decode_list(body)]
    except BAD_FRAME:
        parts = elements(body)
        names = shape.element.__struct_encode_fields__
        if all(members(part).keys().isdisjoint(names) for part in parts):
            raise
        return parts


def take_one(body: bytes, shape: Shape, feeds: Feeds, ts_recv: int, take: Take) -> None:
    """Deliver an answer for the one symbol that was asked for. An error in place of an answer has
    none of its members, and is no element.
    """
    try:
        take(None, body)
    except BAD_FRAME:
        if not members(body).keys().isdisjoint(shape.element.__struct_fields__):
            room = feeds.of(shape.feed)
            symbol = text_of(members(body).get(shape.symbol))
            named = room.get(symbol or "")
            accuse([named] if named else list(room.values()), unreadable(body, shape, ts_recv))
        raise
