"""Wanted streams: what a restart finds, what the mirror gives back."""

import asyncio
import errno
from collections.abc import Awaitable, Callable
from pathlib import Path

import psycopg
import pytest

from engine.base import durable
from engine.base.errors import EngineError
from engine.data.names import StreamKey, StreamKind, Transport
from engine.messages.streams import Knobs
from engine.start.addresses import Secret
from engine.streams.wanted import Origin, Wanted, WantedStream
from engine.streams.wanted_mirror import WantedMirror
from tests.engine.full_disk import full_at
from tests.waiting import until

A = StreamKey("binance_linear", "BTCUSDT", StreamKind.TRADES)
B = StreamKey("binance_linear", "BTCUSDT", StreamKind.OPEN_INTEREST, Transport.HTTP_POLL)
C = StreamKey("hyperliquid_perp", "BTC", StreamKind.TRADES)
D = StreamKey("hyperliquid_perp", "ETH", StreamKind.TRADES)
QUIET = Knobs(db_writes_enabled=False, flush_rows=7)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "registry.jsonl"


def keys(wanted: Wanted) -> list[StreamKey]:
    return [entry.key for entry in wanted.wanted()]


def test_streams_and_knobs_are_there_after_a_restart(path: Path) -> None:
    wanted = Wanted(path)
    wanted.put([WantedStream(A, added_ns=5), WantedStream(B)])
    wanted.put([WantedStream(A, QUIET, added_ns=5)])
    wanted.remove([B])
    again = Wanted(path)
    assert again.wanted() == [WantedStream(A, QUIET, added_ns=5)]
    assert Wanted(path).wanted() == again.wanted(), "the compacted file says the same"


def test_who_only_looks_leaves_the_file_as_it_is(path: Path) -> None:
    wanted = Wanted(path)
    wanted.put([WantedStream(A), WantedStream(B)])
    wanted.remove([B])
    before = path.read_bytes(), path.stat().st_ino
    assert keys(Wanted(path, owned=False)) == [A]
    assert (path.read_bytes(), path.stat().st_ino) == before
    Wanted(path)
    assert path.stat().st_ino != before[1], "its owner writes it anew, shorter"


def test_half_a_line_was_never_answered(path: Path) -> None:
    wanted = Wanted(path)
    wanted.put([WantedStream(A)])
    with path.open("ab") as file:
        file.write(b'{"entry":{"key":{"venue":"bin')
    again = Wanted(path)
    again.put([WantedStream(C)])
    assert keys(Wanted(path)) == [A, C]


@pytest.mark.parametrize("taken_lines", [0.5, 1.5, 2.5])
def test_what_a_full_disk_refused_never_happened(path: Path, taken_lines: float) -> None:
    wanted = Wanted(path)
    wanted.put([WantedStream(A)])
    with full_at(int(path.stat().st_size * (1 + taken_lines))), pytest.raises(OSError):
        wanted.put([WantedStream(B), WantedStream(C), WantedStream(D)])
    assert keys(wanted) == keys(Wanted(path)) == [A]
    wanted.put([WantedStream(D)])
    assert keys(Wanted(path)) == [A, D]


def test_a_start_on_a_full_disk_goes_on_with_the_long_file(path: Path) -> None:
    wanted = Wanted(path)
    wanted.put([WantedStream(A)])
    wanted.put([WantedStream(A, QUIET)])
    body = path.read_bytes()
    with full_at(20):
        assert Wanted(path).wanted() == [WantedStream(A, QUIET)]
    assert path.read_bytes() == body
    assert list(path.parent.iterdir()) == [path], "no half file takes the space that is missing"


def test_the_file_stays_a_few_times_the_size_of_what_it_says(path: Path) -> None:
    wanted = Wanted(path)
    sizes = []
    for first in range(1, 12_000, 50):
        wanted.put(WantedStream(A, Knobs(flush_rows=first + after)) for after in range(50))
        sizes.append(path.stat().st_size)
    assert max(sizes) < 1 << 20
    assert min(sizes[100:]) < 1_000, "rewritten while it ran"
    assert Wanted(path).wanted() == wanted.wanted()


def test_removed_before_the_mirror_was_met_is_removed_after_it(path: Path) -> None:
    wanted = Wanted(path)
    wanted.seed([C], 1)
    wanted.put([WantedStream(A), WantedStream(B, QUIET)])
    wanted.remove([A, B, C])
    wanted = Wanted(path)
    earlier = [WantedStream(key) for key in (A, B, C, D)]
    assert wanted.adopt(earlier, "mirror") == [WantedStream(D)]
    assert keys(wanted) == keys(Wanted(path)) == [D]
    left = {entry.key: entry.removed for entry in Wanted(path).entries()}
    assert left == {B: True, C: True, D: False}, "where rows are kept back, and what is configured"
    wanted.seed([A, B, C], 2)
    assert sorted(keys(wanted)) == sorted([A, B, D])


def test_damage_in_the_middle_is_named_not_guessed_over(path: Path) -> None:
    for damage in (b'{"entry":{"key":3}}\n', b'{"joined":"\xff"}\n', b"[" * 100_000 + b"\n"):
        path.write_bytes(damage)
        with pytest.raises(EngineError, match="damaged in line 1"):
            Wanted(path)


def test_configured_stream_removed_by_command_stays_removed_until_the_file_drops_it(
    path: Path,
) -> None:
    wanted = Wanted(path)
    wanted.seed([A, C], 1)
    wanted.put([WantedStream(B)])
    wanted.remove([A])
    wanted = Wanted(path)
    wanted.seed([A, C], 2)
    assert keys(wanted) == [C, B]
    wanted.seed([C], 3)
    wanted.seed([A, C], 4)
    assert sorted(keys(wanted)) == sorted([A, B, C])


@pytest.mark.parametrize("is_joined", [True, False])
def test_removed_stays_removed_whoever_wanted_it_last(path: Path, is_joined: bool) -> None:
    wanted = Wanted(path)
    if is_joined:
        wanted.adopt([], "mirror")
    wanted.put([WantedStream(C)])
    wanted.seed([A, C], 1)
    wanted.remove([A, C])
    wanted.put([WantedStream(A)])
    wanted.remove([A])
    again = Wanted(path)
    again.seed([A, C], 2)
    assert keys(again) == []


def test_a_directory_that_cannot_be_synced_leaves_the_registry_readable(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = Wanted(path)
    for number in range(50):
        wanted.put([WantedStream(A, added_ns=number)])
    with monkeypatch.context() as broken:
        broken.setattr(durable, "sync_directory", _refuse)
        wanted.compact()
    with full_at(path.stat().st_size + 10), pytest.raises(OSError):
        wanted.put([WantedStream(B)])
    wanted.put([WantedStream(C)])
    assert keys(Wanted(path)) == [A, C]


def _refuse(path: Path) -> None:
    raise OSError(errno.EIO, "input/output error", str(path))


def test_stream_that_came_from_the_file_goes_with_it_and_a_commanded_one_stays(path: Path) -> None:
    wanted = Wanted(path)
    wanted.seed([A], 1)
    wanted.put([WantedStream(B)])
    wanted.seed([], 2)
    assert keys(wanted) == [B]


def with_mirror(
    wanted: Wanted,
    database_url: str,
    body: Callable[[WantedMirror], Awaitable[None]],
    adopted: list[WantedStream] | None = None,
) -> None:
    async def main() -> None:
        taken: list[WantedStream] = [] if adopted is None else adopted
        mirror = WantedMirror(
            wanted, "prod", Secret(database_url), taken.extend, compare_every_s=0.05
        )
        try:
            async with asyncio.timeout(30):
                await body(mirror)
        finally:
            await mirror.close()

    asyncio.run(main())


async def mirrored(wanted: Wanted, mirror: WantedMirror) -> None:
    await until(lambda: mirror.mirrored_revision == wanted.revision)


def test_table_follows_and_a_new_state_directory_adopts_it(
    path: Path, tmp_path: Path, database_url: str
) -> None:
    wanted = Wanted(path)
    wanted.seed([C], 3)

    async def follow(mirror: WantedMirror) -> None:
        mirror.start()
        wanted.put([WantedStream(A, QUIET, added_ns=1), WantedStream(B, added_ns=2)])
        wanted.remove([C])
        mirror.changed()
        await mirrored(wanted, mirror)
        wanted.remove([B])
        mirror.changed()
        await mirrored(wanted, mirror)

    with_mirror(wanted, database_url, follow)
    with psycopg.connect(database_url) as connection:
        rows = connection.execute(
            "SELECT symbol, kind, knobs->>'flush_rows', removed FROM stream_registry"
            " WHERE registry = 'prod' ORDER BY symbol"
        ).fetchall()
    assert rows == [("BTC", "Trades", None, True), ("BTCUSDT", "Trades", "7", False)]

    fresh = Wanted(tmp_path / "other.jsonl")

    async def adopt(mirror: WantedMirror) -> None:
        await mirror.first_attempt()

    with_mirror(fresh, database_url, adopt)
    fresh.seed([C], 9)
    assert fresh.wanted() == [WantedStream(A, QUIET, added_ns=1)]


def test_registry_that_has_met_its_mirror_is_never_overruled_by_it(
    path: Path, database_url: str
) -> None:
    wanted = Wanted(path)
    wanted.put([WantedStream(A)])

    async def meet(mirror: WantedMirror) -> None:
        mirror.start()
        await mirrored(wanted, mirror)

    with_mirror(wanted, database_url, meet)
    wanted.remove([A])
    again = Wanted(path)
    adopted: list[WantedStream] = []

    async def start(mirror: WantedMirror) -> None:
        await mirror.first_attempt()
        await meet(mirror)

    wanted = again
    with_mirror(again, database_url, start, adopted)
    assert again.wanted() == []
    assert adopted == []
    with psycopg.connect(database_url) as connection:
        assert connection.execute("SELECT count(*) FROM stream_registry").fetchone() == (0,)


def test_database_that_comes_late_still_gives_back_what_it_remembers(
    path: Path, tmp_path: Path, database_url: str
) -> None:
    earlier = Wanted(tmp_path / "earlier.jsonl")
    earlier.put([WantedStream(A, QUIET)])
    earlier.seed([C], 1)
    earlier.remove([C])

    async def store(mirror: WantedMirror) -> None:
        mirror.start()
        await mirrored(earlier, mirror)

    with_mirror(earlier, database_url, store)
    late = Wanted(path)
    late.seed([C], 2)  # the start did not wait for the database
    late.put([WantedStream(B)])
    adopted: list[WantedStream] = []

    async def meet(mirror: WantedMirror) -> None:
        mirror.start()
        await mirrored(late, mirror)

    with_mirror(late, database_url, meet, adopted)
    assert {entry.key: entry.removed for entry in adopted} == {A: False, C: True}
    assert sorted(keys(late)) == sorted([A, B])
    assert late.get(A) == WantedStream(A, QUIET)
    assert [entry.origin for entry in late.entries() if entry.removed] == [Origin.CONFIG]


def test_a_table_that_was_emptied_or_made_anew_is_filled_again(
    path: Path, database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    wanted = Wanted(path)
    wanted.put([WantedStream(A)])
    count = "SELECT count(*) FROM stream_registry"

    async def body(mirror: WantedMirror) -> None:
        mirror.start()
        await mirrored(wanted, mirror)
        with psycopg.connect(database_url, autocommit=True) as connection:
            connection.execute("DELETE FROM stream_registry")
            await until(lambda: connection.execute(count).fetchone() == (1,))
            connection.execute("CREATE TABLE kept (LIKE stream_registry INCLUDING ALL)")
            connection.execute("DROP TABLE stream_registry")
            await until(lambda: "not mirrored yet" in caplog.text)
            connection.execute("ALTER TABLE kept RENAME TO stream_registry")
            await until(lambda: connection.execute(count).fetchone() == (1,))

    with_mirror(wanted, database_url, body)


def test_a_database_that_logs_in_and_falls_silent_holds_up_nothing(
    path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Another session holds the table."""
    monkeypatch.setattr("engine.streams.wanted_mirror._ANSWER_WITHIN_S", 0.3)

    async def scenario() -> None:
        mirror = WantedMirror(Wanted(path), "name", Secret(database_url), lambda _: None)
        async with asyncio.timeout(30):
            await mirror.first_attempt()

    with psycopg.connect(database_url) as holder:
        holder.execute("LOCK TABLE stream_registry IN ACCESS EXCLUSIVE MODE")
        asyncio.run(scenario())
    assert "not mirrored yet" in caplog.text
