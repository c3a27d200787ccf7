"""Gaps as the shards declare them, kept for whoever looks later."""

from pathlib import Path

from control.state.gap_log import GAPS_MAX, GapLog
from engine.data.flags import GapReason
from engine.data.kinds import GAP
from engine.data.layout import Layout
from engine.messages.status import StreamReport
from tests.control.ui.rings import NOW_NS, ShardRing
from tests.control.ui.scripted_engine import stream


def layout_in(folder: Path) -> Layout:
    layout = Layout(folder / "state", "test", folder / "shm")
    layout.state_dir.mkdir()
    return layout


def placed(shard: int, process: str = "") -> list[StreamReport]:
    return [stream(7, "BTCUSDT", shard=shard, process=process)]


def declare(ring: ShardRing, reason: GapReason, **fields: int) -> None:
    ring.put(7, **({"reason": int(reason), "missing": -1} | fields))


def reasons(log: GapLog, after: int = 0) -> list[int]:
    found: list[int] = log.after(after)["reason"].tolist()
    return found


def test_gaps_outlive_the_process_that_found_them(tmp_path: Path) -> None:
    layout = layout_in(tmp_path)
    log = GapLog(layout)
    log.look(placed(0))  # there is no ring yet
    ring = ShardRing(layout, GAP.name)
    declare(ring, GapReason.SEQUENCE, from_ts=NOW_NS - 9, to_ts=NOW_NS - 3, missing=5)
    log.look(placed(0))
    declare(ring, GapReason.RING_FULL)  # and dies at once
    ring.close(remove=True)
    heir = ShardRing(layout, GAP.name, epoch=2)
    declare(heir, GapReason.RESTART)
    log.look(placed(0))
    assert reasons(log) == [GapReason.SEQUENCE, GapReason.RING_FULL, GapReason.RESTART]
    first, second, _ = log.after(0).tolist()
    assert first == (7, GapReason.SEQUENCE, NOW_NS, NOW_NS - 9, NOW_NS - 3, 5)
    assert second == (7, GapReason.RING_FULL, NOW_NS, NOW_NS, NOW_NS, -1)  # no times are named
    heir.close()


def test_a_stream_that_moves_is_followed_and_nothing_is_told_twice(tmp_path: Path) -> None:
    layout = layout_in(tmp_path)
    log = GapLog(layout)
    here, there = ShardRing(layout, GAP.name), ShardRing(layout, GAP.name, shard=1)
    declare(here, GapReason.SILENCE)
    log.look(placed(0))
    declare(here, GapReason.RECONNECT)
    log.look(placed(1))  # the first one's last words are still heard
    declare(there, GapReason.RESYNC)
    for shard in (1, 0, 1):
        log.look(placed(shard))
    assert reasons(log) == [GapReason.SILENCE, GapReason.RECONNECT, GapReason.RESYNC]
    assert reasons(log, 2) == [GapReason.RESYNC]
    assert reasons(log, 3) == []
    for ring in (here, there):
        ring.close()


def test_the_newest_are_kept(tmp_path: Path) -> None:
    layout = layout_in(tmp_path)
    log = GapLog(layout)
    ring = ShardRing(layout, GAP.name)
    log.look(placed(0))
    for number in range(GAPS_MAX + 30):
        declare(ring, GapReason.SEQUENCE, missing=number)
        if number % 1000 == 0:
            log.look(placed(0))
    log.look(placed(0))
    assert log.count == GAPS_MAX + 30
    missing = log.after(0)["missing"].tolist()
    assert (len(missing), missing[0], missing[-1]) == (GAPS_MAX, 30, GAPS_MAX + 29)
    ring.close()
