"""What can be used of a message that a decoder has refused, and whose the rest is.

A decoder takes a frame whole, which is fast, or refuses it whole. A refused frame comes here and is
taken apart down to its elements, the smallest units of which rows are made (`Shape`): those that
can be read are delivered as ever, each of the others is counted by reason and handed to its stream,
which declares it as a gap of reason `unreadable`. Where a message is for streams of several kinds,
each of them is told.

Whose an element is, its symbol says, or the type of its message; in a message of one symbol its
neighbours say it as well. An element that names nobody may have been anybody's of that kind of
stream on that socket. With one such stream it is that one's. With several, each declares that it
may miss something there (`UNKNOWN`: missing is not known), unless the ids of its rows will tell;
the frame is counted by reason alone, for no stream's count would be true. The same goes for a
message whose very type cannot be read. What is no JSON object, or of another type of message, is no
row and is only counted.
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import Any, Final, NamedTuple

import msgspec

from shards.feeds.feed import Feed, MalformedFrameError, UntakenError
from shards.venues.bad_frames import BAD_FRAME
from shards.venues.digits import decoder
from shards.venues.elements import suspect, unreadable
from shards.venues.json_parts import BYTES_MAX, elements, members, nested, text_of
from shards.venues.kit import Feeds, FrameDecoder, OnBadFrame, Shape, Venue

_TOGETHER: Final = ":"
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
    """A message's type as it was said: its shapes, which differ in whose they are, and the
    symbol it names, or none.
    """

    tag: str
    shapes: Sequence[Shape]
    symbol: str

    @property
    def shape(self) -> Shape:
        """Where its elements are."""
        return self.shapes[0]


class _Taker(NamedTuple):
    """A feed, and what it takes of a message."""

    shape: Shape
    feed: Any

    def tell(self, text: bytes, ts_recv: int) -> None:
        """Hand on what nobody can read, unless it says that it is none of this feed's."""
        said = members(text) if self.shape.where else {}
        if self.shape.where and not said:
            suspect([self.feed], ts_recv)
        elif _may_be_row(said, self.shape):
            self.feed.on_unreadable(unreadable(text, self.shape, ts_recv))


def _may_be_row(said: Mapping[str, bytes], shape: Shape) -> bool:
    """Whether an element is a row of the shape's feed, or nobody can read whether it is."""
    if shape.where is None:
        return True
    member, text = shape.where
    if text is None:
        return said.get(member, b"null") != b"null"
    return text_of(said.get(member)) in (None, text)


class Salvage:
    """The slow path of one socket's frames."""

    def __init__(
        self, venue: Venue, feeds: Feeds, decode: FrameDecoder, on_bad_frame: OnBadFrame
    ) -> None:
        self._tag = tag_paths(venue.tag)
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
        said = [text_of(_follow(payload, frame, path)[0]) for path in self._tag]
        kind = self._type_of(_TOGETHER.join(each or "" for each in said), frame)
        if kind is not None:
            self._take_message(frame, payload, kind, ts_recv, error)
            return
        self._on_bad_frame(error, payload)
        if None in said and self._may_carry(frame, payload):
            suspect(self._feeds.all, ts_recv)

    def _type_of(self, tag: str, frame: Mapping[str, bytes]) -> _Type | None:
        if self._tag[0][0] not in frame and (untold := self._without_type(frame)):
            return untold
        found = [(shape, shape.symbol_in(tag)) for shape in self._shapes if shape.tag]
        shapes = [shape for shape, symbol in found if symbol is not None]
        return _Type(tag, shapes, shapes[0].symbol_in(tag) or "") if shapes else None

    def _without_type(self, frame: Mapping[str, bytes]) -> _Type | None:
        for shape in self._shapes:
            if not shape.tag and not frame.keys().isdisjoint(
                shape.element.__struct_encode_fields__
            ):
                return _Type("", [shape], "")
        return None

    def _may_carry(self, frame: Mapping[str, bytes], payload: bytes) -> bool:
        """Whether a message whose type cannot be read may have been one with rows."""
        too_long = len(payload) > BYTES_MAX and payload[:1] == b"{"
        return too_long or self._tag[0][0] in frame or not self._carriers.isdisjoint(frame)

    def _take_message(
        self,
        frame: Mapping[str, bytes],
        payload: bytes,
        kind: _Type,
        ts_recv: int,
        error: Exception,
    ) -> None:
        shape = kind.shape
        bodies = _follow(payload, frame, shape.path)
        if not shape.is_list:
            for body in bodies:
                symbol = _symbol_of(body, kind)
                self._refuse([_Part(symbol, body, error)], kind, ts_recv, symbol)
            return
        texts = _elements_of(bodies, _ELEMENTS_MAX + 1)
        if len(texts) > _ELEMENTS_MAX:
            self._on_bad_frame(error, payload)
            suspect(_feeds_of(self._takers(kind)), ts_recv)
            return
        if shape.is_of_all_symbols:
            texts = [text for text in texts if self._may_be_wanted(_symbol_of(text, kind), shape)]
        self._take_elements(texts, payload, kind, ts_recv, error)

    def _take_elements(
        self, texts: Sequence[bytes], payload: bytes, kind: _Type, ts_recv: int, error: Exception
    ) -> None:
        takers = self._takers(kind)
        owner: str | None = None
        good: dict[str | None, list[bytes]] = {}
        bad = []
        for part in (self._look_at(text, kind) for text in texts):
            is_known = self._is_known(part.symbol, kind)
            if is_known:
                owner = owner or part.symbol
            if part.error is not None or not is_known:
                # Of one type nothing is mixed: what can be read is refused for the frame's reason.
                bad.append(part._replace(error=part.error or error) if kind.symbol else part)
            elif part.symbol in takers:
                good.setdefault(part.symbol, []).append(part.text)
        if not bad:
            self._on_bad_frame(error, payload)
        self._refuse(bad, kind, ts_recv, owner)
        for readable in good.values():
            body = b"[" + b",".join(readable) + b"]"
            self._decode(message(self._tag, kind.tag, kind.shape.path, body), ts_recv)

    def _may_be_wanted(self, symbol: str | None, shape: Shape) -> bool:
        """Of what comes for all symbols, whether it may be of one that somebody collects."""
        return symbol is None or symbol in self._feeds.of(shape.feed)

    def _takers(self, kind: _Type) -> "dict[str | None, list[_Taker]]":
        """Who takes such messages, by symbol."""
        found: dict[str | None, list[_Taker]] = {}
        for shape in kind.shapes:
            feeds: Mapping[str, Any] = self._feeds.of(shape.feed)
            for symbol, feed in feeds.items():
                found.setdefault(symbol, []).append(_Taker(shape, feed))
        return found

    def _is_known(self, symbol: str | None, kind: _Type) -> bool:
        """Whether a stream has, or had a moment ago, this symbol."""
        feeds: list[type[Feed]] = [shape.feed for shape in kind.shapes]
        is_here = any(symbol in self._feeds.of(feed) for feed in feeds)
        return is_here or self._feeds.has_let_go(symbol, *feeds)

    def _look_at(self, text: bytes, kind: _Type) -> _Part:
        symbol = _symbol_of(text, kind)
        try:
            element = self._decoders[kind.shape.tag](text)
            if kind.shape.check:
                kind.shape.check(element)
        except BAD_FRAME as error:
            return _Part(symbol, text, error)
        return _Part(symbol, text, None)

    def _refuse(self, parts: Sequence[_Part], kind: _Type, ts_recv: int, owner: str | None) -> None:
        """Count parts; tell their streams. Those that name no stream here are `owner`'s. Nobody is
        told of what is about a stream that was removed.
        """
        takers = self._takers(kind)
        only = next(iter(takers.values())) if len(takers) == 1 else []
        is_anybodys = False
        for part in parts:
            self._on_bad_frame(part.error or MalformedFrameError("mixed_coins"), part.text)
            symbol = part.symbol if self._is_known(part.symbol, kind) else owner
            named = takers.get(symbol, [])
            if not named and self._feeds.has_let_go(symbol, *(each.feed for each in kind.shapes)):
                continue
            for taker in named or only:
                taker.tell(part.text, ts_recv)
            is_anybodys = is_anybodys or not (named or only)
        if is_anybodys:  # once for all of them: none of these streams knows more by the second
            suspect(_feeds_of(takers), ts_recv)


def _follow(payload: bytes, frame: Mapping[str, bytes], path: Sequence[str]) -> list[bytes]:
    """What is at a path: several texts where it leads through an array."""
    bodies = [frame.get(path[0], b"")] if path else [payload]
    for name in path[1:]:
        if name:
            bodies = [members(body).get(name, b"") for body in bodies]
        else:
            bodies = _elements_of(bodies, _ELEMENTS_MAX)
    return bodies


def _elements_of(bodies: Iterable[bytes], limit: int) -> list[bytes]:
    """The elements of several arrays, no more than the first ones."""
    return list(islice((each for body in bodies for each in elements(body, limit)), limit))


def _symbol_of(element: bytes, kind: _Type) -> str | None:
    """Whose it is: as its message's type says, else as it says itself."""
    return kind.symbol or text_of(members(element).get(kind.shape.symbol))


def _feeds_of(takers: "Mapping[str | None, Sequence[_Taker]]") -> list[Any]:
    return [taker.feed for several in takers.values() for taker in several]


def tag_paths(tag: str) -> list[list[str]]:
    """Where the members are that say a message's type (`Venue.tag`)."""
    return [path.split(".") for path in tag.split(_TOGETHER)]


def message(tag: Sequence[Sequence[str]], said: str, path: Sequence[str], body: bytes) -> bytes:
    """A frame of the type `said`, with its elements and nothing else."""
    words = zip(tag, said.split(_TOGETHER, len(tag) - 1), strict=True)
    values: dict[Sequence[str], bytes] = {
        tuple(place): msgspec.json.encode(word) for place, word in words if word
    }
    return nested({**values, tuple(path): body})
