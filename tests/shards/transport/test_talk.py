"""What a decoder may say besides rows, and what follows: a venue that says it word by word."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import uvloop

from engine.data.flags import GapReason, GapState
from engine.data.names import StreamKind
from engine.messages.streams import StreamState
from shards.transport import conversation, hangups
from shards.venues import VENUES
from shards.venues.kit import Feeds, FrameDecoder, Talk, Venue
from tests.shards.doubles import spec_of
from tests.shards.fake_venue import (
    FakeRig,
    FakeSocket,
    agg_trade,
    binance_symbol,
    exchange_info,
    running,
)

BINANCE = VENUES["binance_linear"]
NAMES = ("AAAUSDT", "BBBUSDT", "CCCUSDT", "DDDUSDT")
BAD = "cccusdt@aggTrade"


def open_decoder(feeds: Feeds, talk: Talk) -> FrameDecoder:
    """Binance's, with frames that say what they mean: `{"say": ["refused", "no", 1]}`."""
    inner = BINANCE.open_decoder(feeds, talk)

    def on_frame(payload: bytes, ts_recv: int) -> None:
        name, *words = json.loads(payload).get("say", ("",))
        if name:
            getattr(talk, name)(*words)
        else:
            inner(payload, ts_recv)

    return on_frame


def talking(**group: Any) -> Venue:
    market = dataclasses.replace(BINANCE.groups["market"], message_interval_s=0.0, **group)
    groups = dict.fromkeys(BINANCE.groups, market)
    return dataclasses.replace(BINANCE, open_decoder=open_decoder, groups=groups)


async def subscribed(rig: FakeRig, kind: StreamKind = StreamKind.TRADES) -> FakeSocket:
    """Four streams on one socket."""
    rig.fake.answer("/fapi/v1/exchangeInfo", exchange_info(*map(binance_symbol, NAMES)))
    rig.session.start([spec_of(n, symbol=name, kind=kind) for n, name in enumerate(NAMES)])
    return await rig.fake.socket()


def say(socket: FakeSocket, *words: Any) -> None:
    socket.send({"say": words})


@pytest.mark.fault("N10")
def test_a_refused_topic_fails_its_own_streams_and_the_rest_is_sent_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hangups, "_LEFT_OUT_S", 0.5)

    async def body() -> None:
        async with running(tmp_path, talking()) as rig:
            socket = await subscribed(rig)
            asked = await socket.message()
            assert len(asked["params"]) == 4
            say(socket, "refused", "no such stream", asked["id"], [BAD])
            again = await socket.message()
            assert again["params"] == [each for each in asked["params"] if each != BAD]
            for name in NAMES:
                socket.send(agg_trade(name, 1)) if name != "CCCUSDT" else None
            refused = rig.session.streams[2]
            await rig.until(lambda: sum(s.row_count for s in rig.session.streams) == 3)
            assert str(refused.state) == "failed"
            assert refused.reason == "binance_linear refused it, tried again later: no such stream"
            await rig.until(lambda: not socket.received.empty())
            assert (await socket.message())["params"] == [BAD], "alone"
            await rig.until(lambda: refused.state is StreamState.SYNCING)
            socket.send(agg_trade("CCCUSDT", 1))
            await rig.until(lambda: refused.state is StreamState.LIVE)

    uvloop.run(body())


@pytest.mark.fault("N10")
def test_a_refusal_that_names_nothing_is_halved_until_it_does(tmp_path: Path) -> None:
    async def body() -> None:
        async with running(tmp_path, talking()) as rig:
            socket = await subscribed(rig)
            told = []

            def is_found() -> bool:
                for asked in socket.texts():
                    told.append([topic[:3] for topic in asked["params"]])
                    if BAD in asked["params"]:
                        say(socket, "refused", "Invalid request", asked["id"])
                    else:
                        say(socket, "acknowledged", asked["id"])
                return rig.session.streams[2].state is StreamState.FAILED

            await rig.until(is_found)
            assert told == [["aaa", "bbb", "ccc", "ddd"], ["aaa", "bbb"], ["ccc", "ddd"],
                            ["ccc"], ["ddd"]]  # fmt: skip
            for name in ("AAAUSDT", "BBBUSDT", "DDDUSDT"):
                socket.send(agg_trade(name, 1))
            await rig.until(
                lambda: [s.state for s in rig.session.streams].count(StreamState.LIVE) == 3
            )
            assert "tried again later: Invalid request" in rig.session.streams[2].reason

    uvloop.run(body())


def test_what_an_acknowledgement_leaves_out_is_refused(tmp_path: Path) -> None:
    async def body() -> None:
        async with running(tmp_path, talking()) as rig:
            socket = await subscribed(rig)
            asked = await socket.message()
            rest = [topic for topic in asked["params"] if topic != BAD]
            say(socket, "acknowledged", asked["id"], rest)
            refused = rig.session.streams[2]
            await rig.until(lambda: refused.state is StreamState.FAILED)
            assert refused.reason.endswith("it is missing from what was acknowledged")
            states = {s.state for s in rig.session.streams if s is not refused}
            assert states == {StreamState.SYNCING}
            assert socket.received.empty()

    uvloop.run(body())


def test_an_acknowledgement_of_nothing_refuses_all_that_was_asked_for(tmp_path: Path) -> None:
    async def body() -> None:
        async with running(tmp_path, talking()) as rig:
            socket = await subscribed(rig)
            asked = await socket.message()
            say(socket, "acknowledged", asked["id"], [])
            await rig.until(lambda: {s.state for s in rig.session.streams} == {StreamState.FAILED})

    uvloop.run(body())


def test_a_topic_that_delivers_is_not_given_up_for_a_refusal(tmp_path: Path) -> None:
    async def body() -> None:
        async with running(tmp_path, talking()) as rig:
            socket = await subscribed(rig)
            await socket.message()
            socket.send(agg_trade("CCCUSDT", 1))
            say(socket, "refused", "already subscribed", None, [BAD])
            socket.send(agg_trade("CCCUSDT", 2))
            stream = rig.session.streams[2]
            await rig.until(lambda: stream.row_count == 2)
            assert (stream.state, stream.reason) == (StreamState.LIVE, "")

    uvloop.run(body())


@pytest.mark.parametrize("kind", [StreamKind.TRADES, StreamKind.TICKER])
def test_what_a_socket_has_lost_is_declared_where_no_id_will_tell(
    tmp_path: Path, kind: StreamKind
) -> None:
    async def body() -> None:
        async with running(tmp_path, talking()) as rig:
            socket = await subscribed(rig, kind)
            await socket.message()

            def bring(name: str, number: int) -> None:
                if kind is StreamKind.TRADES:
                    socket.send(agg_trade(name, number))
                else:
                    socket.send({
                        "e": "bookTicker", "u": number, "s": name, "b": "1", "B": "1", "a": "2",
                        "A": str(number), "T": 1_700_000_000_000 + number, "E": 1,
                    })  # fmt: skip

            for name in NAMES[:2]:
                bring(name, 1)
            say(socket, "lost", "sequence_num jumped from 7 to 9")
            for name in NAMES[:2]:
                bring(name, 3)
            await rig.until(lambda: sum(s.row_count for s in rig.session.streams) == 4)
            rig.session.tick()
            gaps = rig.double.rows("gap")
            exact = kind is StreamKind.TRADES
            assert sorted(gaps["stream"].tolist()) == [0, 1], "the others had nothing to lose"
            assert set(gaps["reason"]) == {GapReason.SEQUENCE}
            state = GapState.UNRECOVERABLE if exact else GapState.UNPROVABLE
            assert set(gaps["state"]) == {state}
            assert set(gaps["missing"]) == {1 if exact else -1}

    uvloop.run(body())


def test_a_venue_that_must_be_greeted_is_asked_for_nothing_before_it_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conversation, "_GREETING_TIMEOUT_S", 0.3)
    venue = talking(greet=lambda _: [b'{"login":1}', b'{"heartbeat":1}'])

    async def body() -> None:
        async with running(tmp_path, venue) as rig:
            first = await subscribed(rig)
            assert [await first.message() for _ in range(2)] == [{"login": 1}, {"heartbeat": 1}]
            words = "the venue did not answer what it must be greeted with"
            await rig.until(lambda: rig.session.streams[0].reason == words)
            assert first.received.empty()
            second = await rig.fake.socket()
            assert [await second.message() for _ in range(2)] == [{"login": 1}, {"heartbeat": 1}]
            say(second, "ready")
            assert len((await second.message())["params"]) == 4

    uvloop.run(body())


def test_a_decoder_lives_as_long_as_its_socket_and_may_answer(tmp_path: Path) -> None:
    opened: list[dict[str, int]] = []

    def counting(feeds: Feeds, talk: Talk) -> FrameDecoder:
        state = {"frames": 0}
        opened.append(state)

        def on_frame(_: bytes, __: int) -> None:
            state["frames"] += 1
            talk.answer(b'{"heard":%d}' % state["frames"])

        return on_frame

    venue = dataclasses.replace(talking(), open_decoder=counting)

    async def body() -> None:
        async with running(tmp_path, venue) as rig:
            first = await subscribed(rig)
            await first.message()
            for number in (1, 2):
                first.send({})
                assert await first.message() == {"heard": number}
            first.cut()
            second = await rig.fake.socket()
            await second.message()
            second.send({})
            assert await second.message() == {"heard": 1}
            assert opened == [{"frames": 2}, {"frames": 1}]

    uvloop.run(body())
