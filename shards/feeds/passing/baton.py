"""What a feed tells the one that goes on with its stream in another process: its heirlooms.

JSON by the attributes' names, for the other process may run another version: a name it does not
know is left out, and one it is not told stays as it is. Between a feed and its heir, the proof that
nothing is missing is the same as between two sockets (`Feed.following`).
"""

from collections import deque
from typing import Any

import msgspec

from shards.feeds.feed import Feed

_decode = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def tell(stream: Feed) -> str:
    """What `inherit` takes."""
    said = {name: getattr(stream, name) for name in _heirlooms(stream)}
    for name, value in said.items():
        if isinstance(value, dict | deque):
            said[name] = list(value)
    return msgspec.json.encode(said).decode()


def inherit(stream: Feed, said: str) -> None:
    """Have `stream` know what another feed of the same stream has told. Raises
    `msgspec.MsgspecError` where that is no feed's word; the stream is as it was then.
    """
    known, told = _heirlooms(stream), _decode(said)
    values = {
        name: msgspec.json.decode(told[name], type=kind)
        for name, kind in known.items()
        if name in told
    }
    for name, value in values.items():
        setattr(stream, name, _like(getattr(stream, name), value))
    stream.inherited()


def _like(present: Any, value: Any) -> Any:
    """`value` in the form that the attribute has."""
    if isinstance(present, dict):
        return dict.fromkeys(value)
    if isinstance(present, deque):
        return deque(value, present.maxlen)
    return value


def _heirlooms(stream: Feed) -> dict[str, Any]:
    """Of its class and all that it extends; the most special word counts."""
    found: dict[str, Any] = {}
    for each in reversed(type(stream).__mro__):
        found |= each.__dict__.get("heirlooms", {})
    return found
