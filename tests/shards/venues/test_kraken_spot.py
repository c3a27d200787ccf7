"""Books of Kraken spot and their checksums, on the example of the venue's documentation."""

import json
from typing import Any

import pytest

from engine.data.flags import Flag, GapReason
from engine.data.instrument import Instrument
from engine.data.names import StreamKey, StreamKind
from engine.messages.streams import StreamSpec, StreamState
from shards.feeds.pushed.timed import UnnumberedBook
from shards.venues.kit import Feeds
from shards.venues.kraken_spot import VENUE
from tests.shards.doubles import MemoryRings, Said

ASKS = (
    "45285.2:0.00100000 45286.4:1.54571953 45286.6:1.54571109 45289.6:1.54560911 45290.2:0.15890660"
    " 45291.8:1.54553491 45294.7:0.04454749 45296.1:0.35380000 45297.5:0.09945542"
    " 45299.5:0.18772827"
)
BIDS = (
    "45283.5:0.10000000 45283.4:1.54582015 45282.1:0.10000000 45281.0:0.10000000 45280.3:1.54592586"
    " 45279.0:0.07990000 45277.6:0.03310103 45277.5:0.30000000 45277.3:1.54602737"
    " 45276.6:0.15445238"
)
CHECKSUM = 3310070434
WITHOUT_BEST_ASK = 1182027464
TS_RECV = 1_800_000_000_000_000_000


def _written(side: str) -> str:
    levels = (level.split(":") for level in side.split())
    return ",".join(f'{{"price":{price},"qty":{qty}}}' for price, qty in levels)


class Rig:
    """A stream of books with its instrument, behind a decoder."""

    def __init__(self, qty_decimals: int = 8) -> None:
        self.double = MemoryRings()
        instrument = Instrument(VENUE.name, "BTC/USD", 1, qty_decimals)
        key = StreamKey(VENUE.name, "BTC/USD", StreamKind.L2_BOOK)
        stream = self.double.feed(StreamSpec(3, key, instrument=instrument), VENUE)
        assert isinstance(stream, UnnumberedBook)
        self.stream = stream
        stream.subscribed()
        feeds = Feeds()
        feeds.add(stream)
        self._decode = VENUE.open_decoder(feeds, Said())
        self._second = 0

    def say(self, form: str, bids: str, asks: str, checksum: int, *, is_timed: bool = True) -> None:
        """A message, a second after the one before."""
        self._second += 1
        at = f',"timestamp":"2026-11-22T10:00:{self._second:02d}.000000Z"' if is_timed else ""
        bids, asks = (_written(side) for side in (bids, asks))
        frame = (
            f'{{"channel":"book","type":"{form}","data":[{{"symbol":"BTC/USD","bids":[{bids}],'
            f'"asks":[{asks}],"checksum":{checksum}{at}}}]}}'
        )
        self._decode(frame.encode(), TS_RECV)

    def gaps(self) -> list[Any]:
        """Reasons of what was declared."""
        found: list[Any] = self.double.rows("gap")["reason"].tolist()
        return found


@pytest.fixture
def rig() -> Rig:
    """One whose book has begun."""
    made = Rig()
    made.say("snapshot", BIDS, ASKS, CHECKSUM)
    return made


def test_a_book_with_the_right_checksum_is_whole(rig: Rig) -> None:
    assert rig.stream.is_synced
    assert rig.stream.state is StreamState.LIVE
    rig.say("update", "", "45285.2:0.00000000", WITHOUT_BEST_ASK)
    assert rig.stream.is_synced
    assert rig.gaps() == []


def test_a_snapshot_without_a_time_is_of_the_moment_of_the_first_change() -> None:
    rig = Rig()
    rig.say("snapshot", BIDS, ASKS, CHECKSUM, is_timed=False)
    assert len(rig.double.rows("book")) == 0
    rig.say("update", "", "45285.2:0.00000000", WITHOUT_BEST_ASK)
    assert rig.stream.is_synced
    rows = rig.double.rows("book")
    assert rows["seq"].tolist() == [1795341602_000_000 - 1] * 20 + [1795341602_000_000]
    assert rows["ts_event"].tolist() == [1795341602_000_000_000] * 21
    assert rig.gaps() == []


def test_a_wrong_checksum_after_a_change_is_a_declared_break(rig: Rig) -> None:
    rig.say("update", "", "45285.2:0.00000000", CHECKSUM)
    assert not rig.stream.is_synced
    assert rig.gaps() == [GapReason.RESYNC]
    rows = rig.double.rows("book")
    assert rows[-1]["qty"] == 0.0, "what was received is stored"
    rig.say("snapshot", BIDS, ASKS, CHECKSUM)
    assert rig.stream.is_synced


def test_a_snapshot_that_its_checksum_contradicts_is_no_book() -> None:
    rig = Rig()
    rig.say("snapshot", BIDS, ASKS, CHECKSUM + 1)
    assert not rig.stream.is_synced
    assert not (rig.double.rows("book")["flags"] & int(Flag.SNAPSHOT)).any()


def test_a_message_that_comes_twice_is_stored_once(rig: Rig) -> None:
    rig.say("update", "", "45285.2:0.00000000", WITHOUT_BEST_ASK)
    rig._second -= 1
    rig.say("update", "", "45285.2:0.00000000", WITHOUT_BEST_ASK)
    assert rig.stream.duplicate_count == 1
    assert len(rig.double.rows("book")) == 21


def test_a_message_that_is_older_than_the_one_before_it_is_no_repetition(rig: Rig) -> None:
    rig.say("update", "", "45285.2:0.00000000", WITHOUT_BEST_ASK)
    rig._second -= 2
    rig.say("update", "", "45285.2:0.00100000", CHECKSUM)
    assert rig.stream.is_synced
    assert rig.stream.duplicate_count == 0
    rows = rig.double.rows("book")[-2:]
    assert rows["seq"].tolist() == [1795341602_000_000] * 2
    assert rows["ts_event"].tolist() == [1795341602_000_000_000, 1795341601_000_000_000]


def test_another_change_of_the_same_moment_below_the_summed_levels_is_stored(rig: Rig) -> None:
    rig._second -= 1
    rig.say("update", "45000.0:1.00000000", "", CHECKSUM)
    assert rig.stream.duplicate_count == 0
    assert len(rig.double.rows("book")) == 21


def test_numbers_that_a_double_cannot_tell_are_taken_without_proof() -> None:
    rig = Rig()
    rig.say("snapshot", "0.1:12345678901.12345678", "", 1)
    assert rig.stream.is_synced
    assert rig.gaps() == []


def test_repeated_trades_fill_what_a_broken_connection_missed() -> None:
    double, feeds = MemoryRings(), Feeds()
    key = StreamKey(VENUE.name, "BTC/USD", StreamKind.TRADES)
    stream = double.feed(StreamSpec(3, key), VENUE)
    stream.subscribed()
    feeds.add(stream)
    decode = VENUE.open_decoder(feeds, Said())

    def say(form: str, *ids: int) -> None:
        data = [
            {"symbol": "BTC/USD", "side": "buy", "price": 45285.2, "qty": 1.0, "ord_type": "limit",
             "trade_id": each, "timestamp": f"2026-11-22T10:00:{each:02d}.000000Z"}
            for each in ids
        ]  # fmt: skip
        decode(json.dumps({"channel": "trade", "type": form, "data": data}).encode(), TS_RECV)

    say("update", 1, 2)
    stream.cut("cut")
    stream.subscribed()
    say("snapshot", 4, 3, 2, 1)
    say("update", 5)
    rows = double.rows("trade")
    assert rows["trade_id"].tolist() == [1, 2, 3, 4, 5]
    assert (rows["flags"] & int(Flag.BACKFILLED) != 0).tolist() == [False, False, True, True, False]
    assert len(double.rows("gap")) == 0
