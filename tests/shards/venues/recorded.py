"""What the venues were seen to say, and a decoder with one stream behind it to say it to.

A line of `tests/data/<venue>/frames.jsonl` is a frame, or with `transport` HttpPoll the body of an
answer, with either its `rows`, its `control` meaning, or the `error` it must be skipped for. An
answer for several symbols may have rows and a part that is `unusable`, which names the reason. What
a frame means may show with the `next` one, whose rows come after its own.

`rows` have any of their records' fields, by the names of `engine.data.kinds`: sides as letters, and
`flags` as the sum of those in `engine.data.flags`. `control` has the calls of `Talk` as lists of
word and arguments, topics one by one (`["refused", "no such symbol", null, "book:A"]`), none for
what the decoder knows and says nothing of. `error` is a reason of `bad_frames.reason_of`:
`schema` for what a message's types refuse, a NaN as well; `value` for a ValueError of the decoder's
own; `json`, `utf8` or `depth` for what is no JSON; else what a `MalformedFrameError` is made of,
`not_subscribed` for an `UntakenError`.
"""

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from engine.data.kinds import GAP, KINDS
from engine.data.names import StreamKind, Transport
from shards.venues import VENUES
from shards.venues.bad_frames import reason_of
from shards.venues.kit import Feeds, FrameDecoder, PollChannel, Venue
from tests.shards.doubles import MemoryRings, Said, spec_of
from tests.toys import venue as toy

UNDER_TEST = {**VENUES, toy.NAME: toy.VENUE}
"""The venues, and one that has what none of them has."""
DATA = Path(__file__).parents[2] / "data"
TS_RECV = 1_800_000_000_000_000_000


def cases(*wanted: str) -> list[Any]:
    found = []
    for name in UNDER_TEST:
        lines = (DATA / name / "frames.jsonl").read_text(encoding="utf-8").splitlines()
        for number, line in enumerate(lines, 1):
            case = json.loads(line)
            if any(key in case for key in wanted):
                found.append(pytest.param(name, case, id=f"{name}-{number}"))
    return found


def frames_of(case: dict[str, Any]) -> list[bytes]:
    """The frame of a case, and the one after it."""
    return [case[name].encode() for name in ("frame", "next") if name in case]


class Bench:
    """A venue's decoder with one stream behind it."""

    def __init__(
        self, venue: Venue, symbol: str, kind: StreamKind, transport: Transport = Transport.WS
    ) -> None:
        self.double = MemoryRings()
        self.talk = Said()
        self.bad_frames: list[str] = []
        self.stream = self.double.feed(spec_of(3, venue.name, symbol, kind, transport), venue)
        self.stream.subscribed()
        feeds = Feeds()
        feeds.add(self.stream)
        channel = venue.channels[kind, transport]
        self.decode: FrameDecoder
        if isinstance(channel, PollChannel):
            self.decode = lambda body, ts_recv: channel.decode(
                body, feeds, ts_recv, lambda error, _: self.bad_frames.append(reason_of(error))
            )
        else:
            self.decode = venue.open_decoder(feeds, self.talk)

    def rows(self) -> list[dict[str, Any]]:
        """All rows as plain values. A delta book writes what it holds back when it is cut."""
        self.stream.cut("the test is over")
        found = []
        for kind in KINDS:
            for record in self.double.rows(kind) if kind != GAP.name else ():
                names = [n for n in record.dtype.names if not n.startswith("_")]
                row = {name: record[name].item() for name in names}
                if "side" in row:
                    row["side"] = chr(row["side"])
                found.append({**row, "kind": kind})
        return found


def bench(name: str, case: dict[str, Any]) -> Bench:
    transport = Transport(case.get("transport", "Ws"))
    return Bench(UNDER_TEST[name], case["symbol"], StreamKind(case["kind"]), transport)


def cases_of(name: str) -> list[dict[str, Any]]:
    """All of one venue."""
    lines = (DATA / name / "frames.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


@cache
def symbol_of(name: str) -> str:
    """A symbol the venue lists."""
    first: str = cases_of(name)[0]["symbol"]
    return first


def refusals_of(name: str) -> dict[str, Any]:
    """How a venue says no in its own way: `too_often_calls` are answers to calls, with the seconds
    for which nobody asks then; `too_often_requests` are frames that refuse request 1 on a socket
    for now, and `topic` is one that refuses in it the trades of `{symbol}` beside `{other}`, or
    acknowledges them though they are not there.
    """
    found: dict[str, Any] = json.loads((DATA / name / "refusals.json").read_bytes())
    return found


def parsers(name: str) -> dict[str, Callable[[bytes], Any]]:
    """What reads the venue's other answers, by the name their recordings have."""
    venue = UNDER_TEST[name]
    found: dict[str, Callable[[bytes], Any] | None] = {
        "instruments": venue.listing.parse,
        "book_snapshot": venue.parse_book_snapshot,
        "funding_intervals": venue.funding_intervals.parse if venue.funding_intervals else None,
    }
    return {call: parse for call, parse in found.items() if parse is not None}
