"""What may happen on any venue's socket, in the venue's own words: real bytes on a real socket, and
the session of a shard.
"""

import asyncio
import dataclasses
import json
import re
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import uvloop

from engine.data.flags import GapReason
from engine.data.names import StreamKind, Transport
from engine.messages.streams import StreamState
from shards.feeds import contracts
from shards.feeds.feed import Feed
from shards.transport import conversation, hangups
from shards.venues.kit import Channel, Venue
from tests.shards.doubles import spec_of
from tests.shards.fake_venue import PING, PONG, TEXT, FakeRig, FakeSocket, frame, running
from tests.shards.venues.mutants import Market
from tests.shards.venues.recorded import UNDER_TEST, cases_of, refusals_of, symbol_of

NAMES = list(UNDER_TEST)
STALE_AFTER_S = 0.3
PATIENCE_S = 30.0


def quick(name: str, **group: Any) -> Venue:
    """The venue, with all its sockets in a hurry."""
    venue = UNDER_TEST[name]
    groups = {
        key: dataclasses.replace(each, message_interval_s=0.0, **group)
        for key, each in venue.groups.items()
    }
    return dataclasses.replace(venue, groups=groups)


def trade_of(name: str) -> dict[str, Any]:
    """A frame with one or more trades of `symbol_of`."""
    cases = (case for case in cases_of(name) if case.get("rows"))
    wanted = StreamKind.TRADES, symbol_of(name)
    return next(case for case in cases if (case["kind"], case["symbol"]) == wanted)


def other_of(name: str) -> str:
    return next(each for each in UNDER_TEST[name].examples if each != symbol_of(name))


class Visit:
    """A session with a venue and the one socket it has opened, with the trades of two symbols."""

    def __init__(self, name: str, rig: FakeRig, socket: FakeSocket) -> None:
        self.name, self.rig, self.socket = name, rig, socket
        self._said: list[tuple[int, bytes]] = []
        self._market = Market(name)
        wanted = StreamKind.TRADES, Transport.WS
        self._trades = next(each for each in self._market.offers if each[:2] == wanted)

    @property
    def streams(self) -> list[Feed]:
        return self.rig.session.streams

    def stream(self, symbol: str) -> Feed:
        return next(
            each for each in self.streams
            if each.key.symbol == symbol and each.key.kind is StreamKind.TRADES
        )  # fmt: skip

    @property
    def said(self) -> list[tuple[int, bytes]]:
        """All frames that have come so far, as opcode and payload; what a ping says is our own."""
        while not self.socket.received.empty():
            self._said.append(self.socket.received.get_nowait())
        return [(opcode, b"" if opcode == PING else payload) for opcode, payload in self._said]

    def requests(self, symbol: str) -> int:
        """How often the symbol was asked for so far."""
        texts = [payload.decode().lower() for opcode, payload in self.said if opcode == TEXT]
        return sum(
            re.search(r"\bsubscribe\b", text) is not None and symbol.lower() in text
            for text in texts
        )

    def trade(self) -> None:
        """Trades of `symbol_of`."""
        self.socket.send(trade_of(self.name)["frame"].encode())

    def trade_of(self, symbol: str, *, is_escaped: bool = False) -> None:
        """The symbol's next trade, made by the definition of its message."""
        row = self._market.next_element(self._trades, symbol)
        if "count" in row:  # of trades that were merged
            row["count"] = 1
        text = json.dumps(row, ensure_ascii=is_escaped).encode()
        self.socket.send(self._market.frame(self._trades.shape, [text], symbol))

    async def until(self, condition: Callable[[], object]) -> None:
        await self.rig.until(condition, within_s=PATIENCE_S)


async def visit(name: str, rig: FakeRig, kinds: Sequence[StreamKind], *symbols: str) -> Visit:
    """Streams that are asked for, after the greeting that the venue wants."""
    slots = enumerate((symbol, kind) for symbol in symbols for kind in kinds)
    rig.session.start([spec_of(slot, name, symbol, kind) for slot, (symbol, kind) in slots])
    socket = await rig.fake.socket()
    greet(name, socket)
    found = Visit(name, rig, socket)
    await found.until(lambda: all(found.requests(symbol) for symbol in symbols))
    return found


def greet(name: str, socket: FakeSocket) -> None:
    for case in cases_of(name):
        if ["ready"] in case.get("control", ()):
            socket.send(case["frame"].encode())
            return


def everywhere(
    tmp_path: Path,
    body: Callable[[str, FakeRig], Awaitable[None]],
    names: Sequence[str] = NAMES,
    group: dict[str, Any] | None = None,
    **settings: Any,
) -> None:
    """The same at all venues, at the same time: what takes seconds takes them once."""

    async def one(name: str) -> None:
        directory = tmp_path / name
        directory.mkdir()
        async with running(directory, quick(name, **(group or {})), **settings) as rig:
            await body(name, rig)

    async def all_of_them() -> list[BaseException | None]:
        return await asyncio.gather(*map(one, names), return_exceptions=True)

    found = zip(names, uvloop.run(all_of_them()), strict=True)
    failed = [f"{name}: {error!r}" for name, error in found if error is not None]
    assert not failed, "\n".join(failed)


@pytest.mark.fault("X04")
def test_what_is_acknowledged_and_never_comes_is_asked_for_again(tmp_path: Path) -> None:
    async def body(name: str, rig: FakeRig) -> None:
        symbol, other = symbol_of(name), other_of(name)
        at = await visit(name, rig, [StreamKind.TRADES], symbol, other)
        for case in cases_of(name):
            if [each[0] for each in case.get("control", ())] == ["acknowledged"]:
                at.socket.send(case["frame"].encode())
        asked = at.requests(symbol)
        await at.until(lambda: at.stream(symbol).state is StreamState.STALE)
        assert "no data for" in at.stream(symbol).reason
        await at.until(lambda: at.requests(symbol) > asked)
        at.trade()
        await at.until(lambda: at.stream(symbol).state is StreamState.LIVE)
        assert at.stream(symbol).row_count > 0

    everywhere(tmp_path, body, stale_after_s=STALE_AFTER_S)


@pytest.mark.fault("N10")
def test_a_refused_topic_says_so_and_costs_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hangups, "_LEFT_OUT_S", 0.2)

    async def body(name: str, rig: FakeRig) -> None:
        symbol, other = symbol_of(name), other_of(name)
        at = await visit(name, rig, [StreamKind.TRADES], symbol, other)
        words = refusals_of(name)["topic"].replace("{symbol}", other).replace("{other}", symbol)
        at.socket.send(words.encode())
        at.trade()
        await at.until(lambda: at.stream(symbol).state is StreamState.LIVE)
        gone = at.stream(other)
        asked = at.requests(other)
        await at.until(lambda: gone.state in (StreamState.FAILED, StreamState.STALE))
        assert not gone.is_heard
        assert gone.reason
        await at.until(lambda: at.requests(other) > asked)
        at.trade()
        await at.until(lambda: at.stream(symbol).frame_count > 1)
        assert not len(rig.double.rows("gap")), "of the other"
        assert len(rig.session.connections) == 1

    everywhere(tmp_path, body, stale_after_s=3.0)


@pytest.mark.fault("N10")
def test_what_is_delisted_while_it_runs_costs_no_other(tmp_path: Path) -> None:
    """It falls silent, and is asked for once more in vain."""

    async def body(name: str, rig: FakeRig) -> None:
        symbol, other = symbol_of(name), other_of(name)
        at = await visit(name, rig, [StreamKind.TRADES], symbol, other)
        sent = 0

        def goes_on() -> Feed:
            nonlocal sent
            sent += 1
            at.trade_of(symbol)
            return at.stream(other)

        at.trade_of(other)
        await at.until(lambda: goes_on().state is StreamState.LIVE)
        asked = at.requests(other)
        await at.until(lambda: goes_on().state is StreamState.STALE and at.requests(other) > asked)
        words = refusals_of(name)["topic"].replace("{symbol}", other).replace("{other}", symbol)
        at.socket.send(words.encode())
        now = sent

        def is_heard() -> bool:
            goes_on()
            return at.stream(symbol).row_count > now and at.stream(symbol).state is StreamState.LIVE

        await at.until(is_heard)
        assert at.stream(other).state in (StreamState.STALE, StreamState.FAILED)
        assert "no data for" in at.stream(other).reason
        await at.until(lambda: at.stream(symbol).row_count == sent)
        assert not len(rig.double.rows("gap"))

    everywhere(tmp_path, body, stale_after_s=0.5)


REQUESTS = [(name, said) for name in NAMES for said in refusals_of(name)["too_often_requests"]]


@pytest.mark.fault("H01")
@pytest.mark.parametrize(("name", "said"), REQUESTS)
def test_what_was_asked_for_too_often_is_asked_for_again_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, said: str
) -> None:
    """Nobody listens to it until then, also not to what has no rows for hours."""
    monkeypatch.setattr(conversation, "_TOO_OFTEN_S", 0.1)
    monkeypatch.setattr(contracts, "_SETTLED_S", 3600.0)

    async def body(name: str, rig: FakeRig) -> None:
        symbol, other = symbol_of(name), other_of(name)
        at = await visit(name, rig, market_of(name), symbol, other)
        asked = [at.requests(symbol), at.requests(other)]
        cuts = [cuts_of(stream) for stream in at.streams]
        at.socket.send(said.encode())
        await at.until(lambda: all(cuts))
        await at.until(lambda: {stream.state for stream in at.streams} == {StreamState.SYNCING})
        await at.until(lambda: at.requests(symbol) > asked[0] and at.requests(other) > asked[1])
        for why in cuts:
            assert [word.partition(" in ")[0] for word in why] == [f"{name} is asked again"]
        at.trade()
        await at.until(lambda: at.stream(symbol).state is StreamState.LIVE)
        assert len(rig.session.connections) == 1

    everywhere(tmp_path, body, [name])


def cuts_of(stream: Feed) -> list[str]:
    """Why it will have been cut."""
    found, cut = list[str](), stream.cut

    def note(why: str, silent_s: float = 0.0, *, blame: GapReason | None = None) -> None:
        found.append(why)
        cut(why, silent_s, blame=blame)
        assert not stream.is_heard

    stream.cut = note  # type: ignore[method-assign]
    return found


def market_of(name: str) -> list[StreamKind]:
    """What comes on the socket of trades, without what needs an answer of a call to begin."""
    venue, wanted = (
        UNDER_TEST[name],
        (StreamKind.TRADES, StreamKind.TICKER, StreamKind.LIQUIDATIONS),
    )
    group = venue.channels[StreamKind.TRADES, Transport.WS]
    pushed = {kind: venue.channels.get((kind, Transport.WS)) for kind in wanted}
    assert isinstance(group, Channel)
    return [
        kind
        for kind, each in pushed.items()
        if isinstance(each, Channel) and each.group == group.group
    ]


HURRY = {"ping_interval_s": 0.5, "idle_timeout_s": 1.5}


@pytest.mark.fault("X03")
@pytest.mark.fault("X19")
def test_a_venue_that_answers_no_ping_is_left_and_its_own_are_answered(tmp_path: Path) -> None:
    async def body(name: str, rig: FakeRig) -> None:
        symbol, ping = symbol_of(name), ping_of(name)
        at = await visit(name, rig, [StreamKind.TRADES], symbol)
        at.trade()
        at.socket.raw(frame(PING, b"beat 7"))
        answers = [(PONG, b"beat 7")]
        for case in cases_of(name):
            for words in case.get("control", ()):
                if words[0] == "answer":
                    at.socket.send(case["frame"].encode())
                    answers.append((TEXT, words[1].encode()))
        await at.until(lambda: {*answers, ping} <= {*at.said})
        stored = at.stream(symbol).row_count

        def is_repeated() -> bool:
            while not rig.fake.sockets.empty():
                at.socket = rig.fake.sockets.get_nowait()
                greet(name, at.socket)
            at.trade()
            return rig.session.reconnect_count > 0 and at.stream(symbol).duplicate_count > 0

        await at.until(lambda: rig.session.reconnect_count)
        await at.until(is_repeated)
        assert 0 < stored == at.stream(symbol).row_count, (
            "each row once, though both sockets had it"
        )

    everywhere(tmp_path, body, group=HURRY)


def ping_of(name: str) -> tuple[int, bytes]:
    """What is sent to see whether the venue is there."""
    (wanted,) = {group.json_ping for group in UNDER_TEST[name].groups.values()}
    return (PING, b"") if wanted is None else (TEXT, wanted)


@pytest.mark.fault("X03")
def test_who_must_be_pinged_is_also_while_data_comes(tmp_path: Path) -> None:
    async def body(name: str, rig: FakeRig) -> None:
        at = await visit(name, rig, [StreamKind.TRADES], symbol_of(name))

        def is_pinged() -> bool:
            at.trade()
            return at.said.count(ping_of(name)) >= 3

        await at.until(is_pinged)
        assert rig.session.connections[0].connect_count == 1

    pinged = [
        name for name in NAMES
        if any(each.json_ping or each.pings_always for each in UNDER_TEST[name].groups.values())
    ]  # fmt: skip
    everywhere(tmp_path, body, pinged, group={"ping_interval_s": 0.5})


@pytest.mark.parametrize("escaped", [False, True])
def test_a_symbol_may_be_in_any_script(tmp_path: Path, escaped: bool) -> None:
    """As it is subscribed, and as it comes: written out or as JSON may escape it."""
    symbol = "币安人生-USD"

    async def body(name: str, rig: FakeRig) -> None:
        at = await visit(name, rig, [StreamKind.TRADES], symbol)
        at.trade_of(symbol, is_escaped=escaped)
        await at.until(lambda: at.stream(symbol).row_count)
        assert not rig.session.malformed_by_reason

    everywhere(tmp_path, body)
