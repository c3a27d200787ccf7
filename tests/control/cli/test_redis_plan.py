"""What the command line gives a private Redis, and rings: by the streams that are known."""

from pathlib import Path

import pytest

from control.cli import ground
from control.cli.footing import machine_plan
from control.cli.ground import ServiceOptions, redis_plan
from control.cli.options import example_streams
from engine.data.layout import Layout
from engine.data.names import StreamKey, StreamKind
from engine.start.config import load
from engine.start.redis_memory import needed_bytes
from engine.streams.wanted import Wanted, WantedStream

MB = 1 << 20


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ground, "memory_bytes", lambda: 2048 * MB)


def options(tmp_path: Path, text: str, *, fresh: bool = False) -> ServiceOptions:
    file = tmp_path / "fts.toml"
    file.write_text(text)
    return ServiceOptions(load(file, {}, default_streams=example_streams()), fresh=fresh)


@pytest.mark.fault("N40")
def test_streams_that_commands_added_count_as_well(tmp_path: Path, layout: Layout) -> None:
    file = options(tmp_path, "streams = []\n[redis]\nstream_maxlen = 1000\n")
    assert redis_plan(file, layout).needed_bytes == 0
    keys = [StreamKey("acme", f"S{number}", StreamKind.TRADES) for number in range(2_000)]
    Wanted(layout.wanted).put([WantedStream(key) for key in keys])
    plan = redis_plan(file, layout)
    assert plan.needed_bytes == needed_bytes([StreamKind.TRADES] * 2_000, 1_000) > 256 * MB
    assert plan.memory_bytes == plan.needed_bytes, "more than the usual eighth of the machine"
    assert Wanted(layout.wanted).wanted() != []


def test_rings_are_for_the_streams_that_commands_added_as_well(
    tmp_path: Path, layout: Layout
) -> None:
    keys = [StreamKey("binance_linear", f"S{number}", StreamKind.TRADES) for number in range(500)]
    Wanted(layout.wanted).put([WantedStream(key) for key in keys[:9]])
    text = "streams = []\n[shards]\ncpus = [0]\n"

    def trades(asked: ServiceOptions, configured: list[StreamKey]) -> list[int]:
        plan, _ = machine_plan(asked, layout, configured)
        return [ring.capacity for ring in plan.rings if ring.kind == "trade"]

    asked = options(tmp_path, text)
    assert (trades(asked, []), trades(asked, keys)) == ([1 << 18], [1 << 20])
    assert trades(options(tmp_path, text, fresh=True), []) == [1 << 17], "they will be forgotten"


@pytest.mark.fault("N40")
def test_what_does_not_fit_is_said_at_start(tmp_path: Path, layout: Layout) -> None:
    text = "[redis]\nmemory_mb = 16\nstream_maxlen = 100000\n"
    plan = redis_plan(options(tmp_path, text), layout)
    assert plan.memory_bytes == 16 * MB
    assert plan.note.startswith("redis.stream_maxlen rows of every stream take about ")
    assert plan.note.endswith(
        "MB of Redis, and redis.memory_mb allows 16: the largest streams keep fewer rows"
    )
