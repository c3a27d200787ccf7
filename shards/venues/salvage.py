"""What can be used of a message that a decoder has refused, and whose the rest is.

A decoder takes a frame whole, which is fast, or refuses it whole. A refused frame comes here and is
taken apart down to its elements, the smallest units of which rows are made (`Shape`): those that
can be read are delivered as ever, each of the others is counted by reason and handed to its stream,
which declares it as a gap of reason `unreadable`.

Whose an element is, its symbol says, or the type of its message; in a message of one symbol its
neighbours say it as well. An element that names nobody may have been anybody's of that kind of
stream on that socket. With one such stream it is that one's. With several, each declares that it
may miss something there (`UNKNOWN`: missing is not known), unless the ids of its rows will tell;
the frame is counted by reason alone, for no stream's count would be true. The same goes for a
message whose very type cannot be read. What is no JSON object, or of another type of message, is no
row and is only counted.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import msgspec

from shards.feeds.feed import Feed, MalformedFrameError, UntakenError
from shards.venues.bad_frames import BAD_FRAME
from shards.venues.digits import decoder
from shards.venues.elements import suspect, unreadable
from shards.venues.json_parts import BYTES_MAX, elements, members, text_of
from shards.venues.kit import Feeds, FrameDecoder, OnBadFrame, Shape, Venue

_ELEMENTS_MAX: Final = 65_536
"""More of them than rows would fit into the largest message that is looked at are no rows: a flood
of `0,0,0,…` must not hold up the other sockets, nor fill the memory.
"""


class _Part(NamedTuple):
    """One element as it was written, with the error that says why it is none."""

    symbol: str | None
    text: bytes
    error: Exception | None


class _Type(NamedTuple):
    """A message's type as it was said: its shape, and the symbol it names, or none."""

    tag: str
    shape: Shape
    symbol: str


class Salvage:
    """The slow path of one socket's frames."""

    def __init__(
        self, venue: Venue, feeds: Feeds, decode: FrameDecoder, on_bad_frame: OnBadFrame
    ) -> None:
        self._tag = venue.tag
        self._shapes = venue.shapes
        self._decoders = {shape.tag: decoder(shape.element) for shape in venue.shapes}
        names = [name for shape in venue.shapes for name in (*shape.path, shape.symbol)]
        self._carriers = {name for name in names if name}
        self._feeds = feeds
        self._decode = decode
        self._on_bad_frame = on_bad_frame

    def take(self, payload: bytes, ts_recv: int, error: Exception) -> None:
        """Use what can be used of a frame that was refused with `error`. What was under way when
        its stream was removed is nobody's fault.
        """
        if isinstance(error, UntakenError) and self._feeds.has_let_go(error.symbol, *error.feeds):
            return
        frame = members(payload)
        tag = text_of(frame.get(self._tag))
        kind = self._type_of(tag, frame)
        if kind is not None:
            self._take_message(frame, payload, kind, ts_recv, error)
            return
        self._on_bad_frame(error, payload)
        if tag is None and self._may_carry(frame, payload):
            suspect(self._feeds.all, ts_recv)

    def _type_of(self, tag: str | None, frame: Mapping[str, bytes]) -> _Type | None:
        for shape in self._shapes:
            if not shape.tag:
                members_of = shape.element.__struct_encode_fields__
                if self._tag not in frame and not frame.keys().isdisjoint(members_of):
                    return _Type("", shape, "")
            elif (symbol := shape.symbol_in(tag or "")) is not None:
                return _Type(tag or "", shape, symbol)
        return None

    def _may_carry(self, frame: Mapping[str, bytes], payload: bytes) -> bool:
        """Whether a message whose type cannot be read may have been one with rows."""
        too_long = len(payload) > BYTES_MAX and payload[:1] == b"{"
        return too_long or self._tag in frame or not self._carriers.isdisjoint(frame)

    def _take_message(
        self,
        frame: Mapping[str, bytes],
        payload: bytes,
        kind: _Type,
        ts_recv: int,
        error: Exception,
    ) -> None:
        shape = kind.shape
        feeds: Mapping[str, Feed] = self._feeds.of(shape.feed)
        body = _follow(payload, frame, shape.path)
        if not shape.is_list:
            symbol = _symbol_of(body, kind)
            self._refuse([_Part(symbol, body, error)], shape, ts_recv, symbol)
            return
        texts = elements(body, _ELEMENTS_MAX + 1)
        if len(texts) > _ELEMENTS_MAX:
            self._on_bad_frame(error, payload)
            suspect(feeds.values(), ts_recv)
            return
        owner: str | None = None
        good: dict[str | None, list[bytes]] = {}
        bad = []
        for part in (self._look_at(text, kind) for text in texts):
            is_known = self._is_known(part.symbol, shape)
            if is_known:
                owner = owner or part.symbol
            if part.error is not None or not is_known:
                # Of one type nothing is mixed: what can be read is refused for the frame's reason.
                bad.append(part._replace(error=part.error or error) if kind.symbol else part)
            elif part.symbol in feeds:
                good.setdefault(part.symbol, []).append(part.text)
        if not bad:
            self._on_bad_frame(error, payload)
        self._refuse(bad, shape, ts_recv, owner)
        for readable in good.values():
            self._decode(_message(self._tag, kind, readable), ts_recv)

    def _is_known(self, symbol: str | None, shape: Shape) -> bool:
        """Whether a stream has, or had a moment ago, this symbol."""
        feed: type[Feed] = shape.feed
        return symbol in self._feeds.of(feed) or self._feeds.has_let_go(symbol, feed)

    def _look_at(self, text: bytes, kind: _Type) -> _Part:
        symbol = _symbol_of(text, kind)
        try:
            self._decoders[kind.shape.tag](text)
        except BAD_FRAME as error:
            return _Part(symbol, text, error)
        return _Part(symbol, text, None)

    def _refuse(
        self, parts: Sequence[_Part], shape: Shape, ts_recv: int, owner: str | None
    ) -> None:
        """Count parts; tell their streams. Those that name no stream here are `owner`'s. Nobody is
        told of what is about a stream that was removed.
        """
        feeds: Mapping[str, Any] = self._feeds.of(shape.feed)
        anybody = list(feeds.values())
        is_anybodys = False
        for part in parts:
            self._on_bad_frame(part.error or MalformedFrameError("mixed_coins"), part.text)
            symbol = part.symbol if self._is_known(part.symbol, shape) else owner
            if (named := feeds.get(symbol or "")) is not None:
                named.on_unreadable(unreadable(part.text, shape, ts_recv))
            elif self._feeds.has_let_go(symbol, shape.feed):
                continue
            elif len(anybody) == 1:
                anybody[0].on_unreadable(unreadable(part.text, shape, ts_recv))
            else:
                is_anybodys = True
        if is_anybodys:  # once for all of them: none of these streams knows more by the second
            suspect(anybody, ts_recv)


def _follow(payload: bytes, frame: Mapping[str, bytes], path: Sequence[str]) -> bytes:
    for name in path:
        payload = frame.get(name, b"")
        frame = members(payload)
    return payload


def _symbol_of(element: bytes, kind: _Type) -> str | None:
    """Whose it is: as its message's type says, else as it says itself."""
    return kind.symbol or text_of(members(element).get(kind.shape.symbol))


def _message(tag: str, kind: _Type, texts: Sequence[bytes]) -> bytes:
    """A frame of these elements alone."""
    text = b"[" + b",".join(texts) + b"]"
    for name in reversed(kind.shape.path):
        text = b'{"%b":%b}' % (name.encode(), text)
    return b'{"%b":%b,%b' % (tag.encode(), msgspec.json.encode(kind.tag), text[1:])
