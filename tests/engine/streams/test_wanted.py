"""Wanted streams: what a restart finds, what the mirror gives back."""

import asyncio
import errno
from collections.abc import Awaitable, Callable
from pathlib import Path

import psycopg
import pytest

from engine.base import durable
from engine.base.errors import EngineError
from engine.data.slots import StreamKey, StreamKind, Transport
from engine.messages.commands import Knobs
from engine.start.config import Secret
from engine.streams.wanted import Origin, Registry, RegistryEntry
from engine.streams.wanted_mirror import RegistryMirror
from tests.engine.full_disk import full_at

A = StreamKey("binance_linear", "BTCUSDT", StreamKind.TRADES)
B = StreamKey("binance_linear", "BTCUSDT", StreamKind.OPEN_INTEREST, Transport.HTTP_POLL)
C = StreamKey("hyperliquid_perp", "BTC", StreamKind.TRADES)
D = StreamKey("hyperliquid_perp", "ETH", StreamKind.TRADES)
QUIET = Knobs(db_writes_enabled=False, flush_rows=7)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "registry.jsonl"


def keys(registry: Registry) -> list[StreamKey]:
    return [entry.key for entry in registry.wanted()]


def test_streams_and_knobs_are_there_after_a_restart(path: Path) -> None:
    registry = Registry(path)
    registry.put([RegistryEntry(A, added_ns=5), RegistryEntry(B)])
    registry.put([RegistryEntry(A, QUIET, added_ns=5)])
    registry.remove([B])
    again = Registry(path)
    assert again.wanted() == [RegistryEntry(A, QUIET, added_ns=5)]
    assert Registry(path).wanted() == again.wanted(), "the compacted file says the same"


def test_half_a_line_was_never_answered(path: Path) -> None:
    registry = Registry(path)
    registry.put([RegistryEntry(A)])
    with path.open("ab") as file:
        file.write(b'{"entry":{"key":{"venue":"bin')
    again = Registry(path)
    again.put([RegistryEntry(C)])
    assert keys(Registry(path)) == [A, C]


@pytest.mark.parametrize("taken_lines", [0.5, 1.5, 2.5])
def test_what_a_full_disk_refused_never_happened(path: Path, taken_lines: float) -> None:
    registry = Registry(path)
    registry.put([RegistryEntry(A)])
    with full_at(int(path.stat().st_size * (1 + taken_lines))), pytest.raises(OSError):
        registry.put([RegistryEntry(B), RegistryEntry(C), RegistryEntry(D)])
    assert keys(registry) == keys(Registry(path)) == [A]
    registry.put([RegistryEntry(D)])
    assert keys(Registry(path)) == [A, D]


def test_a_start_on_a_full_disk_goes_on_with_the_long_file(path: Path) -> None:
    registry = Registry(path)
    registry.put([RegistryEntry(A)])
    registry.put([RegistryEntry(A, QUIET)])
    body = path.read_bytes()
    with full_at(20):
        assert Registry(path).wanted() == [RegistryEntry(A, QUIET)]
    assert path.read_bytes() == body
    assert list(path.parent.iterdir()) == [path], "no half file takes the space that is missing"


def test_the_file_stays_a_few_times_the_size_of_what_it_says(path: Path) -> None:
    registry = Registry(path)
    sizes = []
    for first in range(1, 12_000, 50):
        registry.put(RegistryEntry(A, Knobs(flush_rows=first + after)) for after in range(50))
        sizes.append(path.stat().st_size)
    assert max(sizes) < 1 << 20
    assert min(sizes[100:]) < 1_000, "rewritten while it ran"
    assert Registry(path).wanted() == registry.wanted()


def test_removed_before_the_mirror_was_met_is_removed_after_it(path: Path) -> None:
    registry = Registry(path)
    registry.seed([C], 1)
    registry.put([RegistryEntry(A), RegistryEntry(B, QUIET)])
    registry.remove([A, B, C])
    registry = Registry(path)
    earlier = [RegistryEntry(key) for key in (A, B, C, D)]
    assert registry.adopt(earlier, "mirror") == [RegistryEntry(D)]
    assert keys(registry) == keys(Registry(path)) == [D]
    left = {entry.key: entry.removed for entry in Registry(path).entries()}
    assert left == {B: True, C: True, D: False}, "where rows are kept back, and what is configured"
    registry.seed([A, B, C], 2)
    assert sorted(keys(registry)) == sorted([A, B, D])


def test_damage_in_the_middle_is_named_not_guessed_over(path: Path) -> None:
    for damage in (b'{"entry":{"key":3}}\n', b'{"joined":"\xff"}\n', b"[" * 100_000 + b"\n"):
        path.write_bytes(damage)
        with pytest.raises(EngineError, match="damaged in line 1"):
            Registry(path)


def test_configured_stream_removed_by_command_stays_removed_until_the_file_drops_it(
    path: Path,
) -> None:
    registry = Registry(path)
    registry.seed([A, C], 1)
    registry.put([RegistryEntry(B)])
    registry.remove([A])
    registry = Registry(path)
    registry.seed([A, C], 2)
    assert keys(registry) == [C, B]
    registry.seed([C], 3)
    registry.seed([A, C], 4)
    assert sorted(keys(registry)) == sorted([A, B, C])


@pytest.mark.parametrize("is_joined", [True, False])
def test_removed_stays_removed_whoever_wanted_it_last(path: Path, is_joined: bool) -> None:
    registry = Registry(path)
    if is_joined:
        registry.adopt([], "mirror")
    registry.put([RegistryEntry(C)])
    registry.seed([A, C], 1)
    registry.remove([A, C])
    registry.put([RegistryEntry(A)])
    registry.remove([A])
    again = Registry(path)
    again.seed([A, C], 2)
    assert keys(again) == []


def test_a_directory_that_cannot_be_synced_leaves_the_registry_readable(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = Registry(path)
    for number in range(50):
        registry.put([RegistryEntry(A, added_ns=number)])
    with monkeypatch.context() as broken:
        broken.setattr(durable, "sync_directory", _refuse)
        registry.compact()
    with full_at(path.stat().st_size + 10), pytest.raises(OSError):
        registry.put([RegistryEntry(B)])
    registry.put([RegistryEntry(C)])
    assert keys(Registry(path)) == [A, C]


def _refuse(path: Path) -> None:
    raise OSError(errno.EIO, "input/output error", str(path))


def test_stream_that_came_from_the_file_goes_with_it_and_a_commanded_one_stays(path: Path) -> None:
    registry = Registry(path)
    registry.seed([A], 1)
    registry.put([RegistryEntry(B)])
    registry.seed([], 2)
    assert keys(registry) == [B]


def with_mirror(
    registry: Registry,
    database_url: str,
    body: Callable[[RegistryMirror], Awaitable[None]],
    adopted: list[RegistryEntry] | None = None,
) -> None:
    async def main() -> None:
        taken: list[RegistryEntry] = [] if adopted is None else adopted
        mirror = RegistryMirror(
            registry, "prod", Secret(database_url), taken.extend, compare_every_s=0.05
        )
        try:
            async with asyncio.timeout(20):
                await body(mirror)
        finally:
            await mirror.close()

    asyncio.run(main())


async def mirrored(registry: Registry, mirror: RegistryMirror) -> None:
    while mirror.mirrored_revision != registry.revision:
        await asyncio.sleep(0.02)


def test_table_follows_and_a_new_state_directory_adopts_it(
    path: Path, tmp_path: Path, database_url: str
) -> None:
    registry = Registry(path)
    registry.seed([C], 3)

    async def follow(mirror: RegistryMirror) -> None:
        mirror.start()
        registry.put([RegistryEntry(A, QUIET, added_ns=1), RegistryEntry(B, added_ns=2)])
        registry.remove([C])
        mirror.changed()
        await mirrored(registry, mirror)
        registry.remove([B])
        mirror.changed()
        await mirrored(registry, mirror)

    with_mirror(registry, database_url, follow)
    with psycopg.connect(database_url) as connection:
        rows = connection.execute(
            "SELECT symbol, kind, knobs->>'flush_rows', removed FROM stream_registry"
            " WHERE registry = 'prod' ORDER BY symbol"
        ).fetchall()
    assert rows == [("BTC", "Trades", None, True), ("BTCUSDT", "Trades", "7", False)]

    fresh = Registry(tmp_path / "other.jsonl")

    async def adopt(mirror: RegistryMirror) -> None:
        await mirror.first_attempt()

    with_mirror(fresh, database_url, adopt)
    fresh.seed([C], 9)
    assert fresh.wanted() == [RegistryEntry(A, QUIET, added_ns=1)]


def test_registry_that_has_met_its_mirror_is_never_overruled_by_it(
    path: Path, database_url: str
) -> None:
    registry = Registry(path)
    registry.put([RegistryEntry(A)])

    async def meet(mirror: RegistryMirror) -> None:
        mirror.start()
        await mirrored(registry, mirror)

    with_mirror(registry, database_url, meet)
    registry.remove([A])
    again = Registry(path)
    adopted: list[RegistryEntry] = []

    async def start(mirror: RegistryMirror) -> None:
        await mirror.first_attempt()
        await meet(mirror)

    registry = again
    with_mirror(again, database_url, start, adopted)
    assert again.wanted() == []
    assert adopted == []
    with psycopg.connect(database_url) as connection:
        assert connection.execute("SELECT count(*) FROM stream_registry").fetchone() == (0,)


def test_database_that_comes_late_still_gives_back_what_it_remembers(
    path: Path, tmp_path: Path, database_url: str
) -> None:
    earlier = Registry(tmp_path / "earlier.jsonl")
    earlier.put([RegistryEntry(A, QUIET)])
    earlier.seed([C], 1)
    earlier.remove([C])

    async def store(mirror: RegistryMirror) -> None:
        mirror.start()
        await mirrored(earlier, mirror)

    with_mirror(earlier, database_url, store)
    late = Registry(path)
    late.seed([C], 2)  # the start did not wait for the database
    late.put([RegistryEntry(B)])
    adopted: list[RegistryEntry] = []

    async def meet(mirror: RegistryMirror) -> None:
        mirror.start()
        await mirrored(late, mirror)

    with_mirror(late, database_url, meet, adopted)
    assert {entry.key: entry.removed for entry in adopted} == {A: False, C: True}
    assert sorted(keys(late)) == sorted([A, B])
    assert late.get(A) == RegistryEntry(A, QUIET)
    assert [entry.origin for entry in late.entries() if entry.removed] == [Origin.CONFIG]


def test_a_table_that_was_emptied_or_made_anew_is_filled_again(
    path: Path, database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    registry = Registry(path)
    registry.put([RegistryEntry(A)])
    count = "SELECT count(*) FROM stream_registry"

    async def body(mirror: RegistryMirror) -> None:
        mirror.start()
        await mirrored(registry, mirror)
        with psycopg.connect(database_url, autocommit=True) as connection:
            connection.execute("DELETE FROM stream_registry")
            while connection.execute(count).fetchone() != (1,):
                await asyncio.sleep(0.02)
            connection.execute("CREATE TABLE kept (LIKE stream_registry INCLUDING ALL)")
            connection.execute("DROP TABLE stream_registry")
            while "not mirrored yet" not in caplog.text:
                await asyncio.sleep(0.02)
            connection.execute("ALTER TABLE kept RENAME TO stream_registry")
            while connection.execute(count).fetchone() != (1,):
                await asyncio.sleep(0.02)

    with_mirror(registry, database_url, body)


def test_a_database_that_logs_in_and_falls_silent_holds_up_nothing(
    path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Another session holds the table."""
    monkeypatch.setattr("engine.streams.wanted_mirror._ANSWER_WITHIN_S", 0.3)

    async def scenario() -> None:
        mirror = RegistryMirror(Registry(path), "name", Secret(database_url), lambda _: None)
        async with asyncio.timeout(30):
            await mirror.first_attempt()

    with psycopg.connect(database_url) as holder:
        holder.execute("LOCK TABLE stream_registry IN ACCESS EXCLUSIVE MODE")
        asyncio.run(scenario())
    assert "not mirrored yet" in caplog.text
