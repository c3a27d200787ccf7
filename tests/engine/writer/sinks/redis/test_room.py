"""The memory of the streams: divided so that nobody is refused and nobody is cut without need."""

import asyncio
import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.base.redis_link import RedisLink, parse_redis_url
from engine.data.flags import Flag, Side
from engine.data.kinds import BOOK, KINDS
from engine.data.names import StreamKind
from engine.servers.valkey import PrivateValkey
from engine.start.redis_memory import KEY_BYTES, STREAMS_SHARE, plan_redis, water_level
from engine.writer.rows.events import encode
from engine.writer.sinks.redis.room import Held, Room, ServerMemory

MB = 1 << 20
ROWS = 2_000


@given(st.lists(st.floats(0, 1e9), max_size=50), st.floats(0, 1e9))
def test_the_level_divides_a_budget_and_cuts_the_fattest_alone(
    wants: Sequence[float], budget: float
) -> None:
    level = water_level(wants, budget)
    given = [min(want, level) for want in wants]
    assert sum(given) <= budget * (1 + 1e-9) + 1e-3
    if level < math.inf:
        assert sum(given) == pytest.approx(budget), "nothing lies idle while somebody is cut"
    else:
        assert given == list(wants)


def test_memory_is_a_part_of_the_machines_and_more_for_many_streams() -> None:
    everything = list(StreamKind) * 50
    small, large = 4 << 30, 64 << 30
    assert plan_redis(None, 10_000, [StreamKind.TRADES], small).memory_bytes == small // 8
    assert plan_redis(None, 10_000, everything, small).memory_bytes > small // 8
    crowded = plan_redis(None, 100_000, everything, small)
    assert crowded.memory_bytes == small // 4
    assert "redis.memory_mb allows 1,024" in crowded.note
    assert plan_redis(None, 10_000, everything, large).note == ""
    assert plan_redis(300, 10_000, [], small).memory_bytes == 300 * MB
    assert plan_redis(None, 10_000, [], 0).memory_bytes == 64 * MB


@pytest.mark.fault("N40")
@pytest.mark.parametrize("kind", [kind.name for kind in KINDS.values() if kind.word])
def test_a_row_takes_what_the_plan_goes_by(valkey: PrivateValkey, kind: str) -> None:
    """In entries of one row, which take most; a book's events have ten levels."""
    rows = np.zeros(ROWS, KINDS[kind].dtype)
    numbers = np.arange(ROWS)
    rows["ts_event"] = 1_790_000_000_000_000_000 + numbers * 10_000_000
    rows["ts_recv"] = rows["ts_event"] + 1_234_567
    for name in rows.dtype.names or ():
        if name in ("price", "bid", "ask", "avg_price", "mark", "index"):
            rows[name] = np.round(90_000 + numbers / 100, 2)
        if name in ("qty", "bid_qty", "ask_qty", "filled_qty"):
            rows[name] = np.round(1 + numbers / 1000, 3)
        if name in ("seq", "prev_seq", "trade_id"):
            rows[name] = 4_000_000_000_000 + numbers
    if "side" in (rows.dtype.names or ()):
        rows["side"] = Side.BID if kind == BOOK.name else Side.SELL
    at_once = 1
    if kind == BOOK.name:
        at_once = 10
        rows["flags"][::10] = int(Flag.FIRST_IN_EVENT)
    events = KINDS[kind].events
    payloads = [encode(events(rows[at : at + at_once])) for at in range(0, ROWS, at_once)]

    async def main() -> int:
        link = await RedisLink.open(parse_redis_url(valkey.restart()), "test", 5.0)
        await link.call([("XADD", "k", "*", "events", payload) for payload in payloads], 5.0)
        (taken,) = await link.call([("MEMORY", "USAGE", "k", "SAMPLES", 0)], 5.0)
        await link.wait_closed()
        return int(taken)

    planned = KEY_BYTES + ROWS * KINDS[kind].json_row_bytes
    assert 0.7 * planned <= asyncio.run(main()) <= 1.05 * planned


def fill(room: Room, key: str, entries: int, payload_bytes: int = 970) -> Held:
    """A stream that grew as it was told."""
    held = 0
    for _ in range(entries):
        held = min(held + 1, room.entries_kept(key, 1, payload_bytes))
    return Held(held * (payload_bytes + 30), held)


@pytest.mark.fault("N40")
def test_streams_that_do_not_fit_are_held_at_one_level() -> None:
    room = Room(int(1_000_000 / STREAMS_SHARE), 10_000)
    held = {f"k{number}": fill(room, f"k{number}", 300) for number in range(9)}
    held["quiet"] = fill(room, "quiet", 3)
    trims = room.take_stock(held, None)
    assert {trim.key for trim in trims} == set(held) - {"quiet"}
    together = sum(trim.entry_count for trim in trims) * 1_000 + held["quiet"].byte_count
    assert 0.95e6 <= together <= 1e6
    assert room.entries_kept("k0", 1, 970) == pytest.approx(trims[0].entry_count, rel=0.01)
    assert room.entries_kept("new", 1, 970) > 50, "a new stream gets its share"


def test_nobody_is_cut_while_everything_fits() -> None:
    room = Room(10 * MB, 100)
    held = {"fat": fill(room, "fat", 90, 60_000), "thin": fill(room, "thin", 100)}
    assert room.take_stock(held, None) == []
    assert room.entries_kept("thin", 1, 970) == 100
    assert room.used_bytes == sum(each.byte_count for each in held.values())


def test_what_others_take_of_the_server_is_not_ours() -> None:
    room = Room(100 * MB, 1_000_000)
    held = {key: fill(room, key, 2_000) for key in ("a", "b")}
    server = ServerMemory(used=8 * MB, most=10 * MB)
    assert room.take_stock(held, server) == []
    tighter = ServerMemory(used=9 * MB, most=10 * MB)
    trims = room.take_stock(held, tighter)
    assert len(trims) == 2
    assert room.budget_bytes == pytest.approx(4_000_000 - 0.5 * MB, rel=0.01)


@pytest.mark.fault("N40")
def test_a_server_that_was_full_gets_its_streams_cut_whatever_it_says() -> None:
    room = Room(100 * MB, 1_000_000)
    held = {"mine": fill(room, "mine", 1_000), "left behind": Held(1_000_000, 1_000)}
    assert room.take_stock(held, None) == []
    room.was_full(held)
    trims = {trim.key: trim.entry_count for trim in room.take_stock(held, None)}
    assert trims["left behind"] < trims["mine"] / 3
    assert 1_000 * sum(trims.values()) <= 0.8 * 2_000_000
    for _ in range(300):
        room.take_stock(held, None)
    assert room.budget_bytes == int(100 * MB * STREAMS_SHARE), "and grow back"


@pytest.mark.fault("N40")
@given(
    st.lists(
        st.tuples(st.integers(0, 7), st.integers(1, 500), st.integers(1, 40)),
        min_size=1,
        max_size=60,
    )
)
def test_whatever_is_written_the_streams_stay_near_their_budget(
    bursts: list[tuple[int, int, int]],
) -> None:
    """Entries of very different sizes, in any order, trimmed as the server would."""
    room = Room(int(400_000 / STREAMS_SHARE), 10_000)
    streams: dict[str, list[int]] = {}
    for number, rows, entries in bursts:
        key, size = f"k{number}", rows * 100 + 30
        for _ in range(entries):
            kept = room.entries_kept(key, rows, rows * 100)
            streams[key] = [*streams.get(key, []), size][-kept:]
            assert sum(streams[key][-1:]) == size, "the newest entry stays, always"
        held = {key: Held(sum(sizes), len(sizes)) for key, sizes in streams.items()}
        for trim in room.take_stock(held, None):
            streams[trim.key] = streams[trim.key][-trim.entry_count :]
        largest = max(max(sizes) for sizes in streams.values())
        together = sum(sum(sizes) for sizes in streams.values())
        assert together <= 400_000 + len(streams) * largest * 20
