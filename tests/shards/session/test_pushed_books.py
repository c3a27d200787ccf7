"""A book whose snapshot is pushed: where its chain breaks, its topic is subscribed anew."""

import asyncio
import dataclasses
import json
from pathlib import Path

import pytest

from engine.data.flags import Flag, GapReason
from engine.data.names import StreamKind, Transport
from engine.messages.streams import StreamState
from shards.feeds.book_rows import BookEvent
from shards.feeds.pushed import books
from shards.feeds.pushed.books import PushedBook
from shards.feeds.pushed.rules import BookRule, by_one
from shards.venues import VENUES
from shards.venues.kit import Channel, Feeds, FrameDecoder, Talk
from tests.shards.venue_rig import SYMBOLS, Rig, message, run, spec

MS = 1_000_000
START_MS = 1_700_000_000_000


def open_decoder(feeds: Feeds, _: Talk) -> FrameDecoder:
    """Of frames that are a whole book (`s`) or a change of it."""
    books = feeds.of(PushedBook)

    def decode(payload: bytes, ts_recv: int) -> None:
        row = json.loads(payload)
        if "u" in row:
            at = (START_MS + row["u"]) * MS
            event = BookEvent(row["u"], row["u"] - 1, at, ts_recv, row["b"], [], row["s"])
            books[row["symbol"]].on_event(event)

    return decode


BASE = VENUES["binance_linear"]
CHANNEL = Channel(
    "public", PushedBook, lambda symbol, _: f"book.{symbol}", 60.0, book=BookRule(by_one)
)
VENUE = dataclasses.replace(
    BASE,
    channels={(StreamKind.L2_BOOK, Transport.WS): CHANNEL},
    groups={"public": dataclasses.replace(BASE.groups["public"], refuses_repeats=True)},
    open_decoder=open_decoder,
)


def frame(update_id: int, price: float, *, is_whole: bool = False) -> bytes:
    row = {"symbol": SYMBOLS[0], "u": update_id, "b": [[price, 1.0]], "s": is_whole}
    return json.dumps(row).encode()


def test_a_broken_chain_is_mended_by_a_new_subscription(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(books, "_FIRST_PAUSE_S", 0.5)

    async def test(rig: Rig) -> None:
        rig.session.start([spec(0, StreamKind.L2_BOOK)])
        server = await rig.socket()
        assert (await message(server))["params"] == ["book.S0USDT"]
        (stream,) = rig.session.streams
        server.send(frame(10, 1.0, is_whole=True))
        server.send(frame(11, 2.0))
        await rig.until(lambda: stream.state is StreamState.LIVE and stream.row_count == 2)
        server.send(frame(15, 3.0))
        await rig.until(lambda: stream.state is StreamState.SYNCING)

        async def ticks() -> None:
            while True:
                rig.session.tick()
                await asyncio.sleep(0.05)

        ticking = asyncio.create_task(ticks())
        assert await message(server) | {"id": 0} == {
            "method": "UNSUBSCRIBE", "params": ["book.S0USDT"], "id": 0,
        }  # fmt: skip
        assert (await message(server))["method"] == "SUBSCRIBE"
        ticking.cancel()
        server.send(frame(20, 4.0, is_whole=True))
        server.send(frame(21, 5.0))
        await rig.until(lambda: stream.state is StreamState.LIVE and stream.row_count == 5)
        rows = rig.double.rows("book")
        assert rows["seq"].tolist() == [10, 11, 15, 20, 21]
        assert [bool(each & Flag.SNAPSHOT) for each in rows["flags"]] == [
            True, False, False, True, False,
        ]  # fmt: skip
        gaps = rig.double.rows("gap")[["reason", "from_seq", "to_seq"]].tolist()
        assert gaps == [(GapReason.RESYNC, 12, 14), (GapReason.RESYNC, 16, 20)]

    run(tmp_path, test, venue=VENUE)
